"""Regularisation of covariances: a ridge on their diagonals, so that a Gaussian mixture's likelihood has a maximum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lvm.mixture.covariance import Covariance, Diagonal
from lvm.mixture.statistics import Part, Statistics, accumulate


@dataclass(frozen=True)
class Relative:
    """Regularisation by a share of each feature's variance in the data, so that a fit does not depend on its units."""

    share: float = 1e-6


def check_regularisation(regularisation: float | Relative) -> None:
    """Raise ValueError unless it is finite and at least 0."""
    value = regularisation.share if isinstance(regularisation, Relative) else regularisation
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"regularisation must be finite and at least 0; got {value}")


def spread(parts: Iterable[Part], like: Tensor) -> Statistics:
    """Weight, mean and squared deviations ``[1, D]`` of every column (0 if constant), about a row ``[1, D]``."""

    def one(residual: Tensor) -> tuple[Tensor, Tensor]:
        return residual.new_ones(residual.shape[:2]), residual.new_zeros(residual.shape[1])

    return accumulate(Diagonal(), parts, like.double(), one)


def ridge_of(regularisation: float | Relative, structure: Covariance, columns: Statistics) -> Tensor:
    """R's diagonal for data of that spread, float64 ``[D]``.

    Raises:
        ValueError: the rows are so alike, or so large, that even one component for all of them has no density.
    """
    variance = (columns.scatter / columns.total).squeeze(0)
    if isinstance(regularisation, Relative):
        ridge = regularisation.share * variance
    else:
        ridge = torch.full_like(variance, regularisation)
    if not bool(variance.isfinite().all()):
        raise ValueError("GaussianMixture: the squares of the data overflow float64; rescale it")
    nothing = variance.new_zeros(structure.shape(1, variance.shape[0]))
    left = structure.variances(structure.add_ridge(nothing, variance + ridge)).reshape(-1)
    if not bool((left > 0).any()):
        raise ValueError(
            "GaussianMixture: all rows are equal, so the likelihood has no maximum. Add noise (dequantise), or "
            "regularise by a variance, EM(regularisation=...)"
        )
    if not bool((left > 0).all()):
        raise ValueError(
            f"GaussianMixture: column {int((left == 0).nonzero()[0])} is constant, so the likelihood has no "
            "maximum. Drop it, add noise (dequantise), or regularise by a variance, EM(regularisation=...)"
        )
    return ridge
