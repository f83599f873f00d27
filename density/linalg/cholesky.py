"""Triangular factors of covariances, and how they are stored without constraints."""

from __future__ import annotations

import torch
from torch import Tensor


def unpack_triangular(packed: Tensor) -> Tensor:
    """Lower-triangular L with positive diagonal from an unconstrained matrix: strict lower part, and log-diagonal."""
    root = packed.tril()
    root.diagonal(dim1=-2, dim2=-1).exp_()
    return root


def pack_triangular(factor: Tensor) -> Tensor:
    """Inverse of :func:`unpack_triangular`."""
    packed = factor.tril()
    packed.diagonal(dim1=-2, dim2=-1).log_()
    return packed


def cholesky(covariance: Tensor, owner: str) -> Tensor:
    """Cholesky factor of a covariance ``[*batch, D, D]``, float64.

    Raises:
        ValueError: if it is singular to working precision: the smallest eigenvalue of the correlation matrix is below
            10 D ε. (Pivots of the factor are no such measure: rounding can leave a large last one.)
    """
    factor, info = torch.linalg.cholesky_ex(covariance)
    regular = bool((info == 0).all()) and bool(covariance.isfinite().all())
    if regular:
        std = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        correlation = covariance / std.unsqueeze(-1) / std.unsqueeze(-2)
        floor = 10 * covariance.shape[-1] * torch.finfo(covariance.dtype).eps
        regular = bool((torch.linalg.eigvalsh(correlation)[..., 0] > floor).all())
    if not regular:
        raise ValueError(
            f"{owner}: the covariance of the data is singular, so the likelihood has no maximum. Drop constant or "
            "linearly dependent columns, add noise (dequantise), use more rows than features, or choose a model with "
            "fewer parameters (PPCA, a diagonal covariance)"
        )
    return factor


def is_symmetric(covariance: Tensor) -> bool:
    """Whether covariances ``[*batch, D, D]`` are symmetric to 1e-5, in units of the standard deviations.

    An entry is compared as a correlation: beside a variance of 10⁶, one of 1 and those that go with it count as much.
    """
    std = covariance.diagonal(dim1=-2, dim2=-1).abs().sqrt()
    difference = (covariance - covariance.mT).abs()
    return not bool((difference > 1e-5 * std.unsqueeze(-1) * std.unsqueeze(-2)).any())
