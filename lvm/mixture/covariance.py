"""Covariance structures of a Gaussian mixture: full, tied, diagonal, spherical.

Their shapes, and the free numbers in them, of 3 components in 4 dimensions:

>>> for structure in (Full(), Tied(), Diagonal(), Spherical()):
...     print(type(structure).__name__, structure.shape(3, 4), structure.parameter_count(3, 4))
Full (3, 4, 4) 30
Tied (4, 4) 10
Diagonal (3, 4) 12
Spherical (3,) 3
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from density.linalg.cholesky import pack_triangular, unpack_triangular
from density.linalg.pairs import count_of_pairs
from density.linalg.spectral_norm import inverse
from lvm.em import Degenerate
from lvm.mixture.features import DiagonalQuadratic, FullQuadratic, Quadratic, SphericalQuadratic, TiedQuadratic


class CollapsedComponent(Degenerate):
    """A component's covariance became singular, so the likelihood has no maximum there.

    Attributes:
        history: what happened until then, where a fit was under way.

    >>> print(CollapsedComponent("component 2 has one row"))
    component 2 has one row
    """

    event = "a component collapsed"


class Covariance(ABC):
    r"""What the K covariances Σ_k = S_k S_kᵀ of a mixture have in common.

    A structure holds no tensors: it says what shape they have and how to compute with them, so one object serves any
    number of models. Covariances, their scatter and the unconstrained ``factor`` that S_k follows from share one shape.
    Residuals x − μ_k are ``[K, n, D]``.

    Attributes:
        dense: whether its covariances are matrices, rather than variances.
        shared: whether all components share one.
        quadratic: the components as linear functions of quadratic features; see :mod:`lvm.mixture.features`.
    """

    dense: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    quadratic: ClassVar[type[Quadratic]]

    @abstractmethod
    def shape(self, components: int, features: int) -> tuple[int, ...]:
        """Shape of the covariances, of their scatter and of the factor."""

    @abstractmethod
    def parameter_count(self, components: int, features: int) -> int:
        """Free parameters of all covariances together."""

    @abstractmethod
    def scatter(self, residual: Tensor, weight: Tensor) -> Tensor:
        """Σᵢ w_ki r_ki r_kiᵀ as far as the structure needs it, for residuals ``[K, n, D]`` and weights ``[K, n]``."""

    def average(self, scatter: Tensor, count: Tensor, pseudo_rows: float = 0.0) -> Tensor:
        """Maximum-likelihood covariances scatter_k / N_k (N_k > 0), shrunk towards the pooled one by so many rows."""
        if pseudo_rows:
            scatter, count = scatter + pseudo_rows * scatter.sum(0) / count.sum(), count + pseudo_rows
        return scatter / count.reshape(-1, *[1] * (scatter.ndim - 1))

    @abstractmethod
    def add_ridge(self, covariances: Tensor, ridge: Tensor) -> Tensor:
        """Σ_k + diag(ridge) for a ridge ``[D]``."""

    def keep(self, empty: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """The new covariances, except the old ones of the components that are empty, ``[K]``."""
        return torch.where(empty.reshape(-1, *[1] * (new.ndim - 1)), old, new)

    @abstractmethod
    def variances(self, covariances: Tensor) -> Tensor:
        """The diagonals of Σ_k, broadcastable to ``[K, D]``."""

    @abstractmethod
    def of_columns(self, covariances: Tensor, columns: list[int]) -> Tensor:
        """The covariances of some features alone."""

    def pack(self, covariances: Tensor) -> Tensor:
        """The factor of covariances; CollapsedComponent where one is not positive definite to working precision."""
        factor, regular = self.packed(covariances)
        require_regular(regular)
        return factor

    def packed(self, covariances: Tensor, least: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """The factor, and which covariances are regular, their variances above the least: ``[K]``, or one for all."""
        factor, regular = self._pack(covariances, least)
        return factor, regular.all() if self.shared else regular

    @abstractmethod
    def _pack(self, covariances: Tensor, least: Tensor | float) -> tuple[Tensor, Tensor]:
        """The factor, and which covariances have one, broadcastable to ``[K]``."""

    def unpack(self, factor: Tensor) -> Tensor:
        """The covariances of a factor."""
        return self.square(self.root(factor))

    @abstractmethod
    def root(self, factor: Tensor) -> Tensor:
        """S_k of a factor, in the structure's shape."""

    @abstractmethod
    def square(self, root: Tensor) -> Tensor:
        """Σ_k of S_k."""

    @abstractmethod
    def inverse(self, root: Tensor) -> Tensor:
        """S_k⁻¹ of S_k."""

    def precision(self, factor: Tensor) -> Tensor:
        """S_k⁻¹ of a factor, in the structure's shape."""
        return self.inverse(self.root(factor))

    @abstractmethod
    def distance(self, residual: Tensor, precision: Tensor) -> Tensor:
        """‖S_k⁻¹ r‖², ``[K, n]``, for residuals ``[K, n, D]``."""

    @abstractmethod
    def log_det(self, factor: Tensor, features: int) -> Tensor:
        """log det S_k, broadcastable to ``[K]``."""

    @abstractmethod
    def color(self, noise: Tensor, factor: Tensor) -> Tensor:
        """S_k ε for noise ``[K, n, D]``."""

    @abstractmethod
    def quadratic_features(self, features: int) -> int:
        """How many numbers a row has in :meth:`quadratic`."""


