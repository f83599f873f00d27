"""The ring has the density and the entropy that it says, and its seed only splits it."""

from __future__ import annotations

import numpy as np
import pytest

from studies.data.ring import ENTROPY, SPREAD, ring, ring_log_density


def test_the_ring_has_mass_one_and_its_entropy() -> None:
    """A midpoint rule over the plane: 1/r² against a density that dies faster than any power towards both ends."""
    ticks = (np.arange(3000) + 0.5) / 3000 * 12 - 6
    x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    log_p = ring_log_density(x)
    p = np.exp(log_p) * (12 / 3000) ** 2
    assert p.sum() == pytest.approx(1, abs=1e-8)
    assert -(p * log_p).sum() == pytest.approx(ENTROPY, abs=1e-7)


def test_draws_are_of_the_ring() -> None:
    data = ring(50_000, 10_000, 3)
    x = np.concatenate([data.train, data.test])
    log_radius, angle = np.log(np.hypot(*x.T)), np.arctan2(x[:, 1], x[:, 0])
    n = len(x)
    assert abs(log_radius.mean()) < 4.5 * SPREAD / n**0.5
    assert log_radius.std() == pytest.approx(SPREAD, abs=4.5 * SPREAD / (2 * n) ** 0.5)
    assert abs(np.exp(1j * angle).mean()) < 4.5 / n**0.5
    log_p = ring_log_density(x)
    assert -log_p.mean() == pytest.approx(ENTROPY, abs=4.5 * log_p.std() / n**0.5)


def test_the_seed_splits_and_never_repeats_a_row() -> None:
    a, b = ring(100, 20, 0), ring(100, 20, 1)
    assert a.hash == b.hash
    assert not np.array_equal(a.test, b.test)
    rows = [np.concatenate([data.train, data.test]) for data in (a, b)]
    assert len(np.unique(rows[0], axis=0)) == 120
    np.testing.assert_array_equal(*(np.sort(x, axis=0) for x in rows))
