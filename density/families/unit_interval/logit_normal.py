"""The logit-normal distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.families.unit_interval.interval import OPEN, UnitInterval, inside
from density.support import Region


@dataclass(frozen=True)
class LogitNormal(UnitInterval):
    r"""The distribution of σ(y) on (0, 1), y ~ N(μ, s²) (Atchison & Shen 1980), for shares and rates.

    .. math:: \log p(x) = \log N(\operatorname{logit} x;\, μ, s^2) - \log x - \log(1 - x)

    Two numbers a feature, μ and log s, this bounded to ±7. Draws are pathwise. Its mean has no closed form; the median
    is σ(μ).

    Cost: O(1) a feature.

    >>> from density.families.likelihoods.univariate import Independent
    >>> Independent(1, LogitNormal()).log_prob(torch.tensor([0.5])).exp()  # 4 / √(2π)
    tensor(1.5958, grad_fn=<ExpBackward0>)
    """

    names = "means and log-deviations of the logits"
    numbers = 2
    log_scales = 1

    @property
    def region(self) -> Region:
        return OPEN

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        mean, log_std = parameters.unbind(-2)
        log_x, log_rest = x.log(), torch.log1p(-x)
        noise = (log_x - log_rest - mean) * (-log_std).exp()
        return -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi) - log_x - log_rest

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        mean, log_std = parameters.unbind(-2)
        noise = torch.randn(n, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return inside((mean + log_std.exp() * noise).sigmoid())

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        log_ratio = q[..., 1, :] - p[..., 1, :]
        distance = (q[..., 0, :] - p[..., 0, :]) * (-p[..., 1, :]).exp()
        return 0.5 * (torch.expm1(2 * log_ratio) + distance.square()) - log_ratio
