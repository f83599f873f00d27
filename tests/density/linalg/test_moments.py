"""Moments add, forget how they were split, and lose no digits far from the origin."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

import density.linalg.moments
from density import Moments
from density.linalg.moments import centre, is_constant


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def same(a: Moments, b: Moments, tolerance: float = 1e-12) -> None:
    for ours, theirs in ((a.count, b.count), (a.mean, b.mean), (a.scatter, b.scatter)):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def exact(x: Tensor, weights: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and scatter in rational arithmetic, rounded once at the end."""
    rows = [[Fraction(v) for v in row] for row in x.tolist()]
    w = [Fraction(1)] * len(rows) if weights is None else [Fraction(v) for v in weights]
    columns = range(x.shape[1])
    mean = [sum((w[i] * row[j] for i, row in enumerate(rows)), Fraction(0)) / sum(w) for j in columns]
    scatter = [
        [float(sum(w[i] * (row[j] - mean[j]) * (row[k] - mean[k]) for i, row in enumerate(rows))) for k in columns]
        for j in columns
    ]
    return torch.tensor([float(m) for m in mean], dtype=torch.float64), torch.tensor(scatter, dtype=torch.float64)


def test_against_numpy(generator: Generator) -> None:
    x, w = normal(generator, 40, 3), torch.rand(40, generator=generator, dtype=torch.float64)
    plain, weighted = Moments.of(x), Moments.of(x, w)
    assert plain.count == 40
    torch.testing.assert_close(plain.covariance, torch.as_tensor(np.cov(x.numpy().T, ddof=0)), rtol=1e-12, atol=1e-12)
    oracle = np.cov(x.numpy().T, aweights=w.numpy(), ddof=0)
    torch.testing.assert_close(weighted.covariance, torch.as_tensor(oracle), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        weighted.mean, torch.as_tensor(np.average(x.numpy(), 0, w.numpy())), rtol=1e-12, atol=1e-12
    )


def test_moments_add(generator: Generator) -> None:
    x, w = normal(generator, 50, 3) + 5, torch.rand(50, generator=generator, dtype=torch.float64)
    for weights in (None, w):
        parts = [
            Moments.of(x[s], None if weights is None else weights[s]) for s in (slice(0, 7), slice(7, 8), slice(8, 50))
        ]
        whole = Moments.of(x, weights)
        same(parts[0] + parts[1] + parts[2], whole)
        same(parts[2] + (parts[1] + parts[0]), whole)


@pytest.mark.parametrize("rows", [1, 7, 16, 49, 50, 51])
@pytest.mark.parametrize("ordered", [False, True])
def test_chunks_do_not_matter(rows: int, ordered: bool, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, every chunk lies off the mean of those before it."""
    x, w = normal(generator, 50, 3) + 100, torch.rand(50, generator=generator, dtype=torch.float64)
    x = x.sort(0).values if ordered else x
    whole = Moments.of(x), Moments.of(x, w)
    monkeypatch.setattr(density.linalg.moments, "ROWS_AT_ONCE", rows)
    same(Moments.of(x), whole[0])
    same(Moments.of(x, w), whole[1])


def test_weights_are_repetitions(generator: Generator) -> None:
    x, times = normal(generator, 20, 3), torch.randint(0, 4, (20,), generator=generator)
    assert (times == 0).any()
    same(Moments.of(x, times.double()), Moments.of(x.repeat_interleave(times, 0)))


def test_points_without_weight_add_nothing(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density.linalg.moments, "ROWS_AT_ONCE", 5)  # whole chunks have no weight
    x = normal(generator, 30, 2)
    weights = torch.zeros(30, dtype=torch.float64)
    weights[12:18] = 1
    far = x.clone()
    far[:10] = 1e12
    same(Moments.of(far, weights), Moments.of(x[12:18]))
    empty = Moments.of(x, weights * 0)
    assert empty.count == 0
    same(empty + Moments.of(x), Moments.of(x))
    same(Moments.of(x) + empty, Moments.of(x))


@pytest.mark.parametrize("std", [1.0, 1e-4, 1e-6])
@pytest.mark.parametrize("chunk", [8192, 64])
def test_far_from_the_origin_no_digits_are_lost(
    std: float, chunk: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 1e8 float64 resolves 1.5e-8: the data is rounded, and its moments are then computed as if exactly."""
    monkeypatch.setattr(density.linalg.moments, "ROWS_AT_ONCE", chunk)
    x = 1e8 + std * normal(generator, 300, 2)
    times = torch.randint(1, 4, (300,), generator=generator)
    for weights in (None, times):
        moments = Moments.of(x, None if weights is None else weights.double())
        mean, scatter = exact(x, None if weights is None else weights.tolist())
        torch.testing.assert_close(moments.mean, mean, rtol=3e-16, atol=0)
        # Within a chunk exact to rounding; chunk means are rounded to 1.5e-8, which a spread of 1e-6 feels at 1e-4.
        tolerance = 1e-11 if chunk > 300 else 1e-11 + 0.05 * (1.5e-8 / std)
        torch.testing.assert_close(moments.scatter / scatter.trace(), scatter / scatter.trace(), rtol=0, atol=tolerance)


def test_float32_data_has_float64_moments(generator: Generator) -> None:
    x = (normal(generator, 200, 2) + 9999).float()
    moments = Moments.of(x)
    mean, scatter = exact(x)
    assert moments.mean.dtype == moments.scatter.dtype == torch.float64
    torch.testing.assert_close(moments.mean, mean, rtol=1e-15, atol=0)
    torch.testing.assert_close(moments.scatter, scatter, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e8 + 0.1, -7.7e-9])
@pytest.mark.parametrize("n", [1, 3, 1000, 50_000])
def test_constant_columns_are_recognised(n: int, value: float) -> None:
    x = torch.full((n, 1), value, dtype=torch.float64)
    moments = Moments.of(x)
    assert is_constant(moments.mean, moments.covariance.diagonal(), torch.float64).all()
    mean, centred = centre(x)
    assert mean.item() == value
    assert centred.abs().max() <= 1e-30 * max(1, abs(value))
    if n > 1:
        x[0] = value * (1 + 1e-12)
        moments = Moments.of(x)
        assert not is_constant(moments.mean, moments.covariance.diagonal(), torch.float64).any()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e8])
def test_a_chunk_far_from_those_before_it(offset: float, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density.linalg.moments, "ROWS_AT_ONCE", 10)
    x = torch.cat([normal(generator, 10, 2), offset + normal(generator, 15, 2)])
    moments = Moments.of(x)
    mean, scatter = exact(x)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-15, atol=1e-16)
    # A few roundings of numbers no larger than the trace.
    torch.testing.assert_close(moments.scatter / scatter.trace(), scatter / scatter.trace(), rtol=0, atol=1e-15)