@dataclass(frozen=True)
class Full(Covariance):
    """Every component has its own covariance; the factor is ``[K, D, D]``. E- and M-step O(nKD²)."""

    dense = True
    quadratic: ClassVar[type[Quadratic]] = FullQuadratic

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        return (components, features, features)

    def parameter_count(self, components: int, features: int) -> int:
        return components * features * (features + 1) // 2

    def scatter(self, residual: Tensor, weight: Tensor) -> Tensor:
        scaled = residual * weight.sqrt().unsqueeze(-1)
        return scaled.mT @ scaled

    def add_ridge(self, covariances: Tensor, ridge: Tensor) -> Tensor:
        return covariances + torch.diag_embed(ridge)

    def variances(self, covariances: Tensor) -> Tensor:
        return covariances.diagonal(dim1=-2, dim2=-1)

    def of_columns(self, covariances: Tensor, columns: list[int]) -> Tensor:
        return covariances[..., columns, :][..., columns]

    def _pack(self, covariances: Tensor, least: Tensor | float) -> tuple[Tensor, Tensor]:
        factor, info = torch.linalg.cholesky_ex(covariances)
        variances, pivots = self.variances(covariances), factor.diagonal(dim1=-2, dim2=-1).square()
        floor = 10 * covariances.shape[-1] * torch.finfo(covariances.dtype).eps
        left = (pivots > floor * variances) & (variances > least)  # neither holds of what is not finite
        return pack_triangular(factor), (info == 0) & left.all(-1)

    def root(self, factor: Tensor) -> Tensor:
        return unpack_triangular(factor)

    def square(self, root: Tensor) -> Tensor:
        return root @ root.mT

    def inverse(self, root: Tensor) -> Tensor:
        return inverse(root)

    def distance(self, residual: Tensor, precision: Tensor) -> Tensor:
        return (residual @ precision.mT).square().sum(-1)

    def log_det(self, factor: Tensor, features: int) -> Tensor:
        return factor.diagonal(dim1=-2, dim2=-1).sum(-1)

    def color(self, noise: Tensor, factor: Tensor) -> Tensor:
        return noise @ unpack_triangular(factor).mT

    def quadratic_features(self, features: int) -> int:
        return count_of_pairs(features + 1)


@dataclass(frozen=True)
class Tied(Full):
    """All components share one covariance; the factor is ``[D, D]``. E- and M-step O(nKD + nD²)."""

    shared = True
    quadratic = TiedQuadratic

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        return (features, features)

    def parameter_count(self, components: int, features: int) -> int:
        return features * (features + 1) // 2

    def scatter(self, residual: Tensor, weight: Tensor) -> Tensor:
        scaled = (residual * weight.sqrt().unsqueeze(-1)).flatten(0, 1)
        return scaled.mT @ scaled

    def average(self, scatter: Tensor, count: Tensor, pseudo_rows: float = 0.0) -> Tensor:
        return scatter / count.sum()

    def keep(self, empty: Tensor, old: Tensor, new: Tensor) -> Tensor:
        return new

    def log_det(self, factor: Tensor, features: int) -> Tensor:
        return factor.diagonal().sum().unsqueeze(0)

    def quadratic_features(self, features: int) -> int:
        return features + 2


