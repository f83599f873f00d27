"""Student's t against scipy's."""

from __future__ import annotations

import pytest
from scipy import stats

from significance.student import quantile, tail

FREEDOMS = (1.0, 1.3, 2.0, 4.7, 30.0, 499.0, 2e5, 1e8)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_tail_and_quantile_are_scipys(freedom: float) -> None:
    for t in (0.0, 0.1, 1.0, 2.5, 8.0, 30.0):
        assert tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-6)
        assert tail(-t, freedom) == pytest.approx(stats.t.sf(-t, freedom), rel=1e-6)
    for chance in (0.4, 0.025, 1e-3, 1e-6):
        assert quantile(chance, freedom) == pytest.approx(stats.t.isf(chance, freedom), rel=1e-6)


def test_infinity_has_no_tail() -> None:
    assert (tail(float("inf"), 3), tail(float("-inf"), 3)) == (0, 1)
