"""The negative binomial distribution, by mean and dispersion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.families.counts.counts import Counts, log_means, poisson_noise
from density.families.likelihoods.gamma_noise import log_gamma_noise
from density.families.likelihoods.stirling import binomial_deviance, stirling_error

SIZES = (-3.0, 5.0)  # of log r, at the start


@dataclass(frozen=True)
class NegativeBinomial(Counts):
    r"""The negative binomial distribution of counts that vary more than Poisson ones: variance μ + μ²/r.

    .. math:: P(x) = \frac{Γ(x + r)}{Γ(r)\, x!} \Big(\frac{r}{r + μ}\Big)^r \Big(\frac{μ}{r + μ}\Big)^x

    A Poisson distribution whose rate is gamma distributed, with mean μ and size r. Two numbers a feature, which move
    log μ and log r from the data's, by mean and variance, by at most 7. Formed as a deviance and what Stirling's
    formula leaves of Γ, so that large r, where it becomes :class:`~density.families.counts.poisson.Poisson`, keep
    their digits.

    Cost: O(1) a feature.

    >>> from density.families.likelihoods.univariate import Independent
    >>> Independent(1, NegativeBinomial()).log_prob(torch.tensor([[0.0], [1.0]])).exp()  # geometric before a fit
    tensor([0.5000, 0.2500], grad_fn=<ExpBackward0>)
    """

    names = "log-means and log-sizes"
    numbers = 2
    log_scales = 2

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_mean, log_size = parameters.unbind(-2)
        size, some = log_size.exp(), x.clamp_min(1.0)
        p, q = (log_size - log_mean).sigmoid(), (log_mean - log_size).sigmoid()
        by_stirling = (
            stirling_error(size)
            + stirling_error(some)
            - stirling_error(size + some)
            + 0.5 * (math.log(2 * math.pi) + log_size + some.log() - (size + some).log())
        )
        share = torch.log1p(x / size)  # of x draws and r, r are the last
        return -binomial_deviance(size, x, p, q) - share - torch.where(x > 0, by_stirling, torch.zeros_like(x))

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        log_mean, log_size = parameters.detach().unbind(-2)
        log_rate = log_gamma_noise(n, log_size.exp(), generator) + log_mean - log_size
        return poisson_noise(log_rate.exp(), generator, type(self).__name__)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0, :].exp()

    def start(self, x: Tensor) -> Tensor:
        log_mean = log_means(x)
        spread = (x.var(0, correction=0) - x.mean(0)).clamp_min(torch.finfo(x.dtype).tiny)
        return torch.stack([log_mean, (2 * log_mean - spread.log()).clamp(*SIZES)])
