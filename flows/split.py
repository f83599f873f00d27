"""Features in two groups: those that pass a coupling and those that it moves."""

from __future__ import annotations

import torch
from torch import Tensor


class Split:
    """Takes both groups out of points and puts them back; by views and one copy where a mask is two blocks.

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

    def take(self, x: Tensor, passed: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of x ``[D, n]`` that pass and those that are moved."""
        if self.moved_last:
            first, second = torch.split_with_sizes(x, self.sizes)
            return first, second
        if self.moved_first:
            second, first = torch.split_with_sizes(x, self.sizes[::-1])
            return first, second
        if self.slices is not None:
            return x[self.slices[0]], x[self.slices[1]]
        return x[passed], x[moved]

    def put(self, x: Tensor, x_passed: Tensor, x_moved: Tensor, moved: Tensor) -> Tensor:
        """x ``[D, n]`` with its moved rows replaced."""
        if self.moved_last:
            return torch.cat([x_passed, x_moved])
        if self.moved_first:
            return torch.cat([x_moved, x_passed])
        return x.index_copy(0, moved, x_moved)


def _as_slice(index: Tensor) -> slice | None:
    """The slice that picks the same, or None."""
    if len(index) == 0:
        return slice(0, 0)
    start, stop = int(index[0]), int(index[-1]) + 1
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    return slice(start, stop, step) if index.equal(torch.arange(start, stop, step)) else None
