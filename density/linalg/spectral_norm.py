"""Spectral norms of matrices of a batch, bounded from above without a decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

POWERS = 2  # of |A|ᵀ|A|, that a vector of ones is multiplied with: within 10 % of the norm


def inverse(root: Tensor) -> Tensor:
    """Of lower triangular matrices ``[*batch, D, D]``."""
    identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    return torch.linalg.solve_triangular(root, identity.expand_as(root), upper=False)


def squared_norm(a: Tensor) -> Tensor:
    """An upper bound of ‖|A|‖₂², ``[*batch]``: that of Collatz and Wielandt for the Perron root of |A|ᵀ|A|."""
    absolute = a.abs()
    square = absolute.mT @ absolute
    v = square.sum(-1, keepdim=True)
    for _ in range(POWERS - 1):
        v = square @ v
    return ((square @ v) / v).amax((-2, -1))


def squared_norm_of_inverse(covariance: Tensor) -> Tensor:
    """The same bound for A = S⁻¹ with S Sᵀ the covariance; infinite where it is not positive definite."""
    root, info = torch.linalg.cholesky_ex(covariance)
    return squared_norm(inverse(root)).masked_fill(info != 0, torch.inf)
