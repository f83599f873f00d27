"""The posterior of PPCA's latent given the observed entries of a row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lvm.linear_gaussian import LatentFactor, LinearGaussian
from lvm.missing.patterns import Block, Patterns


@dataclass(frozen=True, eq=False)
class Coordinates:
    r"""PPCA's parameters in float64, in the latent coordinates u, z = Lu, where LLᵀ is the complete-data posterior.

    With A = W/σ, P = AL has singular values below 1, and of the entries o of a row that are observed

    .. math:: p(u|x_o) = N(N^{-1} P_o^\top r_o,\ N^{-1}), \qquad N = L^\top L + P_o^\top P_o,
              \qquad r = (x - \mu) / \sigma .

    N is I where all are observed, and well conditioned where those observed determine z. Where they do not, its
    smallest eigenvalue falls towards that of LᵀL, σ²/λ, and log p loses the digits of λ/σ². The precision of z itself,
    I + A_oᵀA_o, has that condition for every row.

    Attributes:
        mean: μ, ``[D]``.
        std: σ.
        log_each: log σ + ½ log 2π, what an entry takes from log p.
        weight: W, ``[D, q]``.
        projection: P, ``[D, q]``.
        lower: L, ``[q, q]``.
        products: the entries of p_j p_jᵀ for the rows p_j of P, ``[D, q²]``.
        least: those of LᵀL, ``[q²]``: N of a row without entries.
        log_lower: log det L.
    """

    mean: Tensor
    std: Tensor
    log_each: Tensor
    weight: Tensor
    projection: Tensor
    lower: Tensor
    products: Tensor
    least: Tensor
    log_lower: Tensor

    @staticmethod
    def of(decoder: LinearGaussian) -> Coordinates:
        return Coordinates.at(decoder.mean.double(), decoder.weight.double(), decoder.log_std.double())

    @staticmethod
    def at(mean: Tensor, weight: Tensor, log_std: Tensor) -> Coordinates:
        std, log_each = log_std.exp(), log_std + 0.5 * math.log(2 * math.pi)
        factor = LatentFactor.of(weight / std)
        p, lower = factor.projection, factor.lower
        products, least = (p.unsqueeze(2) * p.unsqueeze(1)).flatten(1), (lower.mT @ lower).flatten()
        return Coordinates(mean, std, log_each, weight, p, lower, products, least, lower.diagonal().log().sum())

    @staticmethod
    def patterns(observed: Tensor, latent_features: int) -> Patterns:
        """The patterns of observed entries ``[n, D]``, in blocks that fit what a posterior holds."""
        features = observed.shape[1]
        return Patterns.of(observed, 3 * features + 4 * latent_features, features + 4 * latent_features**2)

    def posterior(self, block: Block, rows: Tensor, *, careful: bool = True) -> BlockPosterior:
        """p(z|x_o) and log p(x_o) for rows of a block. O(B(Dq² + q³) + BRDq), by matrix products.

        Args:
            rows: ``[B, R, D]``, 0 where an entry is missing.
            careful: look whether the posterior is singular, which is an error; else it is nan there.
        """
        residual = (rows - (block.seen * self.mean).unsqueeze(1)) / self.std
        precision = torch.addmm(self.least, block.seen, self.products).unflatten(1, self.lower.shape)
        root, info = torch.linalg.cholesky_ex(precision)
        if not careful:
            root = root.masked_fill((info != 0)[:, None, None], torch.nan)
        elif bool(info.any()):
            raise ValueError(
                "PPCA: σ² is so small beside WWᵀ that the posterior of a row with few observed entries is singular in "
                "float64. Use fewer latent features, or leave out columns with few entries"
            )
        u, left = self._solved(block, root, residual)
        z = u @ self.lower.mT
        # The minimum over z of ‖r_o − A_o z‖² + ‖z‖²: a sum of squares that feels rounding in z to second order only.
        square = left.square().sum(-1) + z.square().sum(-1)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) - self.log_lower
        log_det = torch.addcmul(log_det, block.entries, self.log_each)
        return BlockPosterior(z, root, left, -0.5 * square - log_det.unsqueeze(1))

    def left(self, block: Block, root: Tensor, residual: Tensor) -> Tensor:
        """(I + A_oA_oᵀ)⁻¹ r_o for residuals r ``[B, R, D]`` that are 0 where an entry is missing."""
        return self._solved(block, root, residual)[1]

    def _solved(self, block: Block, root: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """u ``[B, R, q]`` and what it leaves of the residuals, r_o − P_o u."""
        u = torch.cholesky_solve((residual @ self.projection).mT, root).mT
        return u, torch.addcmul(residual, block.seen.unsqueeze(1), u @ self.projection.mT, value=-1)

    def spread(self, root: Tensor) -> Tensor:
        """R with RᵀR = Cov(z|x_o), from the Cholesky factor of N: ``[B, q, q]``."""
        return torch.linalg.solve_triangular(root, self.lower.mT.expand_as(root), upper=False)


@dataclass(frozen=True, eq=False)
class BlockPosterior:
    """E[z|x_o] ``[B, R, q]``, the factor of N ``[B, q, q]``, σ C_oo⁻¹(x − μ)_o ``[B, R, D]``, log p(x_o) ``[B, R]``."""

    mean: Tensor
    root: Tensor
    left: Tensor
    log_prob: Tensor
