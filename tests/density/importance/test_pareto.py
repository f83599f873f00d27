"""Pareto tails: the fit against scipy's maximum likelihood, and the theory of Gaussian targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import genpareto
from torch import Generator, Tensor

from density.importance.pareto import pareto_k, reliability_threshold, smoothed, tail_length


def gaussian_log_weights(s: float, draws: int, batch: int, dimensions: int, generator: Generator) -> Tensor:
    """Target N(0, I), proposal N(0, s² I): in any dimension the tail index is 1 − s². The squared norm is drawn."""
    square = np.random.default_rng(generator.initial_seed()).chisquare(dimensions, (draws, batch))
    return torch.tensor(0.5 * (1 - s**2) * square)


# In five dimensions the tail is a power times log^{3/2}, so that at any finite threshold k̂ lies above its limit, by
# 0.06 at s = 0.8 and 2·10⁵ draws. It is so for tails of √K/4 to 3√K draws: the threshold and not the fit is to blame.
@pytest.mark.parametrize(
    ("s", "dimensions", "bias"),
    [(0.8, 1, 0.05), (0.9, 1, 0.05), (0.95, 1, 0.05), (0.8, 5, 0.08), (0.9, 5, 0.05), (0.95, 5, 0.05)],
)
def test_gaussian_targets(s: float, dimensions: int, bias: float, generator: Generator) -> None:
    fits = pareto_k(gaussian_log_weights(s, 200_000, 40, dimensions, generator))
    assert abs(float(fits.mean()) - (1 - s**2)) < bias  # one fit has sd 0.04, the mean of 40 0.006


@pytest.mark.parametrize("k", [-0.2, 0.1, 0.5, 0.9])
def test_fit_is_near_maximum_likelihood(k: float, generator: Generator) -> None:
    """On exact Pareto tails the estimate is within a few standard errors, (1 + k)/√M, of scipy's and of the truth."""
    draws = 50_000
    excess = torch.tensor(genpareto(k).ppf(torch.rand(draws, generator=generator, dtype=torch.float64).numpy()))
    weights = 5 + excess
    size = tail_length(draws)
    tail = weights.sort().values
    oracle = genpareto.fit((tail[-size:] - tail[-size - 1]).numpy(), floc=0)[0]
    fitted = float(pareto_k(weights.log()))
    standard_error = (1 + max(k, 0)) / math.sqrt(size)
    assert abs(fitted - oracle) < standard_error
    assert abs(fitted - k) < 4 * standard_error


def test_constants_and_order_do_not_matter(generator: Generator) -> None:
    log_weights = gaussian_log_weights(0.7, 5_000, 3, 1, generator)
    k = pareto_k(log_weights)
    shuffled = log_weights[torch.randperm(5_000, generator=generator)]
    torch.testing.assert_close(pareto_k(shuffled - 1e4), k, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pareto_k(log_weights[:, 1]), k[1])


def test_equal_weights_have_no_tail_and_few_draws_say_nothing() -> None:
    assert pareto_k(torch.zeros(1000, 2)).tolist() == [-math.inf] * 2
    assert pareto_k(torch.randn(20)).item() == math.inf
    assert pareto_k(torch.full((1000,), -math.inf)).item() == math.inf  # no draw found any mass: nothing to trust


def test_threshold() -> None:
    assert reliability_threshold(100) == pytest.approx(0.5)
    assert reliability_threshold(2154) == pytest.approx(0.7, abs=1e-4)
    assert reliability_threshold(10**6) == 0.7
    assert reliability_threshold(1) == -math.inf


def test_smoothing_keeps_the_body_and_steadies_the_mean(generator: Generator) -> None:
    log_weights = gaussian_log_weights(0.5, 1_000, 400, 1, generator)  # k = 0.75: the raw mean has infinite variance
    steadied = smoothed(log_weights).sort(0).values
    size = tail_length(1_000)
    raw = log_weights.sort(0).values
    assert torch.equal(steadied[:-size], raw[:-size])
    by_rank = smoothed(log_weights).gather(0, log_weights.argsort(0))
    assert bool((by_rank.diff(dim=0) >= 0).all())  # no two weights change places
    assert bool((steadied.amax(0) <= raw.amax(0)).all())
    errors = {name: w.logsumexp(0) - math.log(1_000) for name, w in (("raw", raw), ("smoothed", steadied))}
    # log E w = 0. Vehtari et al. (2024), figure 4: at k = 0.75 smoothing lowers the error.
    assert errors["smoothed"].square().mean() < errors["raw"].square().mean()


def test_smoothing_is_nearly_exact_on_light_tails(generator: Generator) -> None:
    log_weights = gaussian_log_weights(0.95, 4_000, 50, 1, generator)
    difference = smoothed(log_weights).logsumexp(0) - log_weights.logsumexp(0)
    assert difference.abs().max() < 1e-3
