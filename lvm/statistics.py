"""Sufficient statistics of a Gaussian mixture: count, mean and scatter of every component, which add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lvm.covariance import Covariance

SCALARS_AT_ONCE = 2**18  # residuals held together in an E-step: 2 MiB, so that they stay in cache
FEWEST_ROWS, MOST_ROWS = 256, 2**16

Assign = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Statistics:
    r"""What the M-step needs to know of the data, in float64.

    Attributes:
        structure: the covariance structure, which decides how much of the scatter is kept.
        count: N_k = Σᵢ wᵢ r_ik, ``[K]``.
        mean: Σᵢ wᵢ r_ik xᵢ / N_k, ``[K, D]``.
        scatter: Σᵢ wᵢ r_ik (xᵢ − mean_k)(xᵢ − mean_k)ᵀ, in the structure's shape.
        log_likelihood: Σᵢ wᵢ log p(xᵢ) under the parameters that gave the responsibilities r, nats.

    Statistics of two data sets under the same parameters add to those of both together, by the pairwise update of Chan,
    Golub and LeVeque (1979), which never subtracts large numbers: chunks, data larger than memory and several processes
    are all the same sum.
    """

    structure: Covariance
    count: Tensor
    mean: Tensor
    scatter: Tensor
    log_likelihood: Tensor

    @staticmethod
    def of(
        structure: Covariance, residual: Tensor, weight: Tensor, origin: Tensor, log_likelihood: Tensor
    ) -> Statistics:
        """Statistics of residuals ``[K, n, D]`` about origins ``[K, D]``, with weights w r ``[K, n]``."""
        count = weight.sum(-1)
        share = weight / count.clamp_min(_TINY).unsqueeze(-1)
        shift = share.unsqueeze(-2) @ residual
        scatter = structure.scatter(residual - shift, weight)
        return Statistics(structure, count, origin + shift.squeeze(-2), scatter, log_likelihood)

    def __add__(self, other: Statistics) -> Statistics:
        if self.structure != other.structure or self.mean.shape != other.mean.shape:
            raise ValueError(
                "statistics add where structure, components and features are the same; got "
                f"{self.structure} {list(self.mean.shape)} and {other.structure} {list(other.mean.shape)}"
            )
        count = self.count + other.count
        share = other.count / count.clamp_min(_TINY)
        shift = other.mean - self.mean
        between = self.structure.scatter(shift.unsqueeze(1), (self.count * share).unsqueeze(1))
        return Statistics(
            self.structure,
            count,
            self.mean + share.unsqueeze(-1) * shift,
            self.scatter + other.scatter + between,
            self.log_likelihood + other.log_likelihood,
        )

    @property
    def total(self) -> Tensor:
        """Σᵢ wᵢ, the number of rows where they have no weights."""
        return self.count.sum()

    @property
    def mean_log_likelihood(self) -> float:
        """Σᵢ wᵢ log p(xᵢ) / Σᵢ wᵢ, nats per point."""
        return (self.log_likelihood / self.total).item()


@dataclass(frozen=True, eq=False)
class MixtureParameters:
    """Weights ``[K]``, means ``[K, D]`` and covariances in their structure's shape."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


def accumulate(
    structure: Covariance,
    x: Tensor,
    weights: Tensor | None,
    origin: Tensor,
    assign: Assign,
    rows_at_once: int | None = None,
) -> Statistics:
    """Statistics of x ``[n, D]``, a chunk of rows at a time, so that memory does not grow with n.

    Args:
        weights: of the rows, ``[n]``, or None for 1.
        origin: float64 ``[K, D]``; residuals are formed about it, and then about the chunk's own means.
        assign: maps residuals ``[K, rows, D]`` to responsibilities ``[K, rows]`` and log p ``[rows]``.
        rows_at_once: rows in a chunk; None for as many as fit the cache.
    """
    if rows_at_once is None:
        rows_at_once = min(max(SCALARS_AT_ONCE // origin.numel(), FEWEST_ROWS), MOST_ROWS)
    total: Statistics | None = None
    for start in range(0, x.shape[0], rows_at_once):
        rows = x[start : start + rows_at_once].double()
        residual = rows - origin.unsqueeze(1)
        weight, log_p = assign(residual)
        if weights is not None:
            w = weights[start : start + rows_at_once].double()
            weight, log_p = weight * w, log_p * w
        part = Statistics.of(structure, residual, weight, origin, log_p.sum())
        total = part if total is None else total + part
    assert total is not None, "callers have checked that there are rows"
    return total


def check_weights(weights: Tensor | None, x: Tensor) -> None:
    """Raise unless weights are None, or positive and finite, one for each row of x."""
    if weights is None:
        return
    if not isinstance(weights, Tensor) or weights.shape != x.shape[:1]:
        got = list(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(f"weights must be a tensor of shape [{x.shape[0]}], one for each row; got {got}")
    if not bool((weights.isfinite() & (weights > 0)).all()):
        raise ValueError("weights must be positive and finite; leave out rows of weight zero")


_TINY = torch.finfo(torch.float64).tiny
