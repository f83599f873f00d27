"""Lattices clipped to boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


class Lattice:
    """All points origin + B k, k integer, in each of m half-open boxes [low, high).

    B is lower triangular, so the range of k_j in a box is an interval once k_1 … k_{j−1} are chosen, and nothing
    outside the boxes is ever formed. Boxes that touch share no point and miss none. How many lines of points, and how
    many points there are, is all that has to be known of the boxes.

    Args:
        low, high, origin: ``[m, d]``.
        basis: B, ``[m, d, d]``, lower triangular with positive diagonal; nan where there shall be no point.
    """

    def __init__(self, low: Tensor, high: Tensor, origin: Tensor, basis: Tensor) -> None:
        self.low, self.high, self.origin, self.basis = low, high, origin, basis
        box = torch.arange(low.shape[0], device=low.device)
        self._first = self._lines(box, low[:, :0], low[:, :0])

    @staticmethod
    def interlaced(low: Tensor, high: Tensor, origin: Tensor, basis: Tensor) -> Lattice:
        """The boxes twice: with the lattice, and with that which lies half a step along every axis from it."""
        halfway = origin + basis.sum(2) / 2
        return Lattice(low.repeat(2, 1), high.repeat(2, 1), torch.cat([origin, halfway]), basis.repeat(2, 1, 1))

    @property
    def lines(self) -> Tensor:
        """How many values k_1 takes, over all boxes, ``[]``; of one dimension the number of points."""
        return self._first.before[-1]

    def points(self, lines: int, look: Callable[[Tensor], int], at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The box of each point ``[N]`` and the points ``[N, d]``, in blocks of bounded N. O(N d²).

        Args:
            lines: the value of :attr:`lines`.
            look: the value of a number; asked once for every further dimension.
        """
        level, count = self._first, lines
        for _ in range(1, self.low.shape[1]):
            level = self._lines(*level.between(0, count))
            count = look(level.before[-1])
        for start in range(0, count, at_once):
            box, _, points = level.between(start, min(start + at_once, count))
            yield box, points

    def _lines(self, box: Tensor, steps: Tensor, points: Tensor) -> _Lines:
        j = steps.shape[1]
        low, high, offset = (ends[:, j].index_select(0, box) for ends in (self.low, self.high, self.origin))
        basis = self.basis[:, j].index_select(0, box)
        offset, width = offset + (basis[:, :j] * steps).sum(-1), basis[:, j]
        first = ((low - offset) / width).ceil()
        last = ((high - offset) / width).ceil() - 1
        count = (last - first + 1).nan_to_num(nan=0.0).clamp_min(0).long()
        return _Lines(box, steps, points, offset, width, first, torch.cat([count.new_zeros(1), count.cumsum(0)]))


@dataclass(frozen=True, eq=False)
class _Lines:
    """Lines of lattice points along the first axis whose step is not chosen.

    Attributes:
        box, steps, points: of each line ``[L]``, what is chosen.
        offset, width, first: of its points along the axis, ``[L]``.
        before: how many points all lines before have together, ``[L + 1]``.
    """

    box: Tensor
    steps: Tensor
    points: Tensor
    offset: Tensor
    width: Tensor
    first: Tensor
    before: Tensor

    def between(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Box, steps and coordinates of the points start, …, stop − 1, all lines one after the other."""
        line = torch.repeat_interleave(self.before.clamp(start, stop).diff(), output_size=stop - start)
        box, before, chosen, points, offset, width, first = (
            column.index_select(0, line)
            for column in (self.box, self.before, self.steps, self.points, self.offset, self.width, self.first)
        )
        step = first + (torch.arange(start, stop, device=line.device) - before)
        steps = torch.cat([chosen, step.unsqueeze(1)], 1)
        return box, steps, torch.cat([points, (offset + width * step).unsqueeze(1)], 1)
