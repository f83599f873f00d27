"""Draws from the prior: what the lecture's average loses, and what the log-mean-exp costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from density import Kind, kl
from flows import linear_flow
from lvm import PPCA
from lvm.evidence.naive import prior_average, prior_importance

SETTINGS = [(3, 1, 20.0, 1.0), (5, 2, 3.0, 0.7), (6, 3, 2.0, 0.8), (10, 5, 1.0, 0.7), (8, 4, 1.5, 0.7)]


def example(d: int, q: int, weight: float, std: float, generator: Generator) -> tuple[PPCA, Tensor]:
    model = PPCA(d, q).double()
    with torch.no_grad():
        model.decoder.weight.copy_(weight * torch.randn(d, q, generator=generator, dtype=torch.float64))
        model.decoder.log_std.fill_(math.log(std))
    return model, model.sample(200, generator=generator)


@pytest.mark.parametrize("setting", SETTINGS)
def test_cost_is_exponential_in_the_divergence(setting: tuple[int, int, float, float], generator: Generator) -> None:
    """Chatterjee & Diaconis (2018): exp(KL(posterior ‖ prior)) draws are needed and, up to a factor, enough."""
    model, x = example(*setting, generator)
    divergence = kl(model.encoder, model.prior, x)
    assert divergence is not None
    middle = divergence.detach().sort().indices[80:120]  # points that need about the same number of draws
    x, needed = x[middle], float(divergence.detach()[middle].mean())
    log_p = model.log_prob(x).detach()

    def median_error(extra: float, repeats: int) -> float:
        draws = round(math.exp(needed + extra))
        claims = [prior_importance(model, x, draws=draws, generator=generator) for _ in range(repeats)]
        return float(torch.stack([claim.value - log_p for claim in claims]).abs().median())

    assert 0.7 < median_error(0, 20) < 1.8
    assert median_error(4, 2) < 0.3


@pytest.mark.parametrize("draws", [100, 10_000])
def test_the_average_keeps_its_gap(draws: int, generator: Generator) -> None:
    """Its gap is KL(prior ‖ posterior), whatever K is."""
    model, x = example(*SETTINGS[1], generator)
    reverse = kl_from_prior(model, x)
    claim = prior_average(model, x, draws=draws, generator=generator)
    assert claim.kind is Kind.LOWER
    assert claim.monte_carlo_error is not None
    z_score = (model.log_prob(x).detach() - claim.value - reverse) / claim.monte_carlo_error
    assert reverse.min() > 1
    assert z_score.abs().max() < 6  # heavy-tailed terms; 200 points
    assert abs(float(z_score.mean())) < 4 / math.sqrt(200)


def kl_from_prior(model: PPCA, x: Tensor) -> Tensor:
    """KL(N(0, I) ‖ N(m, Σ)) = ½(tr Σ⁻¹ + mᵀΣ⁻¹m − q + log det Σ)."""
    mean, scale = model.encoder.at(x)
    root = scale.dense().detach()
    precision = torch.linalg.inv(root @ root.mT)
    mean = mean.detach()
    square = (mean @ precision * mean).sum(-1)
    return 0.5 * (precision.trace() + square - mean.shape[-1] - torch.linalg.slogdet(precision).logabsdet)


def test_prior_importance_is_exact_in_expectation(generator: Generator) -> None:
    model, x = example(4, 1, 1.0, 1.0, generator)
    claim = prior_importance(model, x[:50], draws=20_000, generator=generator)
    assert claim.monte_carlo_error is not None
    z_score = (claim.value - model.log_prob(x[:50]).detach()) / claim.monte_carlo_error
    assert z_score.abs().max() < 4.5  # 50 standard normals: P < 4e-4


def test_bad_input(generator: Generator) -> None:
    model, x = example(*SETTINGS[0], generator)
    with pytest.raises(TypeError, match="prior and decoder"):
        prior_importance(linear_flow(3), x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="draws must be a positive int"):
        prior_importance(model, x, draws=0)
    with pytest.raises(ValueError, match="at least 2 draws"):
        prior_average(model, x, draws=1)
    with pytest.raises(ValueError, match="row 0, column 0 is nan"):
        prior_average(model, torch.full((2, 3), math.nan, dtype=torch.float64))
