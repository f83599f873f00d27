"""Counts with more zeros than their family has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from density.checks import in_words
from density.families.counts.counts import Counts
from density.families.counts.negative_binomial import NegativeBinomial
from density.families.counts.poisson import Poisson
from density.families.noise import uniform_noise

FEWEST = 0.01  # share of excess zeros at the start


@dataclass(frozen=True)
class ZeroInflated(Counts):
    r"""A family of counts of which a share π are zeros beside the family's own (Lambert 1992).

    .. math:: P(0) = π + (1 - π) P_0(0), \qquad P(x) = (1 - π) P_0(x) \quad (x > 0)

    One number more than the family's, the first: logit π. It starts at half of the data's zeros.

    Attributes:
        family: Poisson or NegativeBinomial.

    Raises:
        TypeError: the family is another one.

    >>> from density.families.likelihoods.univariate import Independent
    >>> zeros = Independent(1, ZeroInflated(NegativeBinomial()))
    >>> zeros.log_prob(torch.zeros(1)).exp()  # ½ + ½ · ½ before a fit
    tensor(0.7500, grad_fn=<ExpBackward0>)
    """

    family: Poisson | NegativeBinomial
    names = "logits of the share of zeros, then the family's numbers"

    def __post_init__(self) -> None:
        if not isinstance(self.family, Poisson | NegativeBinomial):
            raise TypeError(f"ZeroInflated takes Poisson() or NegativeBinomial(); got {in_words(self.family)}")

    @property
    def numbers(self) -> int:
        return 1 + self.family.numbers

    @property
    def log_scales(self) -> int:
        return self.family.log_scales

    @property
    def from_data(self) -> bool:  # type: ignore[override]
        return self.family.from_data

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        logit, rest = parameters[..., 0, :], parameters[..., 1:, :]
        counted = functional.logsigmoid(-logit) + self.family.log_prob(x, rest)
        return torch.where(x == 0, torch.logaddexp(functional.logsigmoid(logit).expand_as(counted), counted), counted)

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        logit = parameters[..., 0, :].detach()
        excess = uniform_noise(n, logit, generator) < logit.sigmoid()
        return self.family.sample(n, parameters[..., 1:, :], generator).masked_fill(excess, 0.0)

    def mean(self, parameters: Tensor) -> Tensor:
        return (-parameters[..., 0, :]).sigmoid() * self.family.mean(parameters[..., 1:, :])

    def start(self, x: Tensor) -> Tensor:
        share = (0.5 * (x == 0).to(x.dtype).mean(0)).clamp_min(FEWEST)
        inner = self.family.start(x)
        inner[0] -= torch.log1p(-share)  # the mean of what is no excess zero
        return torch.cat([torch.logit(share).unsqueeze(0), inner])
