"""A table as its file has it, before anything of it is chosen: numbers, words, missing values, and where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.data.raw import SHOWN, Array, Header
from studies.kit.errors import InputError

Words = NDArray[np.str_]

MISSING = ("", "nan", "na", "n/a", "null", "none")


@dataclass(frozen=True, eq=False)
class Sheet:
    """Rows and columns of a file.

    Attributes:
        path: of the file.
        header: what its columns are called.
        numbers: ``[n, D]``, nan where a value is missing or is no number.
        words: of every column that holds anything but numbers, its cells as they are written, by the column's place.
        lines: the number of every row in the file.
        unit: what that number counts: lines or rows.
        beside: further arrays ``[n]`` by name, which are no columns of the table.
        comments: lines that were passed over.
    """

    path: Path
    header: Header
    numbers: Array
    words: Mapping[int, Words]
    lines: Sequence[int]
    unit: str = "line"
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    comments: int = 0

    def column(self, wanted: str) -> int:
        """The place of a column, by its name or its number from 1."""
        return self.header.find(wanted, str(self.path))

    def data(self, columns: Sequence[int]) -> Array:
        """The numbers of some columns ``[n, …]``, nan where missing.

        Raises:
            InputError: one of them holds a word or an infinite number; the message names line, column and remedy.
        """
        for column in columns:
            if column in self.words:
                strange = np.isnan(self.numbers[:, column]) & ~missing(self.words[column])
                text = self.words[column][strange.argmax()]
                problem = f"'{text}' is not a number"
                short = self.header.short(column)
                remedy = f"--drop {short} leaves the column out; --label {short} takes it for classes"
                raise self._error(column, strange, problem, remedy)
            infinite = np.isinf(self.numbers[:, column])
            if infinite.any():
                problem = f"'{self.numbers[infinite.argmax(), column]:g}' is not finite"
                remedy = f"Leave its row out; or --drop {self.header.short(column)} leaves the column out"
                raise self._error(column, infinite, problem, remedy)
        return self.numbers[:, list(columns)]

    def labels(self, wanted: str) -> tuple[NDArray[Any], int | None]:
        """What a column, or an array beside the table, says of every row ``[n]``, and the column's place.

        Numbers where it holds nothing else, nan where missing; else words, blank where missing.
        """
        if wanted in self.beside:
            return self.beside[wanted], None
        place = self.column(wanted)
        if place not in self.words:
            return self.numbers[:, place], place
        words = self.words[place]
        return np.where(missing(words), "", np.char.strip(words)), place

    def refuse_missing(self, columns: Sequence[int]) -> None:
        """Raise an error that names the first missing value of some columns, and says what can be done about it.

        Raises:
            InputError: there is one.
        """
        holes = np.isnan(self.numbers[:, list(columns)])
        if not holes.any():
            return
        row, first = map(int, np.argwhere(holes)[0])
        several = [columns[place] for place in np.flatnonzero(holes.any(0)).tolist()]
        named = " ".join(map(self.header.short, several[:SHOWN])) + (" …" if len(several) > SHOWN else "")
        dropped = f", --drop {named} the columns" if len(several) < len(columns) else ""
        rows, n = int(holes.any(1).sum()), len(holes)
        raise InputError(
            f"'{self.path}', {self.unit} {self.lines[row]}, column {self.header.label(columns[first])}: the value is "
            f"missing ({int(holes[:, first].sum())} such in this column), and no model of this study takes missing "
            f"values; PPCA and the mixture of studies.elbo_gap do. --drop-incomplete leaves out the {rows} of {n} rows "
            f"that miss one{dropped}; or impute them"
        )

    def _error(self, column: int, such: NDArray[np.bool_], problem: str, remedy: str) -> InputError:
        line, count = self.lines[int(such.argmax())], int(such.sum())
        return InputError(
            f"'{self.path}', {self.unit} {line}, column {self.header.label(column)}: {problem} ({count} such in this "
            f"column). {remedy}"
        )


def missing(words: Words) -> NDArray[np.bool_]:
    """Which cells ``[n]`` say that there is no value.

    >>> missing(np.array(["1", " N/A ", "", "red"])).tolist()
    [False, True, True, False]
    """
    found: NDArray[np.bool_] = np.isin(np.char.lower(np.char.strip(words)), MISSING)
    return found


def number(text: str) -> float:
    """A cell as a number; nan if it is none.

    >>> number(" 1.5e3 "), number("red"), number("1_000")
    (1500.0, nan, nan)
    """
    try:
        return float("nan") if "_" in text else float(text)
    except ValueError:
        return float("nan")


def column_of(cells: Sequence[str]) -> tuple[Array, Words | None]:
    """The numbers of a column's cells ``[n]``, and the cells as they are if one is neither number nor missing."""
    numbers = np.fromiter(map(number, cells), np.float64, len(cells))
    if not np.isnan(numbers).any():
        return numbers, None
    words = np.array(cells, dtype=np.str_)
    return numbers, words if (np.isnan(numbers) & ~missing(words)).any() else None
