"""The models that `elbo_gap` compares: one small function each, from training rows and settings to a fitted model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from bridge import FlowVAE
from density import Gaussian, Model, NetworkScale, StandardNormal, Training, constant, lbfgs, select
from flows import Affine, Chain, Flow, LULinear, glow, maf, spline_maf
from lvm import EM, PPCA, VAE, GaussianMixture, LinearVAE
from studies.elbo_gap.settings import ModelName, Settings
from studies.kit.compute import parameter_count

Fit = Callable[[Tensor, Settings, Generator], Model]


def gaussian(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """N(μ, Σ) in closed form."""
    model = Gaussian(x.shape[1])
    model.fit(x)
    return model


def ppca(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Probabilistic PCA in closed form; by EM where values are missing."""
    model = PPCA(x.shape[1], _linear_latents(x, settings))
    if bool(x.isnan().any()):
        model.observed.fit(x)
    else:
        model.fit(x)
    return model


def mixture(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Mixture of full Gaussians by EM, every covariance plus a share of the data's mean variance."""
    model = GaussianMixture(x.shape[1], settings.components)
    if bool(x.isnan().any()):
        variances = torch.stack([column[~column.isnan()].var() for column in x.double().mT])
        em = EM(regularisation=settings.ridge * variances.mean().item())
        model.observed.fit(x, em, generator=generator)
    else:
        em = EM(regularisation=settings.ridge * x.double().var(0).mean().item())
        model.fit(x, em=em, generator=generator)
    return model


def linear_vae(x: Tensor, settings: Settings, generator: Generator) -> Model:
    """Linear encoder and decoder, as many latents as PPCA, by full-batch L-BFGS on the ELBO in closed form."""
    model = LinearVAE(x.shape[1], _linear_latents(x, settings))
    model.fit(x, generator=generator)
    return model


def vae(latents: int) -> Fit:
    """Gaussian encoder and decoder, means and variances from perceptrons, by stochastic gradients of the ELBO."""

    def built(features: int, settings: Settings) -> Model:
        return VAE.gaussian(features, latents, hidden=settings.vae_hidden, scale=NetworkScale())

    return searched(built)


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


def coupling_flow(features: int, settings: Settings) -> Flow:
    """Steps of activation norm, LU layer and affine coupling."""
    return glow(features, settings.coupling_layers, settings.coupling_hidden)


def coupling_vae(features: int, settings: Settings) -> Model:
    """The same flow from the same start as a VAE with delta encoder and decoder, trained by its ELBO."""
    return FlowVAE(coupling_flow(features, settings))


def masked_flow(features: int, settings: Settings) -> Flow:
    """Masked autoregressive flow: activation norms, LU layers and autoregressive layers of alternating order."""
    return maf(features, settings.maf_layers, settings.maf_hidden)


def spline_flow(features: int, settings: Settings) -> Flow:
    """The same with rational-quadratic splines."""
    return spline_maf(features, settings.spline_layers, settings.spline_hidden)


def searched(built: Callable[[int, Settings], Model]) -> Fit:
    """A fit by stochastic gradients, its weight decay chosen by held-out training rows, alike for every model."""

    def fit(x: Tensor, settings: Settings, generator: Generator) -> Model:
        candidates = {
            str(decay): (partial(built, x.shape[1], settings), training_of(settings, decay))
            for decay in settings.decays
        }
        model: Model = select(candidates, x, generator=generator).model
        return model

    return fit


def training_of(settings: Settings, decay: float) -> Training:
    """The usual steps for so many rows, with a weight decay."""
    return Training(
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=decay,
        patience=settings.patience,
    )


# The same words seed a fit and its repetition by other means: both start alike and see the rows in the same order.
MODELS: dict[ModelName, tuple[Fit, str]] = {
    "gaussian": (gaussian, "gaussian"),
    "ppca": (ppca, "ppca"),
    "mixture": (mixture, "mixture"),
    "linear-vae": (linear_vae, "linear-vae"),
    "vae-2": (vae(2), "vae-2"),
    "vae-16": (vae(16), "vae-16"),
    "lu-flow": (lu_flow, "lu-flow"),
    "coupling": (searched(coupling_flow), "coupling"),
    "maf": (searched(masked_flow), "maf"),
    "spline-maf": (searched(spline_flow), "spline-maf"),
    "coupling-vae": (searched(coupling_vae), "coupling"),
}


def free_parameters(model: Model) -> int:
    """Their number: a symmetric matrix counts once, a masked weight not at all, an encoder like everything else."""
    if isinstance(model, PPCA | GaussianMixture):
        return model.parameter_count
    if isinstance(model, Gaussian):
        return model.features * (model.features + 3) // 2
    return parameter_count(model)


def _linear_latents(x: Tensor, settings: Settings) -> int:
    return min(settings.linear_latents, x.shape[1] - 1)
