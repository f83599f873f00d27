"""How networks see data whose range is known: brought to numbers of size 1, without a look at the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.network import InputLayer, with_blanks
from density.rebuildable import Rebuildable


class Recentred(Rebuildable, InputLayer):
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

    def blank(self, like: Tensor) -> Tensor:
        return like.new_full((self.features,), 0.5 * (self.low + self.high))

    def forward(self, x: Tensor) -> Tensor:
        moved = (x[..., : self.features] - self.low) * (2 / (self.high - self.low)) - 1
        return moved if x.shape[-1] == self.features else torch.cat([moved, x[..., self.features :]], -1)


class LogCounts(Rebuildable, InputLayer):
    """The map log(1 + x) of counts, for the first D features; those behind them, of a context, stay.

    >>> LogCounts(1)(torch.tensor([[0.0, 7.0]]))
    tensor([[0., 7.]])
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = check_count(features, "features")

    def blank(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.features)

    def forward(self, x: Tensor) -> Tensor:
        moved = x[..., : self.features].log1p()
        return moved if x.shape[-1] == self.features else torch.cat([moved, x[..., self.features :]], -1)


class Masked(Rebuildable, InputLayer):
    """Points with missing entries, nan, as a network sees them: 0 there, and behind all else which are observed.

    Args:
        features: D; behind them may be a context.
        first: what the network would do first without it, as a likelihood says (``encoder_input``); None for nothing.

    >>> Masked(2, Recentred(2, 0.0, 4.0))(torch.tensor([[4.0, torch.nan]])).tolist()
    [[1.0, 0.0, 1.0, 0.0]]
    """

    def __init__(self, features: int, first: nn.Module | None = None) -> None:
        super().__init__()
        self.features = check_count(features, "features")
        self.first = nn.Identity() if first is None else first

    def blank(self, like: Tensor) -> Tensor:
        return like.new_full((self.features,), torch.nan)

    def forward(self, x: Tensor) -> Tensor:
        observed = ~x[..., : self.features].isnan()
        return torch.cat([self.first(with_blanks(x, self.features, self.first)), observed.to(x.dtype)], -1)
