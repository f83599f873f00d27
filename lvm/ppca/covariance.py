"""The covariance of data as what it does to a matrix, and what of PPCA's likelihood follows from such products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from density.data.rows import Rows
from density.linalg.lanczos import largest_outside
from density.linalg.moments import resolution, shares
from lvm.ppca.parameters import PPCAParameters
from lvm.ppca.spectrum import centre, fix_signs, require_noise

STEPS = 24  # of Lanczos' iteration, in search of a way up from a stationary point


class Operator(ABC):
    """A covariance S ``[D, D]`` by its products.

    Attributes:
        mean: of the data, ``[D]``.
        trace: of S.
        floor: the variance that is lost in rounding.
    """

    mean: Tensor
    trace: Tensor
    floor: Tensor

    @abstractmethod
    def times(self, w: Tensor) -> Tensor:
        """S w for w ``[D, q]``."""

    def sketched(self, noise: Tensor) -> PPCAParameters:
        """The best parameters within the span of Sω, for noise ω ``[D, q]``; but no column of W is 0 for σ²'s sake."""
        axes, variances = self._axes_within(self.times(noise))
        noise_variance = self._left(variances)
        scale = torch.maximum(variances - noise_variance, 0.5 * variances).sqrt()
        return PPCAParameters(self.mean, axes * scale, noise_variance)

    def improved(self, weight: Tensor, noise_variance: Tensor | None = None) -> PPCAParameters:
        r"""The best parameters, at a σ² if one is given, within the span of W ``[D, q]`` and of one more axis.

        It is the axis outside W along which S varies most.

        At a stationary point of PPCA's likelihood the columns of W that are not 0 span eigenvectors of S. It is a
        maximum if these belong to the largest eigenvalues, and a saddle else (Tipping & Bishop 1999, appendix A): S
        varies more along an axis outside than along one within, or than σ² where a column is 0. The turn towards that
        axis is an ascent direction, and it is taken to its end. O(Dq² + Dm²), and m + q + 1 products, m ≤ 24.
        """
        latents = weight.shape[1]
        axes = torch.linalg.svd(weight, full_matrices=False).U
        _, axis = largest_outside(lambda v: self.times(v.unsqueeze(1)).squeeze(1), axes, STEPS)
        axes, variances = self._axes_within(torch.cat([axes, axis.unsqueeze(1)], 1))
        noise_variance = self._left(variances[:latents]) if noise_variance is None else noise_variance
        scale = (variances[:latents] - noise_variance).clamp_min(0).sqrt()
        return PPCAParameters(self.mean, axes[:, :latents] * scale, noise_variance)

    def _axes_within(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The axes of S within the span of columns ``[D, k]``, and its variances along them ``[k]``, descending."""
        basis = torch.linalg.qr(columns).Q
        inner = basis.mT @ self.times(basis)
        variances, rotation = torch.linalg.eigh(0.5 * (inner + inner.mT))
        return fix_signs(basis @ rotation.flip(1)), variances.flip(0).clamp_min(0)

    def _left(self, variances: Tensor) -> Tensor:
        """σ²: the mean variance outside axes with variances ``[q]``, at least what rounding leaves of it."""
        rest = (self.trace - variances.sum()) / (self.mean.shape[0] - variances.shape[0])
        return torch.maximum(rest, self.floor)


@dataclass(frozen=True, eq=False)
class Covariance(Operator):
    """The covariance of complete data: by S ``[D, D]`` or, for n < D, by the rows themselves."""

    mean: Tensor
    matrix: Tensor | None
    rows: Tensor | None
    trace: Tensor
    floor: Tensor
    dtype: torch.dtype

    @staticmethod
    def of(data: Rows, mean: Tensor | None = None) -> Covariance:
        """Of data about its mean, or about another one."""
        x = data.whole
        if x is not None and x.shape[0] < x.shape[1]:
            return Covariance.by_rows(x, data.weights, mean)
        moments = data.moments().about(mean)
        matrix, mean = moments.covariance, moments.mean
        return Covariance._with_floor(mean, matrix, None, matrix.diagonal(), data.like.dtype)

    @staticmethod
    def by_rows(x: Tensor, weights: Tensor | None = None, mean: Tensor | None = None) -> Covariance:
        """Of rows ``[n, D]``, without a D × D matrix."""
        mean, centred = centre(x, weights, mean)
        rows = centred * shares(x, weights).sqrt().unsqueeze(1)
        return Covariance._with_floor(mean, None, rows, rows.square().sum(0), x.dtype)

    @staticmethod
    def _with_floor(
        mean: Tensor, matrix: Tensor | None, rows: Tensor | None, variances: Tensor, dtype: torch.dtype
    ) -> Covariance:
        rounding = 10 * torch.finfo(torch.float64).eps * variances.sum()
        floor = torch.maximum(rounding, resolution(mean, variances, dtype))
        return Covariance(mean, matrix, rows, variances.sum(), floor, dtype)

    def require(self, noise_variance: Tensor, latent_features: int) -> None:
        """Raise unless a σ² is more than rounding of S."""
        require_noise(noise_variance, self.floor, latent_features, self.dtype)

    def times(self, w: Tensor) -> Tensor:
        if self.matrix is not None:
            return self.matrix @ w
        assert self.rows is not None
        return self.rows.mT @ (self.rows @ w)
