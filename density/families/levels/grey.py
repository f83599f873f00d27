"""Families of masses on L grey levels."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

from torch import Tensor, nn

from density.checks import settle_counts
from density.families.likelihoods.inputs import Recentred
from density.families.likelihoods.univariate import UnivariateLikelihood
from density.measure import Measure
from density.support import Region


@dataclass(frozen=True)
class GreyLevels(UnivariateLikelihood, ABC):
    """A family of masses on the levels 0, 1, …, L−1, which data have as these numbers.

    An encoder sees them as 2x/(L−1) − 1, in [−1, 1].

    Attributes:
        levels: L, at least 2.

    Raises:
        ValueError: levels is not an int, 2 or more.

    >>> import torch
    >>> from density import CategoricalLevels, DiscretisedLogistic, GreyLevels
    >>> [isinstance(family, GreyLevels) for family in (CategoricalLevels(4), DiscretisedLogistic(levels=4))]
    [True, True]
    >>> DiscretisedLogistic(levels=5).encoder_input(2)(torch.tensor([[0.0, 4.0]])).tolist()
    [[-1.0, 1.0]]
    """

    levels: int = 256
    measure = Measure.COUNTING

    def __post_init__(self) -> None:
        settle_counts(self, "levels", prefix=f"{type(self).__name__}: ", least=2)

    @property
    def count(self) -> int:
        return self.levels

    @property
    def region(self) -> Region:
        top = self.levels - 1

        def outside(x: Tensor) -> Tensor:
            return (x < 0) | (x > top) | (x.floor() < x)

        remedy = f"Bring grey values in [0, 1] to levels, ({top} * x).round(), or take a likelihood of real numbers"
        return Region(f"the levels 0 ... {top}, as these numbers", outside, remedy)

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module:
        return Recentred(features, 0.0, self.levels - 1.0)
