"""Gaussians whose mean, and perhaps variance, a network computes from the context."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.conditional import Conditional, network_output
from density.families.gaussian import GaussianFamily
from density.families.scale import DiagonalScale, Scale
from density.rebuildable import Rebuildable


class ConditionalGaussian(Conditional, GaussianFamily):
    """N(μ(c), diag σ²(c)) with μ from a network: the usual encoder, and decoder of continuous data.

    Args:
        network: maps ``[*batch, C]`` to ``[*batch, D]``, or to ``[*batch, 2D]`` (mean, then raw log σ) with
            :class:`NetworkScale`.
        features: D.
        context_features: C.
        scale: where σ comes from: :class:`FixedScale`, :class:`GlobalScale`, :class:`PerFeatureScale` or
            :class:`NetworkScale`.

    >>> encoder = ConditionalGaussian(nn.Linear(5, 4), features=2, context_features=5, scale=NetworkScale())
    >>> encoder.sample(7, context=torch.zeros(3, 5)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self, network: nn.Module, features: int, context_features: int, scale: ScaleModel | None = None
    ) -> None:
        super().__init__(network, features, context_features)
        self.scale = NetworkScale() if scale is None else scale

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        owner = f"{type(self).__name__} of {self.features} features with {type(self.scale).__name__}"
        output = network_output(self.network, context, self.scale.outputs * self.features, owner)
        mean, raw = output[..., : self.features], output[..., self.features :]
        return mean, DiagonalScale(self.scale(raw, mean))


class ScaleModel(Rebuildable, nn.Module, ABC):
    """A model of the standard deviation of a :class:`ConditionalGaussian`.

    Attributes:
        outputs: how many numbers the network returns for each feature, 1 or 2.
    """

    outputs: int = 1

    @abstractmethod
    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        """σ, broadcastable to the mean's ``[*batch, D]``."""


class FixedScale(ScaleModel):
    """A given constant σ: then log p(x|z) is a scaled squared error plus a constant."""

    def __init__(self, std: float = 1.0) -> None:
        super().__init__()
        _log_std(std)
        self.std = std  # a Python float: no dtype rounds it

    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        return mean.new_tensor(self.std).expand_as(mean)


class GlobalScale(ScaleModel):
    """One learnable σ for all features, as in PPCA."""

    def __init__(self, std: float = 1.0) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.tensor(_log_std(std)))

    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        return self.log_std.exp().expand_as(mean)


class PerFeatureScale(ScaleModel):
    """One learnable σ for each feature, as in factor analysis."""

    def __init__(self, features: int, std: float = 1.0) -> None:
        super().__init__()
        check_count(features, "features")
        self.log_std = nn.Parameter(torch.full((features,), _log_std(std)))

    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        return self.log_std.exp().expand_as(mean)


class NetworkScale(ScaleModel):
    """A second output of the network as log σ, bounded smoothly: b·tanh(raw / b), so that σ ∈ (e⁻ᵇ, eᵇ).

    Without a bound a decoder's likelihood can grow without limit around single points.
    """

    outputs = 2

    def __init__(self, bound: float = 7.0) -> None:
        super().__init__()
        if not (math.isfinite(bound) and bound > 0):
            raise ValueError(f"bound must be positive and finite; got {bound}")
        self.bound = bound

    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        return (self.bound * torch.tanh(raw / self.bound)).exp()


def _log_std(std: float) -> float:
    if not (math.isfinite(std) and std > 0):
        raise ValueError(f"std must be positive and finite; got {std}")
    return math.log(std)
