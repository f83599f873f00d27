"""Families of real numbers with a location and a scale."""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from density.contract import Density
from density.families.likelihoods.gaussian import START
from density.families.likelihoods.univariate import UnivariateLikelihood
from density.families.noise import uniform_noise
from density.families.rescaled import Rescaled
from density.families.student import student_log_prob, student_noise
from density.initialisation import Standardisation


@dataclass(frozen=True)
class LocationScale(UnivariateLikelihood, ABC):
    """A family of densities of real numbers with a location μ and a scale s, which starts near 0.3.

    Attributes:
        standardise: whether the model takes mean and standard deviation of each feature from the data at its first fit,
            and models the standardised features; log p(x) stays that of x.

    >>> from density import Laplace, LocationScale, LocationScaleT
    >>> [isinstance(family, LocationScale) for family in (Laplace(), LocationScaleT())], Laplace().numbers
    ([True, True], 2)
    """

    standardise: bool = True

    def conditional(self, network: nn.Module, features: int, context_features: int) -> Density:
        density = super().conditional(network, features, context_features)
        return Rescaled(density) if self.standardise else density

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module | None:
        return Standardisation(features + beside) if self.standardise else None


@dataclass(frozen=True)
class Laplace(LocationScale):
    r"""The Laplace distribution, whose log-density is an absolute error.

    .. math:: \log p(x) = -|x - μ| / s - \log 2s

    Two numbers a feature, μ and log s, this bounded to ±7 about log 0.3. Draws are pathwise.

    Cost: O(1) a feature.

    >>> from density.families.likelihoods.univariate import Independent
    >>> Independent(1, Laplace()).log_prob(torch.zeros(1))  # −log 0.6
    tensor(0.5108, grad_fn=<SumBackward1>)
    """

    names = "locations and log-scales"
    numbers = 2
    log_scales = 1

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        location, log_scale = _location_and_log_scale(parameters)
        return -(x - location).abs() * (-log_scale).exp() - log_scale - math.log(2)

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        location, log_scale = _location_and_log_scale(parameters)
        centred = uniform_noise(n, location, generator) - 0.5
        return location - log_scale.exp() * centred.sign() * torch.log1p(-2 * centred.abs())

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0, :]

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        ratio = (q[..., 1, :] - p[..., 1, :]).exp()
        distance = (q[..., 0, :] - p[..., 0, :]).abs() * (-_location_and_log_scale(q)[1]).exp()
        return ratio * (distance + torch.expm1(-distance)) + ratio - 1 - (q[..., 1, :] - p[..., 1, :])


@dataclass(frozen=True)
class LocationScaleT(LocationScale):
    r"""Student's t distribution with a location and a scale, for data with outliers.

    x = μ + s·t, t with ν degrees of freedom, whose log-density falls like (ν + 1) log|x|
    (:class:`~density.families.student.StudentT`). Three numbers a feature: μ, log s, bounded to ±7 about log 0.3, and
    log((ν − 1)/9), bounded to ±7: the mean, which exists for ν > 1, is μ. Draws are pathwise.

    Attributes:
        degrees: ν for all features, which then take two numbers each; None for the third number.

    Raises:
        ValueError: degrees is not above 1 and finite.

    Cost: O(1) a feature.

    >>> LocationScaleT().numbers, LocationScaleT(degrees=4.0).numbers
    (3, 2)
    """

    degrees: float | None = None
    names = "locations, log-scales and perhaps log-degrees of freedom"

    def __post_init__(self) -> None:
        if self.degrees is not None and not 1 < self.degrees < math.inf:
            raise ValueError(f"LocationScaleT expects finite degrees of freedom above 1, or None; got {self.degrees}")

    @property
    def numbers(self) -> int:
        return 3 if self.degrees is None else 2

    @property
    def log_scales(self) -> int:
        return self.numbers - 1

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        location, log_scale = _location_and_log_scale(parameters)
        return student_log_prob((x - location) * (-log_scale).exp(), self._log_degrees(parameters)) - log_scale

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        location, log_scale = _location_and_log_scale(parameters)
        return location + log_scale.exp() * student_noise(n, self._log_degrees(parameters), generator)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0, :]

    def _log_degrees(self, parameters: Tensor) -> Tensor:
        """log ν, ``[*batch, D]``."""
        if self.degrees is None:
            return torch.log1p(9 * parameters[..., 2, :].exp())
        return torch.full_like(parameters[..., 0, :], math.log(self.degrees))


def _location_and_log_scale(parameters: Tensor) -> tuple[Tensor, Tensor]:
    return parameters[..., 0, :], parameters[..., 1, :] + math.log(START)
