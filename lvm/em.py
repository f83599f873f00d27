"""Settings of expectation maximisation for Gaussian mixtures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from density.contract import check_count
from lvm.covariance import Covariance, Diagonal
from lvm.initialisation import KMeansPlusPlus, Start
from lvm.statistics import accumulate


@dataclass(frozen=True)
class Relative:
    """Regularisation by a share of each feature's variance in the data, so that a fit does not depend on its units."""

    share: float = 1e-6


@dataclass(frozen=True)
class EM:
    r"""Settings of expectation maximisation.

    Args:
        max_iterations: M-steps at most.
        tolerance: stop when the mean log-likelihood changes by no more than this (nats per point). EM converges
            linearly, so what is left to gain can be many times the last change: scikit-learn's 10⁻³ stops too early.
        regularisation: R, added to the diagonal of every covariance in every M-step: a variance, or :class:`Relative`.
        restarts: starts to try; the one with the highest final log-likelihood is kept.
        start: :class:`~lvm.initialisation.KMeansPlusPlus`, :class:`~lvm.initialisation.RandomPoints`,
            :class:`~lvm.initialisation.RandomResponsibilities` or :class:`~lvm.initialisation.Given`.
        rows_at_once: rows in a chunk of the E-step; None for as many as fit the cache. Results do not depend on it.
        progress: show a progress bar, if there is a terminal to show it on.

    Raises:
        ValueError: a setting is out of range.
    """

    max_iterations: int = 1000
    tolerance: float = 1e-8
    regularisation: float | Relative = field(default_factory=Relative)
    restarts: int = 1
    start: Start = field(default_factory=KMeansPlusPlus)
    rows_at_once: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, count in (
            ("max_iterations", self.max_iterations),
            ("restarts", self.restarts),
            ("rows_at_once", 1 if self.rows_at_once is None else self.rows_at_once),
        ):
            check_count(count, name)
        share = self.regularisation.share if isinstance(self.regularisation, Relative) else self.regularisation
        for name, value in (("tolerance", self.tolerance), ("regularisation", share)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0; got {value}")
        if not isinstance(self.start, Start):
            raise TypeError(f"start must be KMeansPlusPlus() or another Start; got {self.start!r}")
        if self.restarts > 1 and self.start.deterministic:
            raise ValueError(
                f"{type(self.start).__name__} starts alike every time: use restarts=1; got {self.restarts}"
            )

    def ridge(self, structure: Covariance, x: Tensor, weights: Tensor | None) -> Tensor:
        """R's diagonal for data x ``[n, D]``, float64 ``[D]``.

        Raises:
            ValueError: the rows are so alike, or so large, that even one component for all of them has no density.
        """
        variance = _variance(x, weights)
        if isinstance(self.regularisation, Relative):
            ridge = self.regularisation.share * variance
        else:
            ridge = torch.full_like(variance, self.regularisation)
        if not bool(variance.isfinite().all()):
            raise ValueError("GaussianMixture: the squares of the data overflow float64; rescale it")
        nothing = variance.new_zeros(structure.shape(1, x.shape[1]))
        spread = structure.variances(structure.add_ridge(nothing, variance + ridge)).reshape(-1)
        if not bool((spread > 0).any()):
            raise ValueError(
                "GaussianMixture: all rows are equal, so the likelihood has no maximum. Add noise (dequantise), or "
                "regularise by a variance, EM(regularisation=...)"
            )
        if not bool((spread > 0).all()):
            raise ValueError(
                f"GaussianMixture: column {int((spread == 0).nonzero()[0])} is constant, so the likelihood has no "
                "maximum. Drop it, add noise (dequantise), or regularise by a variance, EM(regularisation=...)"
            )
        return ridge


def _variance(x: Tensor, weights: Tensor | None) -> Tensor:
    """Variance of every feature, float64 ``[D]``; exactly 0 where a column is constant."""

    def one(residual: Tensor) -> tuple[Tensor, Tensor]:
        return residual.new_ones(residual.shape[:2]), residual.new_zeros(residual.shape[1])

    statistics = accumulate(Diagonal(), x, weights, x[:1].double(), one)
    return (statistics.scatter / statistics.total).squeeze(0)
