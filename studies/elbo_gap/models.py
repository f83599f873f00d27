"""The models that `elbo_gap` compares: one small function each, from training rows and settings to a fitted model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bridge import FlowVAE
from density import Gaussian, Model, NetworkScale, StandardNormal, Training, constant, lbfgs
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    LULinear,
    Transform,
)
from lvm import EM, PPCA, VAE, GaussianMixture, LinearVAE
from studies.elbo_gap.settings import ModelName, Settings
from studies.kit.compute import adamw, parameter_count

Fit = Callable[[Tensor, Settings, Generator], Model]


def gaussian(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """N(μ, Σ) in closed form."""
    model = Gaussian(x.shape[1])
    model.fit(x)
    return model


def ppca(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Probabilistic PCA in closed form."""
    model = PPCA(x.shape[1], _linear_latents(x, settings))
    model.fit(x)
    return model


def mixture(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Mixture of full Gaussians by EM, every covariance plus a share of the data's mean variance."""
    ridge = settings.ridge * x.double().var(0).mean().item()
    model = GaussianMixture(x.shape[1], settings.components)
    model.fit(x, em=EM(regularisation=ridge), generator=generator)
    return model


def linear_vae(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Linear encoder and decoder, as many latents as PPCA, by full-batch L-BFGS on the ELBO in closed form."""
    model = LinearVAE(x.shape[1], _linear_latents(x, settings))
    model.fit(x, generator=generator)
    return model


def vae(latents: int) -> Fit:
    """Gaussian encoder and decoder, means and variances from perceptrons, by stochastic gradients of the ELBO."""

    def fit(x: Tensor, settings: Settings, generator: Generator) -> Model:
        model = VAE.gaussian(x.shape[1], latents, hidden=settings.vae_hidden, scale=NetworkScale())
        model.fit(x, _training(settings), generator=generator)
        return model

    return fit


def lu_flow(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """z = PLU y + b for standardised y, by full-batch L-BFGS on all rows: at its optimum, the full Gaussian."""
    flow = Flow(StandardNormal(x.shape[1]), Chain(Affine.standardise(x), LULinear(x.shape[1])))
    full_batch = Training(
        epochs=settings.lu_epochs,
        batch_size=None,
        learning_rate=1.0,
        optimiser=lbfgs,
        schedule=constant,
        clip=None,
        validation=0,
        patience=None,
    )
    flow.fit(x, full_batch, generator=generator)
    return flow


def coupling_flow(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Steps of activation norm, LU layer and affine coupling, by maximum likelihood."""
    flow = _coupling_flow(x.shape[1], settings)
    flow.fit(x, _training(settings, decay=settings.flow_decay), generator=generator)
    return flow


def coupling_vae(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """The same flow from the same start as a VAE with delta encoder and decoder, trained by its ELBO."""
    model = FlowVAE(_coupling_flow(x.shape[1], settings))
    model.fit(x, _training(settings, decay=settings.flow_decay), generator=generator)
    return model


def maf(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Masked autoregressive flow: activation norms and autoregressive layers of alternating order."""
    features = x.shape[1]
    parts: list[Transform] = []
    for layer in range(settings.maf_layers):
        order = range(features) if layer % 2 == 0 else range(features - 1, -1, -1)
        parts += [ActNorm(features), GaussianAutoregressive(features, settings.maf_hidden, order)]
    flow = Flow(StandardNormal(features), Chain(*parts))
    flow.fit(x, _training(settings, decay=settings.flow_decay), generator=generator)
    return flow


# The same words seed a fit and its repetition by other means: both start alike and see the rows in the same order.
MODELS: dict[ModelName, tuple[Fit, str]] = {
    "gaussian": (gaussian, "gaussian"),
    "ppca": (ppca, "ppca"),
    "mixture": (mixture, "mixture"),
    "linear-vae": (linear_vae, "linear-vae"),
    "vae-2": (vae(2), "vae-2"),
    "vae-16": (vae(16), "vae-16"),
    "lu-flow": (lu_flow, "lu-flow"),
    "coupling": (coupling_flow, "coupling"),
    "maf": (maf, "maf"),
    "coupling-vae": (coupling_vae, "coupling"),
}


def free_parameters(model: Model) -> int:
    """Their number: a symmetric matrix counts once, a masked weight not at all, an encoder like everything else."""
    if isinstance(model, PPCA | GaussianMixture):
        return model.parameter_count
    if isinstance(model, Gaussian):
        return model.features * (model.features + 3) // 2
    return parameter_count(model)


def _coupling_flow(features: int, settings: Settings) -> Flow:
    parts: list[Transform] = []
    for layer in range(settings.coupling_layers):
        mask = torch.arange(features) % 2 == layer % 2
        parts += [ActNorm(features), LULinear(features), AffineCoupling(mask, settings.coupling_hidden)]
    return Flow(StandardNormal(features), Chain(*parts))


def _training(settings: Settings, decay: float = 0.0) -> Training:
    return Training(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        optimiser=adamw(decay),
        patience=settings.patience,
    )


def _linear_latents(x: Tensor, settings: Settings) -> int:
    return min(settings.linear_latents, x.shape[1] - 1)
