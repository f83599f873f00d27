"""Codes of categories as a network takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from density.checks import check_count
from density.families.network import InputLayer
from density.rebuildable import Rebuildable


class Indicators(Rebuildable, InputLayer):
    """The indicators ``[*, K·D]`` of codes 0 … K−1: of code 0 in every feature, then of code 1, …; what is behind the D
    features, of a context, stays.

    >>> Indicators(2, 3)(torch.tensor([[0.0, 2.0]])).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """

    def __init__(self, features: int, levels: int) -> None:
        super().__init__()
        self.features = check_count(features, "features")
        self.levels = check_count(levels, "levels")

    def blank(self, like: Tensor) -> Tensor:
        return like.new_full((self.features,), torch.nan)  # no code

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.arange(self.levels, dtype=x.dtype, device=x.device).unsqueeze(-1)
        found = (x[..., : self.features].unsqueeze(-2) == codes).to(x.dtype).flatten(-2)
        return found if x.shape[-1] == self.features else torch.cat([found, x[..., self.features :]], -1)
