"""Rows drawn from data in chunks, to start from."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from density.data.rows import Rows

MOST = 2**16
MOST_FOR_A_COMPONENT = 2**6


def sample(rows: Rows, n: int, components: int, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
    """Rows to start from, with their weights: a tensor as it is, and of longer data in chunks 2¹⁶ rows.

    They are drawn without replacement in one pass, each row alike whatever its weight: every row is given a uniform
    number, and the rows with the smallest numbers are kept. O(nD), and memory for the rows that are kept.
    """
    if rows.whole is not None:
        return rows.whole, rows.weights
    most = max(MOST, MOST_FOR_A_COMPONENT * components)
    if n <= most:
        parts = list(rows.pairs())
        x = torch.cat([part for part, _ in parts])
        return x, None if parts[0][1] is None else torch.cat([w for _, w in parts if w is not None])
    kept = rows.like[:0]
    weights: Tensor | None = None
    keys = torch.empty(0, dtype=torch.float64, device=kept.device)
    for part, own in rows.pairs():
        drawn = torch.rand(part.shape[0], generator=generator, dtype=keys.dtype, device=keys.device)
        if keys.shape[0] == most:
            candidates = (drawn < keys.amax()).nonzero().squeeze(1)
        else:
            candidates = torch.arange(part.shape[0], device=keys.device)
        keys = torch.cat([keys, drawn[candidates]])
        keys, index = keys.topk(min(most, keys.shape[0]), largest=False, sorted=False)
        kept = torch.cat([kept, part[candidates]])[index]
        if own is not None:
            own = own[candidates]
            weights = (own if weights is None else torch.cat([weights, own]))[index]
    return kept, weights
