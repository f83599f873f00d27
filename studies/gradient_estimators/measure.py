"""What `gradient_estimators` measures, on a linear VAE, whose ELBO, its gradient and log p(x) are closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from density import Density, kl
from lvm import LinearVAE
from lvm.linear_gaussian import LinearGaussianPosterior
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradient_quality import GradientQuality, gradient_quality
from lvm.vae.gradients import (
    AnalyticKL,
    DoublyReparametrised,
    ImportanceWeighted,
    LeaveOneOut,
    Reparametrised,
    ScoreFunction,
    StickingTheLanding,
    WrongGradient,
)
from studies.gradient_estimators.settings import WEIGHTED, Key, Settings
from studies.kit.compute import curve, place, seeded
from studies.kit.rows import Row
from studies.kit.study import Task

ESTIMATORS: dict[str, Callable[[int], GradientEstimator]] = {
    "score function": ScoreFunction,
    "leave-one-out": LeaveOneOut,
    "reparametrised": Reparametrised,
    "analytic KL": AnalyticKL,
    "sticking the landing": StickingTheLanding,
    "wrong": WrongGradient,
    "importance weighted": ImportanceWeighted,
    "doubly reparametrised": DoublyReparametrised,
    "sticking, weighted": lambda draws: StickingTheLanding(draws, importance_weighted=True),
}


def measure(settings: Settings, task: Task[Key, None]) -> Row:
    """The columns of a row."""
    key = task.key
    if key.draws is None:
        return train(settings, key.estimator, key.seed)
    return quality(settings, key.estimator, key.draws, key.offset, key.seed)


def model_and_points(settings: Settings, offset: float, seed: int) -> tuple[LinearVAE, Tensor]:
    """A linear VAE whose best diagonal encoder is the posterior, its encoder moved away by N(0, offset²); a few x.

    W has orthogonal columns of length 1, ½, ⅓, … times the signal. The same noise, scaled, serves all offsets.
    """
    device, _ = place(settings)
    generator = seeded(torch.device("cpu"), seed, "model")
    noise = torch.randn(settings.features, settings.latents, generator=generator, dtype=torch.float64)
    lengths = settings.signal / torch.arange(1, settings.latents + 1)
    model = LinearVAE(settings.features, settings.latents).double()
    with torch.no_grad():
        model.decoder.weight.copy_(torch.linalg.qr(noise).Q * lengths)
        model.set_optimal_encoder()
        for parameter in model.encoder.parameters():
            parameter.add_(offset * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = model.sample(settings.points, generator=generator).detach()
    return model.to(device), x.to(device)


def quality(settings: Settings, name: str, draws: int, offset: float, seed: int) -> Row:
    """Mean, bias, variance and signal-to-noise ratio of one estimator, for encoder (φ) and decoder (θ) apart.

    The bias is against the closed form for those that aim at the ELBO. The weighted bound's gradient has none: there it
    is against the doubly reparametrised estimator with other and more draws.
    """
    model, x = model_and_points(settings, offset, seed)
    generator = seeded(x.device, seed, name, str(draws), str(offset))
    found = gradient_quality(
        ESTIMATORS[name](draws), model, x, repeats=settings.repeats, generator=generator, progress=False
    )
    if name in WEIGHTED:
        known = _weighted_reference(settings, draws, offset, seed)
        reference, reference_variance = known.mean, known.variance / known.repeats
    else:
        reference = exact_gradient(model, model.elbo_closed_form(x).mean())
        reference_variance = torch.zeros_like(reference)
    row: Row = {
        "repeats": settings.repeats,
        "bound": found.bound,
        "bound_se": found.bound_error,
        "gap": (model.log_prob(x) - model.elbo_closed_form(x)).mean().item(),
    }
    for part, entries in parts(found).items():
        row |= _describe(part, found, reference, reference_variance, entries)
    if name == "wrong":  # it should find the gradient of −KL(q ‖ prior) and nothing else
        only = exact_gradient(model, -_mean_kl(model.encoder, model.prior, x))
        row["phi_from_kl_alone"] = (found.mean - only)[parts(found)["phi"]].norm().item()
    return row


@lru_cache(maxsize=1)  # for all estimators of a bound
def _weighted_reference(settings: Settings, draws: int, offset: float, seed: int) -> GradientQuality:
    model, x = model_and_points(settings, offset, seed)
    generator = seeded(x.device, seed, "reference", str(draws), str(offset))
    repeats = 4 * settings.repeats
    return gradient_quality(DoublyReparametrised(draws), model, x, repeats=repeats, generator=generator, progress=False)


def exact_gradient(model: LinearVAE, objective: Tensor) -> Tensor:
    """Flat, in the order of the model's parameters; 0 for those that the objective does not contain."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(objective, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def parts(found: GradientQuality) -> dict[str, Tensor]:
    """Which entries of the flat gradient belong to the encoder (φ) and which to the decoder (θ)."""
    of_encoder = [name.startswith("encoder") for name in found.names]
    mask = torch.repeat_interleave(torch.tensor(of_encoder), torch.tensor(found.sizes)).to(found.mean.device)
    return {"phi": mask, "theta": ~mask}


def _describe(part: str, found: GradientQuality, reference: Tensor, variance: Tensor, entries: Tensor) -> Row:
    total = found.variance[entries].sum().item()
    signal = reference[entries].norm().item()
    error = math.sqrt(total / found.repeats + variance[entries].sum().item())
    return {
        f"{part}_signal": signal,
        f"{part}_signal_se": math.sqrt(variance[entries].sum().item()),
        f"{part}_variance": total,
        f"{part}_bias": (found.mean - reference)[entries].norm().item(),
        f"{part}_bias_se": error,  # what the norm of the bias is, root mean square, if there is none
        f"{part}_snr": signal / math.sqrt(total) if total > 0 else math.inf,
    }


def train(settings: Settings, name: str, seed: int) -> Row:
    """The encoder alone is trained by one estimator from far away, Adam on minibatches; the exact gap on the way."""
    model, _ = model_and_points(settings, settings.start, seed)
    generator = seeded(model.reference.device, seed, "training", name)
    with torch.no_grad():
        x = model.sample(settings.rows, generator=generator)
    estimator = ESTIMATORS[name](2 if name == "leave-one-out" else 1)
    optimiser = torch.optim.Adam(model.encoder.parameters(), lr=settings.learning_rate)
    marks = sorted({0, *(round(step) for step in np.geomspace(1, settings.steps, 20))})
    gaps = []
    for step in range(settings.steps + 1):
        if step in marks:
            with torch.no_grad():
                gaps.append((model.log_prob(x) - model.elbo_closed_form(x)).mean().item())
        rows = torch.randint(len(x), (settings.batch_size,), generator=generator, device=x.device)
        optimiser.zero_grad()
        (-estimator(model, x[rows], generator).mean()).backward()
        optimiser.step()
    with torch.no_grad():
        return {
            "steps": curve(marks, 6),
            "gaps": curve(gaps, 6),
            "last_gap": gaps[-1],
            "kl_encoder_prior": _mean_kl(model.encoder, model.prior, x).item(),
            "kl_prior_posterior": _mean_kl(model.prior, LinearGaussianPosterior(model.decoder), x).item(),
        }


def _mean_kl(q: Density, p: Density, x: Tensor) -> Tensor:
    """KL(q(z|x) ‖ p(z|x)) in closed form, mean over points."""
    found = kl(q, p, x)
    assert found is not None
    return found.mean()
