"""The Bernoulli likelihood of binary data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from density.contract import Density
from density.families.bernoulli import ConditionalBernoulli
from density.families.likelihoods.exponential import ExponentialFamily, logarithm
from density.measure import Measure


@dataclass(frozen=True)
class BernoulliLikelihood(ExponentialFamily):
    """Bits with a log-odds each, a :class:`~density.families.bernoulli.ConditionalBernoulli`.

    >>> BernoulliLikelihood().conditional(nn.Linear(2, 64), features=64, context_features=2).measure
    <Measure.COUNTING: 'counting'>
    """

    measure = Measure.COUNTING
    vague = 0.5
    numbers = 1

    def conditional(self, network: nn.Module, features: int, context_features: int) -> Density:
        return ConditionalBernoulli(network, features, context_features)

    def statistics(self, x: Tensor) -> Tensor:
        return x

    def maximum(self, mean: Tensor, variance: Tensor | None = None) -> Tensor:
        return logarithm(mean) - logarithm(1 - mean)

    def variance(self, numbers: Tensor) -> Tensor:
        return numbers.sigmoid() * (-numbers).sigmoid()
