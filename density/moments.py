"""Count, mean and scatter of data: the sufficient statistics of a Gaussian, which add."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from density.contract import check_points
from density.gram import gram

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
        """Moments of x ``[n, D]`` with weights ``[n]`` (1 if None). O(nD²), in chunks of bounded memory.

        Raises:
            TypeError: x is no floating-point tensor.
            ValueError: a shape does not fit.
        """
        check_points(x, None, "Moments.of")
        if x.ndim != 2 or (weights is not None and weights.shape != x.shape[:1]):
            got = list(x.shape) if weights is None else f"{list(x.shape)} and {list(weights.shape)}"
            raise ValueError(f"Moments.of expects points [n, D] and weights [n]; got {got}")
        total = Moments(
            x.new_zeros((), dtype=torch.float64),
            x.new_zeros(x.shape[1], dtype=torch.float64),
            x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64),
        )
        for start in range(0, x.shape[0], ROWS_AT_ONCE):
            rows = x[start : start + ROWS_AT_ONCE].double()
            if weights is None:
                count = rows.new_tensor(float(rows.shape[0]))
                mean, centred = centre(rows)
                scatter = gram(centred)
            else:
                w = weights[start : start + ROWS_AT_ONCE].double()
                count = w.sum()
                mean, centred = centre(rows, w)
                scatter = gram(centred.mul_(w.sqrt().unsqueeze(1)))
            total = total + Moments(count, mean, scatter)
        return total

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / count.clamp_min(torch.finfo(count.dtype).tiny)
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + share * shift,
            self.scatter + other.scatter + self.count * share * torch.outer(shift, shift),
        )

    @property
    def covariance(self) -> Tensor:
        """The maximum-likelihood covariance, scatter / Σw."""
        return self.scatter / self.count


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
    """Which features spread less than data of that dtype can resolve at their mean: booleans ``[D]``."""
    return variance.sqrt() <= torch.finfo(dtype).eps * mean.abs()
