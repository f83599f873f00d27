"""The beta distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Generator, Tensor

from density.families.likelihoods.gamma_noise import log_gamma_noise
from density.families.likelihoods.stirling import binomial_deviance, stirling_error
from density.families.unit_interval.interval import OPEN, UnitInterval, inside
from density.support import Region


@dataclass(frozen=True)
class Beta(UnitInterval):
    r"""The beta distribution on (0, 1), for shares and rates.

    .. math:: p(x) = x^{α-1} (1 - x)^{β-1} / B(α, β)

    Two numbers a feature, log α and log β, each bounded to ±7; at 0, where they start, it is uniform. Its logarithm is
    formed from a Kullback-Leibler divergence and what Stirling's formula leaves of B, so that large α and β keep their
    digits. Draws are not reparametrised.

    Cost: O(1) a feature.

    >>> import torch
    >>> from density.families.likelihoods.univariate import Independent
    >>> Independent(1, Beta()).log_prob(torch.tensor([0.3])).abs() < 1e-6
    tensor(True)
    """

    names = "log α and log β"
    numbers = 2
    log_scales = 2

    @property
    def region(self) -> Region:
        return OPEN

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        alpha, beta = parameters.exp().unbind(-2)
        log_alpha, log_beta = parameters.unbind(-2)
        total, rest = alpha + beta, 1 - x
        by_stirling = stirling_error(total) - stirling_error(alpha) - stirling_error(beta)
        width = 0.5 * (log_alpha + log_beta - total.log() - math.log(2 * math.pi))
        return by_stirling + width - binomial_deviance(alpha, beta, x, rest) - x.log() - rest.log()

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        alpha, beta = (log_gamma_noise(n, shape, generator) for shape in parameters.detach().exp().unbind(-2))
        return inside((alpha - beta).sigmoid())

    def mean(self, parameters: Tensor) -> Tensor:
        log_alpha, log_beta = parameters.unbind(-2)
        return (log_alpha - log_beta).sigmoid()
