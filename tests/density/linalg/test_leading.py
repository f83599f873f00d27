"""The largest eigenvalues alone: those of the full decomposition, to its own accuracy."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import LinAlgError
from torch import Generator, Tensor

from density import Moments
from density.linalg import leading as module
from density.linalg.leading import leading
from lvm.ppca.model import PPCA
from lvm.ppca.spectrum import Spectrum
from tests.lvm.vae.linear_examples import data


def covariance(n: int, features: int, stds: Tensor, generator: Generator) -> Tensor:
    z = torch.randn(n, len(stds), generator=generator, dtype=torch.float64) * stds
    x = z @ torch.randn(len(stds), features, generator=generator, dtype=torch.float64)
    x = x + torch.randn(n, features, generator=generator, dtype=torch.float64)
    return x.mT @ x / n


@pytest.mark.parametrize("top", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("count", [1, 8, 20])
def test_eigenvalues_that_stand_out(count: int, top: float, generator: Generator) -> None:
    matrix = covariance(600, 400, torch.linspace(top, 1, count).double(), generator)
    values, axes = leading(matrix, count)
    assert values.shape == (count,), "it was not worth a full decomposition"
    every, vectors = torch.linalg.eigh(matrix)
    # Both are right to about D ε λ₁; residuals are below 1e-12 λ₁, and values to their square.
    torch.testing.assert_close(values, every.flip(0)[:count], rtol=0, atol=1e-12 * every[-1].item())
    torch.testing.assert_close(axes.mT @ axes, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-13)
    overlap = torch.linalg.svdvals(axes.mT @ vectors.flip(1)[:, :count])
    assert overlap.min() > 1 - 1e-12


@pytest.mark.parametrize(
    ("size", "count", "signals"), [(400, 20, 5), (400, 10, 0), (100, 3, 3)], ids=["fewer signals", "none", "small"]
)
def test_eigenvalues_that_do_not_stand_out(
    size: int, count: int, signals: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By LAPACK, as many as were asked for; they may lie close, so that axes are compared by what they do to S."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    matrix = covariance(900, size, torch.full((signals,), 3.0).double(), generator)
    values, axes = leading(matrix, count)
    assert values.shape == (count,)
    largest = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(values, largest[:count], rtol=0, atol=1e-12 * largest[0].item())
    # LAPACK promises residuals of D ε λ₁ and axes that are orthogonal to D ε: 400 × 2e-16 is 1e-13.
    assert (matrix @ axes - axes * values).norm(dim=0).max() < 1e-12 * largest[0]
    torch.testing.assert_close(axes.mT @ axes, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("threads", "found"), [(1, False), (2, True)])
def test_eigenvalues_that_fall_slowly(
    threads: int, found: bool, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two: a long filter, for which only several threads have the time."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    matrix = covariance(900, 400, torch.linspace(3, 0.5, 40).double(), generator)
    assert (module._filtered(matrix, 20) is not None) == found
    values, axes = leading(matrix, 20)
    every = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(values, every[:20], rtol=0, atol=1e-12 * every[0].item())
    assert (matrix @ axes - axes * values).norm(dim=0).max() < 3e-12 * every[0]  # the filter's tolerance, and rounding


@pytest.mark.parametrize(("size", "count"), [(400, 75), (30, 3)], ids=["a large part of all", "small"])
def test_otherwise_all_of_them(size: int, count: int, generator: Generator) -> None:
    matrix = covariance(900, size, torch.full((count,), 3.0).double(), generator)
    values, axes = leading(matrix, count)
    assert values.shape == (size,)
    torch.testing.assert_close(axes * values @ axes.mT, matrix, rtol=0, atol=1e-10)
    assert bool((values.diff() <= 0).all())


def test_where_lapack_fails_the_full_decomposition_is_there(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object, **keywords: object) -> None:
        raise LinAlgError("no convergence")

    matrix = covariance(900, 120, torch.full((3,), 3.0).double(), generator)
    expected = torch.linalg.eigvalsh(matrix).flip(0)
    monkeypatch.setattr("scipy.linalg.eigh", failing)
    monkeypatch.setattr(module, "FEW", {True: 96, False: 96})
    torch.testing.assert_close(leading(matrix, 3)[0], expected, rtol=0, atol=1e-12 * expected[0].item())


@pytest.mark.parametrize("n", [900, 395])
def test_ppca_is_the_same_either_way(n: int, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = data(n, 400 if n > 400 else 450, 6, generator)
    some, every = PPCA(x.shape[1], 6), PPCA(x.shape[1], 6)
    history = some.fit(x)
    monkeypatch.setattr(module, "SMALL", 10_000)
    monkeypatch.setattr(module, "FEW", {True: 10_000, False: 10_000})
    assert history.objective == pytest.approx(every.fit(x).objective, rel=1e-12)
    for a, b in zip(some.parameters(), every.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("n", "features"), [(900, 400), (395, 450), (30, 200)])
def test_every_way_to_the_spectrum_is_the_same(n: int, features: int, generator: Generator) -> None:
    x = data(n, features, 6, generator)
    weights = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    rows = Spectrum.of_rows(x, weights)
    other = Spectrum.of_gram(x, 6, weights) if n < features else Spectrum.of_moments(Moments.of(x, weights), x.dtype, 6)
    assert len(other.variances) == 6, "no more than asked for"
    torch.testing.assert_close(other.mean, rows.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(other.variances, rows.variances[:6], rtol=1e-11, atol=0)
    torch.testing.assert_close(other.noise_variance(6), rows.noise_variance(6), rtol=1e-10, atol=0)
    overlap = (other.axes * rows.axes[:, :6]).sum(0).abs()
    torch.testing.assert_close(overlap, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_matrix_of_low_rank(generator: Generator) -> None:
    factor = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    values, _ = leading(factor @ factor.mT, 5)
    expected = torch.linalg.svdvals(factor).square()
    torch.testing.assert_close(values[:3], expected, rtol=1e-11, atol=0)
    assert values[3:].abs().max() < 1e-10
    assert bool((leading(torch.zeros(400, 400, dtype=torch.float64), 2)[0] == 0).all())
