"""Claims on disk: everything that a difference needs, their points too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from density import Gaussian, Kind, LogDensity
from lvm import PPCA
from lvm.evidence import importance
from studies.kit.claims import load_claim, load_elbo, save_claim


def test_a_claim_comes_back(tmp_path: Path, generator: Generator) -> None:
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    exact = Gaussian(3).double().log_density(x)
    sampled = importance(PPCA(3, 1).double(), x, draws=20, generator=generator)
    bounded = LogDensity(sampled.value, Kind.LOWER, "some", confidence=0.9, points=sampled.points)
    for claim in (exact, sampled, bounded):
        save_claim(tmp_path / "claim.npz", claim, claim.value)
        found, elbo = load_claim(tmp_path / "claim.npz"), load_elbo(tmp_path / "claim.npz")
        assert elbo is not None
        assert found.value.equal(claim.value)
        assert elbo.equal(claim.value)
        assert (found.kind, found.method, found.measure) == (claim.kind, claim.method, claim.measure)
        assert (found.points, found.confidence) == (claim.points, claim.confidence)
        assert (found - exact).value.shape == (5,)
        with pytest.raises(ValueError, match="compared at the same points"):
            found - Gaussian(3).double().log_density(x.flip(0))


def test_an_older_file_does_not_know_its_points(tmp_path: Path, generator: Generator) -> None:
    claim = Gaussian(3).double().log_density(torch.randn(5, 3, generator=generator, dtype=torch.float64))
    save_claim(tmp_path / "claim.npz", claim)
    with np.load(tmp_path / "claim.npz") as archive:
        np.savez(tmp_path / "older.npz", **{name: archive[name] for name in archive if name != "points"})
    older = load_claim(tmp_path / "older.npz")
    assert older.points is None
    assert (older - claim).value.abs().max() == 0
