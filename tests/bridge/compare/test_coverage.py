"""Simulated comparisons: how often intervals hold the truth, and how often equal models are told apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from bridge import compare
from density import Kind, LogDensity

MANY = pytest.param(2000, marks=pytest.mark.slow)
TRUTH = 0.1


def claim(value: Tensor, sampled: float = 0.0) -> LogDensity:
    error = torch.full_like(value, sampled) if sampled else None
    return LogDensity(value, Kind.ESTIMATE if sampled else Kind.EXACT, "made", error)


def simulated(generator: Generator, n: int, fits: int, shift: float, skew: bool, seeds: float) -> list[Tensor]:
    """Fits of one model at points with common effects: μ + fit + point + both."""
    own = torch.randn(n, generator=generator, dtype=torch.float64)
    if skew:
        own = own.exp() - math.exp(0.5)
    made = []
    for _ in range(fits):
        fit = seeds * torch.randn((), generator=generator, dtype=torch.float64)
        made.append(shift + fit + own + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64))
    return made


@pytest.mark.parametrize("times", [200, MANY])
@pytest.mark.parametrize(
    ("n", "skew", "sampled"), [(100, False, 0.0), (1000, True, 0.0), (100, False, 1.0)], ids=["normal", "skew", "draws"]
)
def test_intervals_of_these_fits_cover(n: int, skew: bool, sampled: float, times: int, generator: Generator) -> None:
    held = 0
    for _ in range(times):
        (ours,) = simulated(generator, n, 1, TRUTH, skew, 0.0)
        (theirs,) = simulated(generator, n, 1, 0.0, skew, 0.0)
        ours = ours + sampled * torch.randn(n, generator=generator, dtype=torch.float64)
        statement = compare({"a": claim(ours, sampled), "b": claim(theirs)}).pairs[0].fitted
        assert statement is not None
        low, high = statement.interval(0.95)
        held += low <= TRUTH <= high
    assert held / times == pytest.approx(0.95, abs=0.02 if times == 2000 else 4 * math.sqrt(0.95 * 0.05 / times))


@pytest.mark.parametrize("times", [200, MANY])
@pytest.mark.parametrize(("fits", "seeds"), [(3, 0.3), (5, 0.1), (3, 0.0)])
def test_intervals_of_models_fitted_anew_cover(fits: int, seeds: float, times: int, generator: Generator) -> None:
    held = 0
    for _ in range(times):
        ours = simulated(generator, 100, fits, TRUTH, False, seeds)
        theirs = simulated(generator, 100, fits, 0.0, False, seeds)
        statement = compare({"a": list(map(claim, ours)), "b": list(map(claim, theirs))}).pairs[0].anew
        assert statement is not None
        low, high = statement.interval(0.95)
        held += low <= TRUTH <= high
    assert held / times == pytest.approx(0.95, abs=0.02 if times == 2000 else 4 * math.sqrt(0.95 * 0.05 / times))


@pytest.mark.parametrize("times", [200, MANY])
def test_equal_models_are_rarely_told_apart(times: int, generator: Generator) -> None:
    """The family-wise error of four models of one mean, six differences."""
    told = 0
    for _ in range(times):
        claims = {name: claim(simulated(generator, 100, 1, 0.0, False, 0.0)[0]) for name in "abcd"}
        told += any(pair.proven for pair in compare(claims).pairs)
    sure = 4 if times == 200 else 2
    assert told / times <= 0.05 + sure * math.sqrt(0.05 * 0.95 / times)
    assert told, "they are told apart sometimes, or the test could not fail"
