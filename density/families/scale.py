"""Square roots of a covariance: Σ = S Sᵀ with S diagonal or lower triangular."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Scale(ABC):
    """A square root S of Σ = S Sᵀ, possibly one for each context: batch shape ``[*batch]``, event size D."""

    @abstractmethod
    def color(self, noise: Tensor) -> Tensor:
        """S ε for ε ``[*batch, D]``."""

    @abstractmethod
    def whiten(self, residual: Tensor) -> Tensor:
        """S⁻¹ r for r ``[*batch, D]``."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """log det S, O(D): shape ``[*batch]``."""

    def log_std(self) -> Tensor:
        """log σ of every feature ``[*batch, D]``, where S is diagonal, so that features are independent."""
        raise TypeError(f"{type(self).__name__} mixes features, which are not independent")

    @abstractmethod
    def dense(self) -> Tensor:
        """S as a matrix ``[*batch, D, D]``."""

    def variance(self) -> Tensor:
        """σ² of every feature, the diagonal of Σ ``[*batch, D]``."""
        return self.dense().square().sum(-1)

    def whitened_square(self, other: Scale) -> Tensor:
        """‖S⁻¹ S′‖² (Frobenius) = tr(Σ⁻¹ Σ′) for another scale S′: shape ``[*batch]``."""
        return torch.linalg.solve_triangular(self.dense(), other.dense(), upper=False).square().sum((-2, -1))


class DiagonalScale(Scale):
    """A diagonal square root S = diag(std), std ``[*batch, D]``. Everything is O(D).

    Args:
        std: σ of every feature.
        log_std: log σ, where it is known.
    """

    def __init__(self, std: Tensor, log_std: Tensor | None = None) -> None:
        self.std = std
        self._log_std = log_std

    def color(self, noise: Tensor) -> Tensor:
        return noise * self.std

    def whiten(self, residual: Tensor) -> Tensor:
        return residual / self.std

    def log_det(self) -> Tensor:
        return self.log_std().sum(-1)

    def log_std(self) -> Tensor:
        return self.std.log() if self._log_std is None else self._log_std

    def variance(self) -> Tensor:
        return self.std.square()

    def dense(self) -> Tensor:
        return torch.diag_embed(self.std)

    def whitened_square(self, other: Scale) -> Tensor:
        if isinstance(other, DiagonalScale):
            return (other.std / self.std).square().sum(-1)
        return (other.dense() / self.std.unsqueeze(-1)).square().sum((-2, -1))


class TriangularScale(Scale):
    """A lower triangular square root S = L ``[*batch, D, D]``, positive diagonal. Colouring and whitening are O(D²)."""

    def __init__(self, factor: Tensor) -> None:
        self.factor = factor

    def color(self, noise: Tensor) -> Tensor:
        if self.factor.ndim == 2:
            return noise @ self.factor.mT
        return (self.factor @ noise.unsqueeze(-1)).squeeze(-1)

    def whiten(self, residual: Tensor) -> Tensor:
        if self.factor.ndim == 2:  # one factor for all points: they are the right-hand sides of one solve
            rows = residual.reshape(-1, residual.shape[-1])
            return torch.linalg.solve_triangular(self.factor.mT, rows, upper=True, left=False).reshape(residual.shape)
        return torch.linalg.solve_triangular(self.factor, residual.unsqueeze(-1), upper=False).squeeze(-1)

    def log_det(self) -> Tensor:
        return self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def dense(self) -> Tensor:
        return self.factor
