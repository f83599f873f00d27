"""Supports: the sets of vectors where a density is not 0, or where a transform is defined.

A value outside is an error where data enters (:meth:`Support.check`), and a log-density of −∞ inside a forward pass,
where nothing may depend on values: one place says, as a tensor, what is outside, and both use it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_AT_ONCE = 2**12


class Support(ABC):
    """A set of vectors. Where one is asked for, None stands for all of ℝᴰ."""

    @abstractmethod
    def check(self, x: Tensor, owner: str, first: int = 0, columns: Sequence[int] | None = None) -> None:
        """Raise ValueError in the name of an owner unless all points ``[*batch, D]`` are inside. O(nD).

        Args:
            first: the number of the first row, which the error counts from.
            columns: what the D columns are called, where they are some of those of a table.
        """


@dataclass(frozen=True, eq=False)
class Region(Support):
    """The vectors that nowhere fail a test: each entry, or each difference of two, has its own.

    Attributes:
        words: what is expected, such as "positive values".
        outside: which entries ``[*batch, k]`` of points ``[*batch, D]`` fail; a nan does not, so that it stays one.
        remedy: what to do.
        entries: what is tested: the entries themselves, or what they are called and how they come about.

    >>> Region("positive values", lambda x: x <= 0, "Shift them").check(torch.tensor([[1.0, -2.0]]), "Log")
    Traceback (most recent call last):
        ...
    ValueError: Log expects positive values; the value at [0, 1] is -2 (1 of 2 are outside). Shift them
    """

    words: str
    outside: Callable[[Tensor], Tensor]
    remedy: str
    entries: tuple[str, Callable[[Tensor], Tensor]] = ("value", lambda x: x)

    def check(self, x: Tensor, owner: str, first: int = 0, columns: Sequence[int] | None = None) -> None:
        outside = self.outside(x)
        if not bool(outside.any()):
            return
        place = outside.nonzero()[0].tolist()
        name, of = self.entries
        value = of(x)[tuple(place)].item()
        place[0] += first
        if columns is not None and outside.shape == x.shape:
            place[-1] = columns[place[-1]]
        raise ValueError(
            f"{owner} expects {self.words}; the {name} at {place} is {value:.6g} "
            f"({int(outside.sum())} of {outside.numel()} are outside). {self.remedy}"
        )

    def vanishing(self, x: Tensor, log_density: Tensor) -> Tensor:
        """A log-density ``[*, *batch]`` or log-ratio as it is at points ``[*batch, D]`` inside, and −∞ elsewhere."""
        return log_density.masked_fill(self.outside(x).any(-1), -math.inf)


class Step(NamedTuple):
    """A part of a composition: its name, the points that it takes, and where it takes them."""

    name: str
    support: Support | None
    map: Callable[[Tensor], Tensor] = lambda x: x


@dataclass(frozen=True, eq=False)
class Preimage(Support):
    """The points that maps, one after the other, take into the support of the next one."""

    steps: Sequence[Step]

    def check(self, x: Tensor, owner: str, first: int = 0, columns: Sequence[int] | None = None) -> None:
        with torch.no_grad():
            for rows in x.reshape(-1, x.shape[-1]).split(ROWS_AT_ONCE):
                self._check(rows, owner, first, columns)
                first += len(rows)

    def _check(self, x: Tensor, owner: str, first: int, columns: Sequence[int] | None) -> None:
        for number, step in enumerate(self.steps):
            if step.support is not None:
                step.support.check(x, f"{owner}: {step.name}", first, columns)
            if number < len(self.steps) - 1:
                x = step.map(x)


def preimage(steps: Sequence[Step]) -> Support | None:
    """The points that a composition takes; None where no part refuses any. Maps after the last such part are not run.

    >>> unit = Region("values below 1", lambda x: x >= 1, "Rescale them")
    >>> halves = preimage([Step("halving", None, lambda x: x / 2), Step("the square root", unit, torch.sqrt)])
    >>> halves.check(torch.tensor([[1.5]]), "the chain")
    >>> preimage([Step("halving", None, lambda x: x / 2)]) is None
    True
    """
    count = len(steps)
    while count and steps[count - 1].support is None:
        count -= 1
    return Preimage(steps[:count]) if count else None
