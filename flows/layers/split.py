"""Features in two groups: those that pass a coupling and those that it moves."""

from __future__ import annotations

import torch
from torch import Tensor


class Split:
    """Takes both groups out of points by views, and joins them by one copy, where the mask is blocks or stripes.

    Args:
        passed, moved: the features of each group, ascending, together all of them.
    """

    def __init__(self, passed: Tensor, moved: Tensor) -> None:
        features = len(passed) + len(moved)
        self.sizes = [len(passed), len(moved)]
        blocks = torch.arange(features)
        order = [passed.cpu(), moved.cpu()]
        self.moved_last = torch.cat(order).equal(blocks)
        self.moved_first = torch.cat(order[::-1]).equal(blocks)
        slices = [_as_slice(group) for group in order]
        self.slices = slices if None not in slices else None

    def views(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """The rows of x ``[D, n]`` that pass and those that are moved; None where only an index picks them."""
        if self.moved_last:
            passed, moved = torch.split_with_sizes(x, self.sizes)
            return passed, moved
        if self.moved_first:
            moved, passed = torch.split_with_sizes(x, self.sizes[::-1])
            return passed, moved
        return None if self.slices is None else (x[self.slices[0]], x[self.slices[1]])

    def joined(self, passed: Tensor, moved: Tensor) -> Tensor | None:
        """The rows of both groups as x ``[D, n]``; None where they are not two blocks."""
        if self.moved_last:
            return torch.cat([passed, moved])
        return torch.cat([moved, passed]) if self.moved_first else None


def _as_slice(index: Tensor) -> slice | None:
    """The slice that picks the same, or None."""
    if len(index) == 0:
        return slice(0, 0)
    start, stop = int(index[0]), int(index[-1]) + 1
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    return slice(start, stop, step) if index.equal(torch.arange(start, stop, step)) else None
