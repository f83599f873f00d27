"""How far chance may have moved a mean over points and fits, and that nothing more than that is said of it."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from significance import Kind, Spread, Statement, decisions, over_seeds

MANY = pytest.param(2000, marks=pytest.mark.slow)


def test_errors_kept_apart_are_students_where_one_is_all() -> None:
    fits = Statement(Kind.EXACT, 1.0, 0.3, 99.0, 0.0, 0.3, 2.0)
    points = Statement(Kind.EXACT, 1.0, 0.3, 99.0, 0.0, 1e-12, 2.0)
    for statement, freedom in ((fits, 2.0), (points, 99.0)):
        student = Statement(Kind.EXACT, 1.0, 0.3, freedom)
        assert statement.p_value == pytest.approx(student.p_value, rel=1e-6)
        assert statement.interval(0.9) == pytest.approx(student.interval(0.9), rel=1e-9)


@pytest.mark.parametrize("mean", [0.8, -2.0, 30.0])
def test_the_interval_ends_at_zero_at_the_level_of_the_p_value(mean: float) -> None:
    statement = Statement(Kind.EXACT, mean, 0.5, 358.0, 0.01, 0.4, 2.0)
    reach = math.hypot(stats.t.isf(0.05, 358.0) * 0.3, stats.t.isf(0.05, 2.0) * 0.4)
    assert statement.interval(0.9)[0] == pytest.approx(mean - reach - 0.01)
    low, high = statement.interval(1 - statement.p_value)
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6 * abs(mean))
    one_sided = Statement(Kind.LOWER, mean, 0.5, 358.0, 0.01, 0.4, 2.0).p_value
    assert one_sided == pytest.approx(statement.p_value / 2) if mean > 0 else one_sided > 0.9


def test_an_error_is_made_of_its_parts() -> None:
    """Of two splits the error over fits is kept apart; of three fits each of two models it is Satterthwaite's."""
    two = Spread.of_means([1.0, 1.4], [0.1, 0.1], 100)
    assert (two.fits_error, two.fits_freedom, two.freedom) == (pytest.approx(0.2), 1, 99)
    assert two.error**2 == pytest.approx(0.1**2 + 0.2**2 - 0.1**2 / 2)
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 3, 50))
    merged = Spread.crossed(ours, theirs)
    assert merged.fits_error == 0
    apart = Spread.crossed(ours[:2], theirs[:2])
    between = sum(each[:2].mean(1).var(ddof=1) / 2 for each in (ours, theirs))
    assert apart.fits_error**2 == pytest.approx(between)
    assert 1 <= apart.fits_freedom <= 2
    assert Spread.crossed(ours).fits_freedom == 2
    assert Spread.of_means([1.0, 1.0], [0.1, 0.1], 100).fits_error == 0, "equal means: nothing to keep apart"


@pytest.mark.parametrize("times", [100, MANY])
@pytest.mark.parametrize(
    ("fits", "scatter", "shared"), [(2, 5.0, False), (2, 1.0, True), (3, 5.0, False), (3, 5.0, True), (5, 3.0, True)]
)
def test_equal_models_are_rarely_told_apart(fits: int, scatter: float, shared: bool, times: int) -> None:
    """Family-wise error of four models over splits: six differences, fits that scatter by that many errors of points.

    By Holm's first step, which is all that counts where no difference is true.
    """
    rng, told = np.random.default_rng(fits), 0
    for _ in range(times):
        seeds = scatter * rng.normal(size=(4, fits))
        points = rng.normal(size=(4, 1 if shared else fits)) / math.sqrt(2)  # of each model, in each split
        means = seeds + points
        for a, b in combinations(range(4), 2):
            _, anew = over_seeds(means[a] - means[b], [1.0] * fits, 1000)
            assert anew is not None
            low, high = anew.interval(1 - 0.05 / 6)
            if not low <= 0 <= high:
                told += 1
                break
    assert told / times <= 0.05 + (2 if times > 1000 else 4) * math.sqrt(0.05 * 0.95 / times)


def test_differences_are_decided_together_and_over_seeds() -> None:
    found = decisions(
        {
            "sure": over_seeds([1.0, 1.0, 1.01], [0.1] * 3, 100),
            "of these fits": over_seeds([1.0, 0.2, 1.9], [0.1] * 3, 100),
            "single": over_seeds([-1.0], [0.1], 100),
        }
    )
    assert [(each.verdict.value, each.verdict_anew.value) for each in found.values()] == [
        ("better", "better"), ("better", "open"), ("worse", "open"),
    ]  # fmt: skip
    assert [each.holds() for each in found.values()] == [True, None, False]
    assert found["single"].statement is found["single"].fitted


def test_of_few_fits_beside_many_the_few_decide() -> None:
    """Two fits of one model, ten of another: their scatter is known to one degree of freedom."""
    random = np.random.default_rng(0)
    few, many = random.normal(size=(2, 20)), random.normal(size=(10, 20))
    assert Spread.crossed(few, many).fits_freedom == 1
    assert 1 <= Spread.crossed(few, many[:2]).fits_freedom <= 2
