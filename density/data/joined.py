"""Points with their contexts behind them: one tensor of rows, which can be cut, repeated and paired as points can."""

from __future__ import annotations

import torch
from torch import Tensor


def joined(x: Tensor, context: Tensor | None) -> Tensor:
    """Rows ``[*batch, D + C]`` of points ``[*batch, D]`` and contexts ``[*batch, C]``, whose batch shapes broadcast.

    Without contexts, the points themselves.

    >>> joined(torch.zeros(2, 3), torch.ones(1)).tolist()
    [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    """
    if context is None:
        return x
    if x.shape[:-1] != context.shape[:-1]:
        batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
        x, context = x.expand(*batch, -1), context.expand(*batch, -1)
    return torch.cat([x, context], -1)


def parted(rows: Tensor, features: int) -> tuple[Tensor, Tensor | None]:
    """The points ``[*batch, features]`` of rows, and the contexts behind them; None where there are none.

    >>> x, context = parted(torch.arange(4.0), 3)
    >>> x.tolist(), context.tolist()
    ([0.0, 1.0, 2.0], [3.0])
    """
    if rows.shape[-1] == features:
        return rows, None
    return rows[..., :features], rows[..., features:]
