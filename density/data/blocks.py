"""Rows in blocks of bounded memory: how many of them pass through a model together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS_AT_ONCE = 2**16  # points, or draws of their latents, that pass through the networks together
# On a CPU fewer: activations stay in cache and in memory that is used again; fresh pages cost more than arithmetic.
ROWS_IN_CACHE = 2**12
SCALARS_IN_CACHE = 2**20


def rows_at_once(x: Tensor) -> int:
    """How many rows like those of x ``[n, D]`` pass through the networks together on its device."""
    if x.device.type != "cpu":
        return ROWS_AT_ONCE
    return max(1, min(ROWS_AT_ONCE, ROWS_IN_CACHE, SCALARS_IN_CACHE // x.shape[-1]))


def in_blocks(
    function: Callable[[Tensor, Tensor | None], Tensor],
    x: Tensor,
    context: Tensor | None = None,
    most: int | None = None,
) -> Tensor:
    """What a function returns for each row, of rows ``[m, D]`` and contexts ``[m, C]`` called with a block at a time.

    Few rows are one block, and go to the function as they are. More take no more memory than a block.

    Args:
        function: maps rows and contexts to ``[m]``, or ``[m, *]``; rows must not see each other.
        x: ``[n, D]``.
        context: ``[n, C]``; or one context for all rows, or many for one row.
        most: rows of a block; :func:`rows_at_once` if None.

    Returns:
        Shape ``[n]``, or ``[n, *]``.

    >>> in_blocks(lambda rows, _: rows.sum(-1), torch.ones(10_000, 3)).shape
    torch.Size([10000])
    """
    most = rows_at_once(x) if most is None else most
    n = len(x) if context is None or context.ndim < 2 else max(len(x), len(context))
    if n <= most:
        return function(x, context)
    x = x.expand(n, -1)
    if context is None:
        return torch.cat([function(rows, None) for rows in x.split(most)])
    pairs = zip(x.split(most), context.expand(n, -1).split(most), strict=True)
    return torch.cat([function(rows, given) for rows, given in pairs])
