"""Patterns in the plane, and sets, are what their densities say."""

from __future__ import annotations

import numpy as np
import pytest

from studies.data.survae_patterns import Toy, toys

# As the field notes have them; the last two by sampling there, with errors of 2e-3.
ENTROPIES = {"checkerboard": 3.466, "corners": 2.947, "eight-gaussians": 2.833, "circles": 2.869}


@pytest.fixture(scope="module")
def known() -> dict[str, Toy]:
    return toys()


def test_entropies_are_those_recomputed_before(known: dict[str, Toy]) -> None:
    for name, entropy in ENTROPIES.items():
        assert known[name].entropy == pytest.approx(entropy, abs=4e-3)


@pytest.mark.parametrize("name", [*ENTROPIES, "sets"])
def test_samples_have_the_density_and_the_entropy(name: str, known: dict[str, Toy]) -> None:
    toy = known[name]
    x = toy.sample(40_000, np.random.default_rng(0))
    log_p = toy.log_density(x)
    assert np.isfinite(log_p).all()
    error = log_p.std() / np.sqrt(len(x))
    assert abs(-log_p.mean() - toy.entropy) < 4.5 * error + 1e-3
    wide = np.random.default_rng(1).uniform(-5, 5, (200_000, x.shape[1]))
    weight = np.exp(toy.log_density(wide)) * 10.0 ** x.shape[1]
    for power in (lambda x: np.ones(len(x)), lambda x: x[:, 0] * x[:, 1] > 0, lambda x: np.abs(x[:, 0] - x[:, 1]) < 1):
        ours, theirs = power(x).astype(float), power(wide) * weight
        error = np.hypot(ours.std() / np.sqrt(len(ours)), theirs.std() / np.sqrt(len(theirs)))
        assert abs(ours.mean() - theirs.mean()) < 4.5 * error
