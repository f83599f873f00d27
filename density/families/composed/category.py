"""Categories: a column of codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from density.families.composed.indicators import Indicators
from density.families.levels.categorical_levels import CategoricalLevels
from density.families.likelihoods.exponential import ExponentialFamily, logarithm
from density.support import Region


@dataclass(frozen=True)
class Category(CategoricalLevels, ExponentialFamily):
    """A column of one of K categories, as codes 0, …, K−1: :class:`CategoricalLevels`, that networks see as indicators.

    Attributes:
        levels: K, also of categories that no row of the data has.

    >>> Category(3).encoder_input(1)(Tensor([[2.0]])).tolist()
    [[0.0, 0.0, 1.0]]
    """

    levels: int = 2

    @property
    def region(self) -> Region:
        remedy = "Code the categories as 0, 1, ..., and give levels= as many as there may be"
        return Region(f"codes of categories, 0 ... {self.levels - 1}", super().region.outside, remedy)

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module:
        return Indicators(features, self.levels)

    @property
    def vague(self) -> float:  # type: ignore[override]  # it follows from the levels
        """1/K."""
        return 1 / self.levels

    @property
    def moments(self) -> int:
        return self.levels

    @property
    def freedom(self) -> int:
        return self.levels - 1

    def statistics(self, x: Tensor) -> Tensor:
        return Indicators(x.shape[-1], self.levels)(x)

    def variance(self, numbers: Tensor) -> Tensor:
        """Of the codes."""
        shares = numbers.unflatten(-1, (self.levels, -1)).softmax(-2)
        codes = torch.arange(self.levels, dtype=numbers.dtype, device=numbers.device).unsqueeze(-1)
        mean = (shares * codes).sum(-2, keepdim=True)
        return (shares * (codes - mean).square()).sum(-2)

    def maximum(self, mean: Tensor, variance: Tensor | None = None) -> Tensor:
        return logarithm(mean)
