"""Gaussians whose mean, and perhaps variance, a network computes from the context."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.bounded import bounded, check_bound
from density.families.conditional import Conditional
from density.families.gaussian import GaussianFamily
from density.families.network import network_output
from density.families.scale import DiagonalScale, Scale
from density.rebuildable import Rebuildable


class ConditionalGaussian(Conditional, GaussianFamily):
    """N(μ(c), diag σ²(c)) with μ from a network: the usual encoder, and decoder of continuous data.

    Args:
        network: any module that maps rows ``[n, C]`` to means ``[n, D]``; with :class:`NetworkScale` to ``[n, 2D]``,
            means and then raw log σ, or to a pair (mean, log-variance) of ``[n, D]`` each, of which ½ log-variance is
            raw. Instead of ``[n, D]`` it may return n events of D numbers, such as images. It sees contexts of any
            batch shape as rows.
        features: D.
        context_features: C.
        scale: where σ comes from: :class:`FixedScale`, :class:`GlobalScale`, :class:`PerFeatureScale` or
            :class:`NetworkScale`, the default, which bounds |log σ| by 7. A network that was trained without a bound
            keeps its meaning with ``scale=NetworkScale(bound=None)``.

    Raises:
        ValueError: on a call, if the network returns anything else.

    >>> encoder = ConditionalGaussian(nn.Linear(5, 4), features=2, context_features=5, scale=NetworkScale())
    >>> encoder.sample(7, context=torch.zeros(3, 5)).shape
    torch.Size([7, 3, 2])

    A convolutional decoder of images of 8 × 8 pixels:

    >>> upwards = nn.Sequential(
    ...     nn.Linear(2, 32), nn.Unflatten(-1, (8, 2, 2)), nn.ConvTranspose2d(8, 4, 2, stride=2), nn.SiLU(),
    ...     nn.ConvTranspose2d(4, 1, 2, stride=2),
    ... )
    >>> decoder = ConditionalGaussian(upwards, features=64, context_features=2, scale=PerFeatureScale(64))
    >>> decoder.log_prob(torch.zeros(3, 64), context=torch.zeros(7, 3, 2)).shape
    torch.Size([7, 3])
    """

    factorises = True

    def __init__(
        self, network: nn.Module, features: int, context_features: int, scale: ScaleModel | None = None
    ) -> None:
        super().__init__(network, features, context_features)
        self.scale = NetworkScale() if scale is None else scale

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        scale, owner = self.scale, f"{type(self).__name__} with {type(self.scale).__name__}"
        numbers = "means" if scale.outputs == 1 else "means and then raw log σ"
        pair = _joined if isinstance(scale, NetworkScale) else None
        output = network_output(self.network, context, scale.outputs * self.features, owner, numbers, pair)
        mean, raw = output.split_with_sizes([self.features, (scale.outputs - 1) * self.features], -1)
        if not isinstance(scale, LogScale) or type(scale).forward is not LogScale.forward:
            return mean, DiagonalScale(scale(raw, mean))
        log_std = scale.log_std_at(raw, mean)
        return mean, DiagonalScale(log_std.exp(), log_std)


class ScaleModel(Rebuildable, nn.Module, ABC):
    """A model of the standard deviation of a :class:`ConditionalGaussian`.

    Attributes:
        outputs: how many numbers the network returns for each feature, 1 or 2.

    >>> [model.outputs for model in (FixedScale(), GlobalScale(), PerFeatureScale(3), NetworkScale())]
    [1, 1, 1, 2]
    """

    outputs: int = 1

    @abstractmethod
    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        """σ, broadcastable to the mean's ``[*batch, D]``."""


class LogScale(ScaleModel, ABC):
    """A model of log σ, so that no logarithm is taken of its exponential.

    >>> issubclass(NetworkScale, LogScale), issubclass(FixedScale, LogScale)
    (True, False)
    """

    @abstractmethod
    def log_std_at(self, raw: Tensor, mean: Tensor) -> Tensor:
        """log σ, broadcastable to the mean's ``[*batch, D]``."""

    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        return self.log_std_at(raw, mean).exp()


class FixedScale(ScaleModel):
    """A given constant σ: then log p(x|z) is a scaled squared error plus a constant.

    >>> density = ConditionalGaussian(nn.Linear(2, 3), 3, 2, FixedScale(0.5))
    >>> density.at(torch.zeros(2))[1].std.tolist()
    [0.5, 0.5, 0.5]
    """

    def __init__(self, std: float = 1.0) -> None:
        super().__init__()
        _log_std(std)
        self.std = std  # a Python float: no dtype rounds it

    def forward(self, raw: Tensor, mean: Tensor) -> Tensor:
        return mean.new_full((), self.std).expand_as(mean)


class GlobalScale(LogScale):
    """One learnable σ for all features, as in PPCA.

    >>> density = ConditionalGaussian(nn.Linear(2, 3), 3, 2, GlobalScale())
    >>> [parameter.numel() for parameter in density.scale.parameters()]
    [1]
    """

    def __init__(self, std: float = 1.0) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.tensor(_log_std(std)))

    def log_std_at(self, raw: Tensor, mean: Tensor) -> Tensor:
        return self.log_std.expand_as(mean)


class PerFeatureScale(LogScale):
    """One learnable σ for each feature, as in factor analysis.

    >>> density = ConditionalGaussian(nn.Linear(2, 3), 3, 2, PerFeatureScale(3))
    >>> [parameter.numel() for parameter in density.scale.parameters()]
    [3]
    """

    def __init__(self, features: int, std: float = 1.0) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.log_std = nn.Parameter(torch.full((features,), _log_std(std)))

    def log_std_at(self, raw: Tensor, mean: Tensor) -> Tensor:
        return self.log_std.expand_as(mean)


class NetworkScale(LogScale):
    """A second output of the network as log σ, bounded smoothly: σ = s · exp(b·tanh(raw / b)), between s e⁻ᵇ and s eᵇ.

    Without a bound a decoder's likelihood can grow without limit around single points. Near 0 the bound is not felt;
    at |raw| = b/2 it takes 8 % of raw away, so that a network trained without it, or with another, means another σ.

    Args:
        bound: b; None for none, σ = s · exp(raw).
        std: s, which σ is near at the start, while raw is near 0. A decoder that starts at less than its data's spread
            must use its latent at once, and does not settle for the wide σ that explains data without one.

    Raises:
        ValueError: the bound, or std, is not positive and finite.

    >>> raw = torch.tensor([0.5, 7.0])
    >>> NetworkScale()(raw, raw).log(), NetworkScale(bound=None)(raw, raw).log()
    (tensor([0.4992, 5.3311]), tensor([0.5000, 7.0000]))
    """

    outputs = 2

    def __init__(self, bound: float | None = 7.0, std: float = 1.0) -> None:
        super().__init__()
        check_bound(bound, type(self).__name__, "bound")
        self.bound = bound
        _log_std(std)
        self.std = std

    def log_std_at(self, raw: Tensor, mean: Tensor) -> Tensor:
        log_std = bounded(raw, self.bound)
        return log_std if self.std == 1 else log_std + math.log(self.std)


def _joined(mean: Tensor, log_variance: Tensor) -> Tensor:
    return torch.cat([mean, 0.5 * log_variance], -1)


def _log_std(std: float) -> float:
    if not (math.isfinite(std) and std > 0):
        raise ValueError(f"std must be positive and finite; got {std}")
    return math.log(std)
