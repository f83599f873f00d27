"""Rows in blocks of bounded memory: how many of them pass through a model together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS_AT_ONCE = 2**16  # points, or draws of their latents, that pass through the networks together
# On a CPU fewer: activations stay in cache and in memory that is used again; fresh pages cost more than arithmetic.
ROWS_IN_CACHE = 2**12
SCALARS_IN_CACHE = 2**20
# On CUDA as many as take one part in so many of its memory. What a row takes is a guess: networks are of any width.
SHARE = 4
SCALARS_OF_A_ROW = 2**13  # held of it by layers of a network,
SCALARS_OF_A_FEATURE = 2**5  # and by those that are as wide as a point, for each feature


def rows_at_once(x: Tensor) -> int:
    """How many rows like those of x ``[n, D]`` pass through the networks together on its device, without gradients."""
    if x.device.type != "cpu":
        return rows_in_memory(x)
    return max(1, min(ROWS_AT_ONCE, ROWS_IN_CACHE, SCALARS_IN_CACHE // x.shape[-1]))


def rows_in_memory(x: Tensor) -> int:
    """How many rows like those of x ``[n, D]`` a computation holds together, with gradients in the latent too.

    On the CPU 2¹⁶. On CUDA a power of two, by the memory that the device has, so that blocks, and the draws in them,
    are the same from one call to the next; fewer while less than that is free.
    """
    if x.device.type != "cuda":
        return ROWS_AT_ONCE
    free, whole = torch.cuda.mem_get_info(x.device)
    kept = torch.cuda.memory_reserved(x.device) - torch.cuda.memory_allocated(x.device)  # by torch, for us as well
    row = x.element_size() * (SCALARS_OF_A_ROW + SCALARS_OF_A_FEATURE * x.shape[-1])
    fit = min(whole // SHARE, free + kept) // row
    return 2 ** max(0, fit.bit_length() - 1)


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