class _Variances(Covariance):
    """Covariances that are variances; the factor holds their log-standard-deviations."""

    def _pack(self, covariances: Tensor, least: Tensor | float) -> tuple[Tensor, Tensor]:
        own = self.variances(covariances)
        return 0.5 * covariances.log(), ((own > least) & (own < torch.inf)).all(-1)

    def root(self, factor: Tensor) -> Tensor:
        return factor.exp()

    def square(self, root: Tensor) -> Tensor:
        return root.square()

    def inverse(self, root: Tensor) -> Tensor:
        return 1 / root


@dataclass(frozen=True)
class Diagonal(_Variances):
    """Σ_k = diag(σ_k²), features independent within a component; the factor is log σ ``[K, D]``. O(nKD)."""

    quadratic = DiagonalQuadratic

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        return (components, features)

    def parameter_count(self, components: int, features: int) -> int:
        return components * features

    def scatter(self, residual: Tensor, weight: Tensor) -> Tensor:
        return (weight.unsqueeze(-2) @ residual.square()).squeeze(-2)

    def add_ridge(self, covariances: Tensor, ridge: Tensor) -> Tensor:
        return covariances + ridge

    def variances(self, covariances: Tensor) -> Tensor:
        return covariances

    def of_columns(self, covariances: Tensor, columns: list[int]) -> Tensor:
        return covariances[:, columns]

    def distance(self, residual: Tensor, precision: Tensor) -> Tensor:
        return (residual * precision.unsqueeze(-2)).square().sum(-1)

    def log_det(self, factor: Tensor, features: int) -> Tensor:
        return factor.sum(-1)

    def color(self, noise: Tensor, factor: Tensor) -> Tensor:
        return noise * factor.exp().unsqueeze(-2)

    def quadratic_features(self, features: int) -> int:
        return 2 * features + 1


@dataclass(frozen=True)
class Spherical(_Variances):
    """Σ_k = σ_k² I; the factor is log σ ``[K]``. Its scatter, and a ridge, are averaged over features. O(nKD)."""

    quadratic = SphericalQuadratic

    def shape(self, components: int, features: int) -> tuple[int, ...]:
        return (components,)

    def parameter_count(self, components: int, features: int) -> int:
        return components

    def scatter(self, residual: Tensor, weight: Tensor) -> Tensor:
        return (weight * residual.square().mean(-1)).sum(-1)

    def add_ridge(self, covariances: Tensor, ridge: Tensor) -> Tensor:
        return covariances + ridge.mean()

    def variances(self, covariances: Tensor) -> Tensor:
        return covariances.unsqueeze(-1)

    def of_columns(self, covariances: Tensor, columns: list[int]) -> Tensor:
        return covariances

    def distance(self, residual: Tensor, precision: Tensor) -> Tensor:
        return (residual * precision[:, None, None]).square().sum(-1)

    def log_det(self, factor: Tensor, features: int) -> Tensor:
        return features * factor

    def color(self, noise: Tensor, factor: Tensor) -> Tensor:
        return noise * factor.exp()[:, None, None]

    def quadratic_features(self, features: int) -> int:
        return features + 2


def require_regular(regular: Tensor, owner: str = "GaussianMixture") -> None:
    """Raise CollapsedComponent unless all covariances are regular, ``[K]`` (or a scalar for a shared one)."""
    if not bool(regular.all()):
        which = "the shared covariance" if regular.ndim == 0 else f"component {int((~regular).nonzero()[0])}"
        raise CollapsedComponent(
            f"{owner}: {which} collapsed onto too few distinct points or a subspace, where the likelihood has "
            "no maximum. Regularise (EM(regularisation=...)), use fewer components or a structure with fewer "
            "parameters (Tied, Diagonal, Spherical), drop constant or linearly dependent columns, or dequantise"
        )
