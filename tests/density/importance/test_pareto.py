"""Pareto tails: the fit against scipy's maximum likelihood, and the theory of Gaussian targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import genpareto
from torch import Generator, Tensor

from density.importance.pareto import pareto_k, reliability_threshold, smoothed, tail_length

ARVIZ = {
    "pareto": 0.7565560662780947,
    "normal": 0.29049242814565646,
    "bounded": -1.5712230053824476,
    "sparse": 1.7297577469495091,
}


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


def test_one_draw_says_nothing_and_two_equal_ones_agree() -> None:
    assert pareto_k(torch.zeros(1, 3)).tolist() == [math.inf] * 3
    assert pareto_k(torch.zeros(2, 3)).tolist() == [-math.inf] * 3


def atoms(*counted: tuple[int, float]) -> Tensor:
    """So many log-weights of each value, in a fixed random order."""
    log_weights = torch.cat([torch.full((count,), value, dtype=torch.float64) for count, value in counted])
    return log_weights[torch.randperm(len(log_weights), generator=Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("log_weights", "k"),
    [
        (atoms((950, -1.0), (50, 0.0)), -math.inf),  # bounded: the largest weight has been seen fifty times
        (atoms((900, -9.0), (60, -0.7), (40, 0.0)), -math.inf),
        (atoms((999, math.log(1e-6)), (1, 0.0)), math.inf),  # one weight of its own kind: who knows what else there is
        (atoms((996, -1.0), (4, 0.0)), math.inf),
    ],
    ids=["two values", "three values", "one outlier", "four outliers"],
)
def test_few_values_are_no_tail(log_weights: Tensor, k: float) -> None:
    """Where the tail's quartile is its start, a fit has no scale: k̂ was 341 here, and smoothing lost 6.9 nats."""
    assert pareto_k(log_weights).item() == k
    assert smoothed(log_weights).equal(log_weights)
    noisy = log_weights + 1e-15 * torch.randn(len(log_weights), generator=Generator().manual_seed(1)).double()
    assert pareto_k(noisy).item() == k
    assert smoothed(noisy).equal(noisy)


@pytest.mark.parametrize("span", [1e2, 1e3, 1e4, 1e6, 1e300])
def test_weights_that_underflow_are_heavy(span: float) -> None:
    """All but a few weights are zero beside the largest: whatever can be said of the tail, it is not light."""
    log_weights = torch.linspace(-span, 0, 1000, dtype=torch.float64)
    assert pareto_k(log_weights).item() > 1
    assert smoothed(log_weights)[:-100].equal(log_weights[:-100])
    assert not smoothed(log_weights).isnan().any()
    log_weights[:500] = -math.inf
    assert pareto_k(log_weights).item() > 1


def test_the_draws_beyond_an_atom_are_the_tail(generator: Generator) -> None:
    """Most draws miss, and forty have Pareto weights: the fit to these, whatever the others' number."""
    excess = torch.tensor(genpareto(0.4).ppf(torch.rand(40, generator=generator, dtype=torch.float64).numpy()))
    found = []
    for missed in (500, 960, 5_000):
        log_weights = torch.cat([torch.zeros(missed, dtype=torch.float64), torch.log1p(excess)])
        found.append(pareto_k(log_weights).item())
        steadied = smoothed(log_weights)
        assert steadied[:missed].equal(log_weights[:missed])
        assert not steadied[missed:].equal(log_weights[missed:])
        assert steadied[missed:].argsort().equal(log_weights[missed:].argsort())
        mass = torch.expm1(steadied).sum() / excess.sum()
        assert 0.7 < mass < 1.2  # the expected order statistics, at most the largest raw one
    oracle = genpareto.fit(excess.numpy(), floc=0)[0]
    standard_error = 1.4 / math.sqrt(40)
    assert max(found) - min(found) < 0.05  # all but the grid of the fit is the same
    assert abs(found[0] - oracle) < standard_error


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_spread_by_rounding_is_none(dtype: torch.dtype, generator: Generator) -> None:
    """R²/8 below ε (|log w| + 3 terms): log-mean-exp and mean are one number, by Hoeffding's lemma, and k̂ = −∞."""
    eps = torch.finfo(dtype).eps
    heavy = gaussian_log_weights(0.3, 1_000, 50, 1, generator)  # k = 0.91
    heavy = heavy / (heavy.amax(0) - heavy.amin(0))
    for level, terms in ((-100.0, 1), (0.0, 30)):
        span = math.sqrt(8 * eps * (abs(level) + 3 * terms))
        below, above = level + 0.9 * span * heavy, level + 1.1 * span * heavy
        assert pareto_k(below, dtype=dtype, terms=terms).isneginf().all()
        assert smoothed(below, dtype=dtype, terms=terms).equal(below)
        assert pareto_k(above, dtype=dtype, terms=terms).isfinite().all()
        jensen = below.logsumexp(0) - math.log(1_000) - below.mean(0)
        assert (jensen <= span**2 / 8 + 1e-12).all()
    assert pareto_k(torch.full((1000,), 3.0) + 1e-5 * torch.randn(1000, generator=generator)).item() == -math.inf


def test_fit_is_that_of_arviz() -> None:
    """arviz-stats 0.8, ``psislw``, on vectors that a formula gives: quantiles of a Pareto, a normal, an exponential."""
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    vectors = {
        "pareto": -0.8 * torch.log1p(-u),
        "normal": math.sqrt(2) * torch.erfinv(2 * u - 1),
        "bounded": -3 * (1 - u).square(),
        "sparse": 40 * u.square(),
    }
    for name, expected in ARVIZ.items():
        assert pareto_k(vectors[name]).item() == pytest.approx(expected, abs=1e-10), name


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
