"""What `naive_monte_carlo` measures: log p(x) of linear models, where it is known, by draws of prior and encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from density import kl
from density.importance.bound import importance
from lvm import LinearVAE
from lvm.evidence.naive import prior_average, prior_importance
from lvm.linear_gaussian import LinearGaussianPosterior
from studies.kit.compute import place, seeded
from studies.kit.rows import Row
from studies.kit.study import Task
from studies.naive_monte_carlo.settings import Key, Method, Settings

ESTIMATES = {"average": prior_average, "prior": prior_importance, "encoder": importance}


def measure(settings: Settings, task: Task[Key, None]) -> Row:
    """The columns of a row."""
    key = task.key
    return estimate(settings, key.latents, key.method, key.draws, key.seed)


def random_model(settings: Settings, latents: int, seed: int) -> LinearVAE:
    r"""x = Wz + ε, ε ~ N(0, I), with WᵀW = s²C: s the signal of each latent, C correlating latents in pairs by c.

    A diagonal encoder, here the best one, then misses the posterior. With r = cs²/(1 + s²), nats a pair:

    .. math:: E\, KL(p(z|x) \,\|\, p(z)) = \log(1 + s^2) + \tfrac12 \log(1 - r^2),
              \qquad KL(q(z|x) \,\|\, p(z|x)) = -\tfrac12 \log(1 - r^2)
    """
    device, _ = place(settings)
    generator = seeded(torch.device("cpu"), seed, "model", str(latents))
    noise = torch.randn(settings.features, latents, generator=generator, dtype=torch.float64)
    mixing = torch.eye(latents, dtype=torch.float64)
    for first in range(0, latents - 1, 2):
        mixing[first, first + 1] = mixing[first + 1, first] = settings.correlation
    model = LinearVAE(settings.features, latents).double()
    with torch.no_grad():
        model.decoder.weight.copy_(settings.signal * torch.linalg.qr(noise).Q @ torch.linalg.cholesky(mixing).mT)
    model.set_optimal_encoder()
    return model.to(device)


def estimate(settings: Settings, latents: int, method: Method, draws: int, seed: int) -> Row:
    """log p(x) − its estimate by so many draws, over points simulated from the model, and the divergences involved."""
    model = random_model(settings, latents, seed)
    device = model.reference.device
    x = model.sample(settings.points, generator=seeded(device, seed, "points", str(latents))).detach()
    generator = seeded(device, seed, method, str(latents), str(draws))
    with torch.no_grad():
        claim = ESTIMATES[method](model, x, draws=draws, generator=generator)
        shortfall = model.log_prob(x) - claim.value
        theory = divergences(model, x)
        return {
            "points": len(x),
            "kind": claim.kind.value,
            "method_in_words": claim.method,
            **_mean("shortfall", shortfall),
            "shortfall_sd": shortfall.std().item(),
            "rmse": shortfall.square().mean().sqrt().item(),
            "unreliable": claim.unreliable if claim.weights is not None else None,
            **{name: value.mean().item() for name, value in theory.items()},
            **_mean("excess", shortfall - theory["kl_prior_posterior"]),
        }


def divergences(model: LinearVAE, x: Tensor) -> dict[str, Tensor]:
    """Kullback-Leibler divergences in closed form, point by point, nats: what the estimators cost by theory."""
    posterior = LinearGaussianPosterior(model.decoder)
    found = {
        "kl_posterior_prior": kl(posterior, model.prior, x),
        "kl_prior_posterior": kl(model.prior, posterior, x),
        "kl_posterior_encoder": kl(posterior, model.encoder, x),
    }
    return {name: value.expand(len(x)) for name, value in found.items() if value is not None}


def _mean(name: str, values: Tensor) -> Row:
    return {name: values.mean().item(), f"{name}_se": values.std().item() / math.sqrt(len(values))}
