"""Values that can be counted: the states of columns that have finitely many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Alphabet:
    """The values ``[S, w]`` of w columns that change together: {0, 1} of a bit, K one-hot vectors of K columns.

    Attributes:
        columns: which, from 0.
        values: each once.
    """

    columns: tuple[int, ...]
    values: Tensor

    @staticmethod
    def of_levels(levels: int, features: int, like: Tensor) -> tuple[Alphabet, ...]:
        """0, …, levels − 1 in each of so many columns, in the dtype and on the device of a tensor."""
        values = torch.arange(levels, dtype=like.dtype, device=like.device).unsqueeze(1)
        return tuple(Alphabet((column,), values) for column in range(features))

    def among(self, places: Sequence[int]) -> Alphabet:
        """The same of a density of which this one's column c is column places[c]."""
        return Alphabet(tuple(places[column] for column in self.columns), self.values)


class States:
    """All combinations of the values of several alphabets, those of the last one changing fastest.

    Args:
        alphabets: no two of one column.

    >>> bits = Alphabet.of_levels(2, 2, torch.empty(0))
    >>> states = States(bits)
    >>> states.count, states.columns
    (4, (0, 1))
    >>> states.at(torch.tensor([1, 2])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(self, alphabets: Sequence[Alphabet]) -> None:
        self.alphabets = tuple(alphabets)
        self.count = math.prod(len(alphabet.values) for alphabet in self.alphabets)
        listed = [column for alphabet in self.alphabets for column in alphabet.columns]
        self.columns = tuple(sorted(listed))
        self._order = [listed.index(column) for column in self.columns]

    def at(self, numbers: Tensor) -> Tensor:
        """The states of these numbers ``[m]``, integers below :attr:`count`, in ascending columns: ``[m, w]``."""
        parts: list[Tensor] = []
        for alphabet in reversed(self.alphabets):
            size = len(alphabet.values)
            parts.insert(0, alphabet.values[numbers % size])
            numbers = numbers // size
        columns = torch.cat(parts, 1).unbind(1)
        return torch.stack([columns[place] for place in self._order], 1)

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All states, in blocks ``[≤ size, w]``."""
        device = self.alphabets[0].values.device
        for start in range(0, self.count, size):
            yield self.at(torch.arange(start, min(start + size, self.count), device=device))
