"""Count, mean and scatter of data: the sufficient statistics of a Gaussian, which add."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from density.checks import check_points
from density.linalg.gram import gram

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Moments:
    r"""Σwᵢ, the mean and the scatter Σ wᵢ (xᵢ − mean)(xᵢ − mean)ᵀ of weighted points, in float64.

    Moments of two data sets add to the moments of both together, by the pairwise update of Chan, Golub and LeVeque
    (1979), which never subtracts large numbers: data far from the origin loses no digits.

    >>> x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)) + 1e6
    >>> both = Moments.of(x[:4]) + Moments.of(x[4:])
    >>> torch.allclose(both.scatter, Moments.of(x).scatter, rtol=1e-9)
    True
    """

    count: Tensor
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(x: Tensor, weights: Tensor | None = None) -> Moments:
        """Moments of x ``[n, D]`` with weights ``[n]`` (1 if None). O(nD²), in chunks of bounded memory; no gradients.

        Raises:
            TypeError: x is no floating-point tensor.
            ValueError: a shape does not fit.
        """
        check_points(x, None, "Moments.of")
        if x.ndim != 2 or (weights is not None and weights.shape != x.shape[:1]):
            got = list(x.shape) if weights is None else f"{list(x.shape)} and {list(weights.shape)}"
            raise ValueError(f"Moments.of expects points [n, D] and weights [n]; got {got}")
        x = x.detach()
        if not len(x):
            zeros = x.new_zeros(x.shape[1], dtype=torch.float64)
            return Moments(zeros.new_zeros(()), zeros, zeros.new_zeros(x.shape[1], x.shape[1]))
        if weights is not None:
            chunks = zip(x.split(ROWS_AT_ONCE), weights.split(ROWS_AT_ONCE), strict=True)
            return reduce(add, (_weighted(rows, own) for rows, own in chunks))
        done = min(len(x), ROWS_AT_ONCE)
        total = _own(x[:done])
        if done == len(x):
            return total
        buffer = x.new_ones(done, x.shape[1] + 1, dtype=torch.float64)
        while done < len(x):
            rows = x[done : 2 * done]
            total, done = total + _about(total.mean, rows, buffer), done + len(rows)
        return total

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / count.clamp_min(torch.finfo(count.dtype).tiny)
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + share * shift,
            (self.scatter + other.scatter).addr_(self.count * share * shift, shift),
        )

    def about(self, mean: Tensor | None) -> Moments:
        """The same points with their scatter about another mean ``[D]``, which then is the mean here; None for no
        other.
        """
        if mean is None:
            return self
        shift = self.mean - mean
        return Moments(self.count, mean, self.scatter.addr(self.count * shift, shift))

    @property
    def covariance(self) -> Tensor:
        """The maximum-likelihood covariance, scatter / Σw."""
        return self.scatter / self.count


def _own(rows: Tensor) -> Moments:
    mean, centred = centre(rows.double())
    return Moments(mean.new_full((), float(len(rows))), mean, gram(centred))


def _weighted(rows: Tensor, weights: Tensor) -> Moments:
    w = weights.double()
    mean, centred = centre(rows.double(), w)
    return Moments(w.sum(), mean, gram(centred.mul_(w.sqrt().unsqueeze(1))))


def _about(origin: Tensor, rows: Tensor, buffer: Tensor) -> Moments:
    """The same by way of sums about the mean of at least as many other rows, one pass fewer over these.

    Where that lies far from their own mean, subtracting n·shift² loses digits of their scatter, but none of the sum's:
    adding the two puts back at least the half of it.

    Args:
        buffer: for a chunk of rows, with D + 1 columns, the last of which is 1: so a product has all sums.
    """
    sums = buffer.new_zeros(buffer.shape[1], buffer.shape[1])
    for chunk in rows.split(len(buffer)):
        centred = buffer[: len(chunk)]
        torch.sub(chunk, origin, out=centred[:, :-1])
        sums += gram(centred)
    shift = sums[-1, :-1] / len(rows)
    return Moments(sums[-1, -1], origin + shift, sums[:-1, :-1].addr(shift, shift, alpha=-len(rows)))


def centre(rows: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean ``[D]`` of rows ``[n, D]`` with weights ``[n]``, and the rows less their mean. O(nD).

    The mean is corrected by that of the residuals (the corrected two-pass algorithm): the first mean's rounding error,
    ε times its size, would otherwise pass for a spread. Constant columns come out with none.
    """
    if weights is None:
        first = rows.mean(0)
        residual = rows - first
        correction = residual.mean(0)
    else:
        total = weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
        first = weights @ rows / total
        residual = rows - first
        correction = weights @ residual / total
    return first + correction, residual.sub_(correction)


def is_constant(mean: Tensor, variance: Tensor, dtype: torch.dtype) -> Tensor:
    """Constant features, booleans ``[D]``: they spread less than data of that dtype can resolve at their mean."""
    return variance.sqrt() <= torch.finfo(dtype).eps * mean.abs()


def shares(x: Tensor, weights: Tensor | None) -> Tensor:
    """wᵢ/Σw, ``[n]``, float64."""
    if weights is None:
        return x.new_full(x.shape[:1], 1 / x.shape[0], dtype=torch.float64)
    return weights.double() / weights.double().sum()


def resolution(mean: Tensor, variances: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean variance (ε|x|)² that rounding x to its dtype may put into each column; constant columns are exact."""
    square = torch.finfo(dtype).eps ** 2 * (mean.square() + variances)
    return torch.where(variances > 0, square, torch.zeros_like(square)).mean()
