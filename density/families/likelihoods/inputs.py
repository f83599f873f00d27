"""How networks see data whose range is known: brought to numbers of size 1, without a look at the data."""

from __future__ import annotations

import torch
from torch import Tensor

from density.checks import check_count
from density.families.network import OutOfPlace
from density.rebuildable import Rebuildable


class Recentred(Rebuildable, OutOfPlace):
    """The map of [low, high] onto [−1, 1], for the first D features; those behind them, of a context, stay.

    Raises:
        ValueError: high is not above low.

    >>> Recentred(1, 0.0, 255.0)(torch.tensor([[0.0, 7.0], [255.0, 7.0]]))
    tensor([[-1.,  7.],
            [ 1.,  7.]])
    """

    def __init__(self, features: int, low: float, high: float) -> None:
        super().__init__()
        self.features = check_count(features, "features")
        if not low < high:
            raise ValueError(f"Recentred expects low < high; got {low} and {high}")
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        moved = (x[..., : self.features] - self.low) * (2 / (self.high - self.low)) - 1
        return moved if x.shape[-1] == self.features else torch.cat([moved, x[..., self.features :]], -1)


class LogCounts(Rebuildable, OutOfPlace):
    """The map log(1 + x) of counts, for the first D features; those behind them, of a context, stay.

    >>> LogCounts(1)(torch.tensor([[0.0, 7.0]]))
    tensor([[0., 7.]])
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = check_count(features, "features")

    def forward(self, x: Tensor) -> Tensor:
        moved = x[..., : self.features].log1p()
        return moved if x.shape[-1] == self.features else torch.cat([moved, x[..., self.features :]], -1)
