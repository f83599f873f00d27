"""The Poisson distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.families.counts.counts import Counts, log_means, poisson_noise
from density.families.likelihoods.exponential import ExponentialFamily, logarithm
from density.families.likelihoods.stirling import poisson_deviance, stirling_error


@dataclass(frozen=True)
class Poisson(Counts, ExponentialFamily):
    r"""The Poisson distribution of counts whose variance is their mean.

    .. math:: \log P(x) = x \log μ - μ - \log x!

    One number a feature, which moves log μ from that of the data's mean by at most 7. Formed as a deviance and what
    Stirling's formula leaves of x!, so that large counts keep their digits (Loader 2000).

    Attributes:
        from_data: False for a number that is log μ as it comes, without a bound.

    Cost: O(1) a feature.

    >>> from density.families.likelihoods.univariate import Independent
    >>> Independent(1, Poisson()).log_prob(torch.tensor([[0.0], [1.0]]))  # of mean 1 before a fit
    tensor([-1., -1.], grad_fn=<SumBackward1>)
    """

    from_data: bool = True
    names = "log-rates"
    vague = 1.0
    numbers = 1

    @property
    def log_scales(self) -> int:
        return int(self.from_data)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        some = x.clamp_min(1.0)
        by_stirling = torch.where(x > 0, stirling_error(some) + 0.5 * (2 * math.pi * some).log(), torch.zeros_like(x))
        return -poisson_deviance(x, parameters.squeeze(-2).exp()) - by_stirling

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        rate = parameters.detach().squeeze(-2).exp()
        return poisson_noise(rate.expand(n, *rate.shape), generator, type(self).__name__)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.squeeze(-2).exp()

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        return poisson_deviance(q.squeeze(-2).exp(), p.squeeze(-2).exp())

    def start(self, x: Tensor) -> Tensor:
        return log_means(x).unsqueeze(0)

    def statistics(self, x: Tensor) -> Tensor:
        return x

    def maximum(self, mean: Tensor, variance: Tensor | None = None) -> Tensor:
        return logarithm(mean)

    def variance(self, numbers: Tensor) -> Tensor:
        return numbers.exp()

    def natural(self) -> Poisson:
        return Poisson(from_data=False)
