"""The Gaussian likelihood of continuous data."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from density.contract import Density
from density.families.conditional_gaussian import ConditionalGaussian, NetworkScale, ScaleModel
from density.families.likelihoods.exponential import ExponentialFamily
from density.families.rescaled import Rescaled
from density.initialisation import Standardisation

NATURAL = NetworkScale(bound=None)
START = 0.3  # σ of a decoder of standardised data: from 1 a single latent may never come into use


@dataclass(frozen=True)
class GaussianLikelihood(ExponentialFamily):
    """N(μ, σ²) of every feature, a :class:`~density.families.conditional_gaussian.ConditionalGaussian`.

    Attributes:
        scale: where σ comes from; ``NetworkScale(std=0.3)`` if None. Every model has a copy of its own.
        standardise: whether the model takes mean and standard deviation of each feature from the data at its first fit,
            and models the standardised features; log p(x) stays that of x.

    >>> GaussianLikelihood().numbers
    2
    """

    dispersed = True

    scale: ScaleModel | None = None
    standardise: bool = True

    @property
    def numbers(self) -> int:
        return self._scale().outputs

    def conditional(self, network: nn.Module, features: int, context_features: int) -> Density:
        density = ConditionalGaussian(network, features, context_features, deepcopy(self._scale()))
        return Rescaled(density) if self.standardise else density

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module | None:
        return Standardisation(features + beside) if self.standardise else None

    def statistics(self, x: Tensor) -> Tensor:
        return x

    def maximum(self, mean: Tensor, variance: Tensor | None = None) -> Tensor:
        assert variance is not None, "a Gaussian has one"
        return torch.cat([mean, 0.5 * variance.log()], -1)

    def variance(self, numbers: Tensor) -> Tensor:
        return (2 * numbers.chunk(2, -1)[1]).exp()

    def natural(self) -> GaussianLikelihood:
        own = self.scale  # that of a model is a copy, and is known by its settings
        as_it_comes = type(own) is NetworkScale and own.bound is None and own.std == 1
        if own is not None and not as_it_comes:
            raise ValueError("GaussianLikelihood: a σ that is a parameter by itself is not bounded; leave out scale=")
        return GaussianLikelihood(NATURAL, standardise=False)

    def _scale(self) -> ScaleModel:
        return NetworkScale(std=START) if self.scale is None else self.scale
