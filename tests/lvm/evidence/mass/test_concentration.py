"""Bounds from draws fail no more often than they say: enumerated, not simulated, where that can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lvm.evidence.mass.concentration import chernoff, empirical_bernstein, groups_for, markov


@pytest.mark.parametrize("chance", [0.5, 0.05, 1e-4])
@pytest.mark.parametrize("p", [1e-3, 0.02, 0.3, 0.9])
def test_chernoff_fails_with_at_most_its_chance(p: float, chance: float) -> None:
    draws = 400
    counts = torch.arange(draws + 1)
    fails = chernoff(counts, draws, chance).numpy() < p
    assert stats.binom.pmf(counts.numpy(), draws, p)[fails].sum() <= chance


def test_chernoff_is_near_clopper_and_pearson() -> None:
    draws, chance = 10_000, 1e-3
    counts = np.array([0, 1, 7, 60, 900, 9_999, 10_000])
    upper = chernoff(torch.tensor(counts), draws, chance)
    exact = np.append(stats.beta.ppf(1 - chance, counts[:-1] + 1, draws - counts[:-1]), 1.0)
    assert bool((upper.numpy() >= exact - 1e-12).all())
    assert bool((upper.numpy() < 1.35 * exact).all())
    assert upper[0].item() == pytest.approx(1 - chance ** (1 / draws), rel=1e-12)


@pytest.mark.parametrize("chance", [0.5, 0.05, 1e-3])
@pytest.mark.parametrize("p", [1e-3, 0.02, 0.3, 0.99])
def test_empirical_bernstein_fails_with_at_most_its_chance(p: float, chance: float) -> None:
    """Of draws that are 0 or 3."""
    draws, failed = 200, 0.0
    for count in range(draws + 1):
        share = count / draws
        variance = 9 * share * (1 - share) * draws / (draws - 1)
        if empirical_bernstein(3 * share, variance, 3.0, draws, chance) < 3 * p:
            failed += stats.binom.pmf(count, draws, p)
    assert failed <= chance


def test_empirical_bernstein_is_its_formula() -> None:
    found = empirical_bernstein(1.0, 2.0, 5.0, 1000, 0.1)
    log = math.log(20)
    assert found == pytest.approx(1 + math.sqrt(4 * log / 1000) + 35 * log / 2997, rel=1e-14)
    assert empirical_bernstein(1.0, 2.0, 5.0, 2, 0.1) == 5.0


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_markov_fails_with_at_most_its_chance(groups: int) -> None:
    """Of 6 draws of each of two weights, 5 with probability 0.1 and 5/9 elsewhere, so that E w = 1: enumerated.

    The number of large draws in each group is binomial. The chance is such that the bound does fail now and then.
    """
    size, chance = 6 // groups, 0.3
    one = {k: math.log((5 * k + (size - k) * 5 / 9) / size) for k in range(size + 1)}
    total = {0.0: 1.0}  # distribution of Σ log w̄ over the groups of both
    for _ in range(2 * groups):
        grown: dict[float, float] = {}
        for value, weight in total.items():
            for k, log in one.items():
                key = round(value + log, 9)
                grown[key] = grown.get(key, 0.0) + weight * float(stats.binom.pmf(k, size, 0.1))
        total = grown
    limit = math.log(1 / chance)
    failed = sum(weight for value, weight in total.items() if value > limit)
    assert 0 < failed <= chance

    draws = torch.full((6, 2), 5 / 9, dtype=torch.float64)
    draws[0] = 5.0
    found = markov(draws.log(), chance, groups, together=2)
    expected = (one[1] + (groups - 1) * one[0]) / groups - limit / (2 * groups)
    assert found.tolist() == pytest.approx([expected] * 2, abs=1e-12)
    assert groups * found.sum().item() == pytest.approx(2 * (one[1] + (groups - 1) * one[0]) - limit, abs=1e-12)


def test_draws_that_groups_do_not_divide_are_left_out() -> None:
    log_weights = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert markov(log_weights, 0.1, 4, 1).equal(markov(log_weights[:8], 0.1, 4, 1))


def test_groups_are_within_the_draws() -> None:
    assert groups_for(3, 1e-9, 1) == 3
    assert groups_for(1000, 0.05, 10**9) == 1
