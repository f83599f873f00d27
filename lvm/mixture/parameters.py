"""The parameters of a Gaussian mixture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from density.linalg.cholesky import is_symmetric
from lvm.em_parameters import ModelParameters
from lvm.mixture.covariance import CollapsedComponent, Covariance, require_regular


@dataclass(frozen=True, eq=False)
class MixtureParameters(ModelParameters):
    """Weights, means and covariances of K Gaussians, as a mixture stores them: without constraints.

    Attributes:
        structure: of the covariances.
        logits: log π up to a constant, ``[K]``.
        means: μ, ``[K, D]``.
        factor: what the covariances follow from, in the structure's shape.
        fixed: the names of those that stay what they are in a fit.
    """

    names: ClassVar[tuple[str, ...]] = ("logits", "means", "factor")

    structure: Covariance
    logits: Tensor
    means: Tensor
    factor: Tensor
    fixed: frozenset[str] = frozenset()

    @staticmethod
    def of(structure: Covariance, weights: Tensor, means: Tensor, covariances: Tensor) -> MixtureParameters:
        """Those with weights π ``[K]``, means ``[K, D]`` and covariances in the structure's shape.

        Raises:
            CollapsedComponent: a covariance is not positive definite to working precision.
        """
        return MixtureParameters(structure, weights.log(), means, structure.pack(covariances))

    def tensors(self) -> tuple[Tensor, ...]:
        return self.logits, self.means, self.factor

    def having(self, *tensors: Tensor) -> MixtureParameters:
        logits, means, factor = tensors
        return MixtureParameters(self.structure, logits, means, factor, self.fixed)

    def marked(self, regular: Tensor) -> MixtureParameters:
        """The same, where a covariance is not regular, ``[K]`` or one for all, with a factor of nan, which says so."""
        each = regular.reshape(*regular.shape, *[1] * (self.factor.ndim - regular.ndim))
        return self.having(self.logits, self.means, torch.where(each, self.factor, torch.nan))

    def require_regular(self) -> None:
        """Raise CollapsedComponent if a covariance was marked."""
        undefined = self.factor.isnan()
        require_regular(~(undefined.any() if self.structure.shared else undefined.reshape(len(undefined), -1).any(1)))

    @cached_property
    def log_weights(self) -> Tensor:
        """log π, ``[K]``."""
        return self.logits.log_softmax(-1)

    @cached_property
    def weights(self) -> Tensor:
        """π, ``[K]``."""
        return self.log_weights.exp()

    @cached_property
    def root(self) -> Tensor:
        """S_k, with Σ_k = S_k S_kᵀ, in the structure's shape."""
        return self.structure.root(self.factor)

    @cached_property
    def precision(self) -> Tensor:
        """S_k⁻¹, in the structure's shape."""
        return self.structure.inverse(self.root)

    @cached_property
    def covariances(self) -> Tensor:
        """Σ_k, in the structure's shape."""
        return self.structure.square(self.root)

    def of_columns(self, columns: list[int]) -> MixtureParameters:
        """Those of some features alone: the marginal mixture of them."""
        factor = self.structure.pack(self.structure.of_columns(self.covariances, columns))
        return self.having(self.logits, self.means[:, columns], factor)

    @cached_property
    def constant(self) -> Tensor:
        """log π_k − log det S_k − D/2 log 2π, ``[K]``: the log-joint of a component at its mean."""
        features = self.means.shape[1]
        log_det = self.structure.log_det(self.factor, features)
        return self.log_weights - log_det - 0.5 * features * math.log(2 * math.pi)


def checked(
    structure: Covariance, weights: Tensor, means: Tensor, covariances: Tensor, components: int, features: int
) -> MixtureParameters:
    """Parameters that somebody wrote down, in float64, detached.

    Raises:
        ValueError: a shape does not fit, a value is not finite, the weights are no probabilities, or a covariance
            is not symmetric and positive definite.
    """
    for name, value, shape in (
        ("weights", weights, (components,)),
        ("means", means, (components, features)),
        ("covariances", covariances, structure.shape(components, features)),
    ):
        check_shape(name, value, shape)
        if not bool(value.isfinite().all()):
            raise ValueError(f"the given {name} must be finite")
    weights, means, covariances = (t.detach().double() for t in (weights, means, covariances))
    if not bool((weights > 0).all()) or abs(weights.sum().item() - 1) > 1e-5:
        raise ValueError(f"the given weights must be positive with sum 1; got {weights.tolist()}")
    if structure.dense and not is_symmetric(covariances):
        raise ValueError("the given covariances must be symmetric; symmetrise them, (S + S.mT) / 2")
    try:
        return MixtureParameters.of(structure, weights / weights.sum(), means, covariances)
    except CollapsedComponent as error:
        raise ValueError("the given covariances must be positive definite, with positive variances") from error


def check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a given parameter is a tensor of that shape."""
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the given {name} must be a tensor of shape {list(shape)}; got {got}")
