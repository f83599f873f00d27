"""The continuous Bernoulli distribution: what a Bernoulli decoder of grey values in [0, 1] is meant to be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.families.bounded import bounded
from density.families.likelihoods.univariate import LOG_SCALE_BOUND
from density.families.noise import uniform_noise
from density.families.unit_interval.interval import CLOSED, UnitInterval
from density.support import Region

STEEPEST = math.exp(LOG_SCALE_BOUND)
BERNOULLI_NUMBERS = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)  # of even index from 2
NEAR = 0.5  # below, closed forms lose digits and the series, whose next term is below 1e-17, does not
NEAR_QUANTILE = 0.01


@dataclass(frozen=True)
class ContinuousBernoulli(UnitInterval):
    r"""The continuous Bernoulli distribution on [0, 1] with log-odds η (Loaiza-Ganem & Cunningham 2019).

    .. math:: p(x) = e^{ηx - A(η)}, \qquad A(η) = \log\frac{e^η - 1}{η}, \quad A(0) = 0

    One number a feature, bounded smoothly to |η| ≤ e⁷: without a bound the density of an exact 0 or 1 would grow
    without limit. A(η) is what the Bernoulli formula at grey values lacks; it is not a constant, so that a decoder that
    is trained without it is a worse one. Near η = 0, where closed forms lose digits, all is by series. Draws are
    pathwise.

    Cost: O(1) a feature.

    >>> from density.families.likelihoods.univariate import Independent
    >>> Independent(2, ContinuousBernoulli()).log_prob(torch.tensor([0.3, 1.0])).item()  # uniform at the start
    0.0
    """

    names = "log-odds"
    numbers = 1

    @property
    def region(self) -> Region:
        return CLOSED

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        eta, near, far = _parted(parameters, NEAR)
        series = torch.zeros_like(eta)
        for k, number in reversed(list(enumerate(BERNOULLI_NUMBERS, start=1))):
            series = near.square() * (number / (2 * k * math.factorial(2 * k)) + series)
        by_series = near * (x - 0.5) - series
        to_the_end = torch.where(eta > 0, 1 - x, x)
        by_formula = far.log() - (-torch.expm1(-far)).log() - far * to_the_end
        return torch.where(eta.abs() < NEAR, by_series, by_formula)

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        """The inverse of the distribution function at uniform u; near η = 0, the cumulants of a bit of chance u."""
        eta, near, far = _parted(parameters, NEAR_QUANTILE)
        u = uniform_noise(n, eta, generator)
        third = 1 - 2 * u
        variance = u * (1 - u)
        fourth = 1 - 6 * variance
        fifth = third * (1 - 12 * variance)
        by_series = u + near * variance * (1 / 2 + near * (third / 6 + near * (fourth / 24 + near * fifth / 120)))
        from_the_end = -torch.log1p(torch.where(eta > 0, 1 - u, u) * torch.expm1(-far)) / far
        by_formula = torch.where(eta > 0, 1 - from_the_end, from_the_end)
        return torch.where(eta.abs() < NEAR_QUANTILE, by_series, by_formula).clamp(0, 1)

    def mean(self, parameters: Tensor) -> Tensor:
        eta, near, far = _parted(parameters, NEAR)
        series = torch.zeros_like(eta)
        for k, number in reversed(list(enumerate(BERNOULLI_NUMBERS, start=1))):
            series = number / math.factorial(2 * k) + near.square() * series
        from_the_end = 1 / far + (-far).exp() / torch.expm1(-far)
        by_formula = torch.where(eta > 0, 1 - from_the_end, from_the_end)
        return torch.where(eta.abs() < NEAR, 0.5 + near * series, by_formula)


def _parted(parameters: Tensor, edge: float) -> tuple[Tensor, Tensor, Tensor]:
    """η ``[*batch, D]``; η where |η| is below an edge, else 0; |η| elsewhere, else 1: so no branch has a nan."""
    eta = bounded(parameters.squeeze(-2), STEEPEST)
    close = eta.abs() < edge
    return eta, eta.masked_fill(~close, 0.0), eta.abs().masked_fill(close, 1.0)
