"""What a source of data hands over, before noise, split and preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.kit.errors import InputError

SHOWN = 20  # columns that an error lists
Numbers = NDArray[Any]  # float64; float32 or uint8 where images would take too much room
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Header:
    """What the columns of a source are called: their numbers in it, from 1, and names where it has some."""

    numbers: tuple[int, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, count: int, names: Sequence[str] = ()) -> Header:
        """All the columns of a source."""
        return cls(tuple(range(1, count + 1)), tuple(names))

    def label(self, column: int) -> str:
        """What to call a column.

        >>> Header.of(2, ("a", "b")).label(1), Header.of(2).label(1)
        ('2 (b)', '2')
        """
        return f"{self.numbers[column]} ({self.names[column]})" if self.names else str(self.numbers[column])

    def short(self, column: int) -> str:
        """What a column may be called on the command line: its name if it is the only one of that name, and one word.

        >>> Header.of(3, ("a", "a", "two words")).short(0), Header.of(1, ("a",)).short(0)
        ('1', 'a')
        """
        alone = bool(self.names) and self.names.count(self.names[column]) == 1 and self.names[column].isidentifier()
        return self.names[column] if alone else str(self.numbers[column])

    def has(self, wanted: str) -> bool:
        """Whether there is a column of that name or number."""
        return wanted in self.names or (wanted.isdecimal() and int(wanted) in self.numbers)

    def find(self, wanted: str, source: str) -> int:
        """The place of a column, from 0, by its name or its number.

        Raises:
            InputError: there is none, or more than one.
        """
        named = [column for column, name in enumerate(self.names) if name == wanted]
        if len(named) == 1:
            return named[0]
        if not named and wanted.isdecimal() and int(wanted) in self.numbers:
            return self.numbers.index(int(wanted))
        count = len(self.numbers)
        shown = ", ".join(map(self.label, range(min(count, SHOWN))))
        many = f"{len(named)} columns" if named else "no column"
        raise InputError(
            f"'{source}' has {many} '{wanted}'; it has {shown}{', ...' if count > SHOWN else ''}. Say which by its "
            "number or its name"
        )

    def kept(self, columns: Sequence[int]) -> Header:
        """Some of the columns, by their places, with the numbers that they have."""
        names = tuple(self.names[column] for column in columns) if self.names else ()
        return Header(tuple(self.numbers[column] for column in columns), names)


@dataclass(frozen=True)
class Column:
    """What one column of a table holds.

    Attributes:
        label: its number from 1 and its name.
        kind: numbers, whole numbers from 0 up, or categories.
        levels: of categories, what the codes 0, 1, … stand for.
    """

    label: str
    kind: Literal["number", "count", "category"]
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Raw:
    """Rows as they are in the source.

    Attributes:
        name: for tables and file names.
        unit: what one row is.
        rows: ``[n, D]``; with a published split, training rows first, then validation, then test.
        published: how many rows of each the published split has; None: the study splits by its seed.
        levels: of pixels, integers 0 … levels − 1; None for continuous data.
        labels: a class of every row, for pictures; no model sees them.
        classes: what the classes are called, in words, where labels count them from 0.
        best: where known, the expected log p(x) of the true density, nats.
        best_error: standard error or tolerance of that number.
        note: what was done to the data, in words.
        header: what the columns are called; None: by their numbers.
        source: of one's own file, which it is and what of it these rows are, in words.
        kinds: what each column holds, of a table of several kinds; else all are numbers.
    """

    name: str
    unit: str
    rows: Numbers
    published: tuple[int, int, int] | None = None
    levels: int | None = None
    labels: NDArray[np.integer[Any]] | None = None
    best: float | None = None
    best_error: float = 0.0
    note: str = ""
    header: Header | None = None
    classes: tuple[str, ...] = ()
    source: str = ""
    kinds: tuple[Column, ...] = ()

    @property
    def columns(self) -> Header:
        """What the columns are called."""
        return self.header or Header.of(self.rows.shape[1])

    @property
    def incomplete(self) -> bool:
        """Whether values are missing, nan."""
        return self.rows.dtype.kind == "f" and bool(np.isnan(self.rows).any())

    def label(self, column: int) -> str:
        """What to call a column, by its number from 1 and its name."""
        return self.columns.label(column)

    def column_and_step(self, wanted: str) -> tuple[int, float | None]:
        """The place of a column, and the width of its levels where ``column=width`` gives one.

        Raises:
            InputError: there is no such column, or the width is no positive number.
        """
        name, equals, text = wanted.rpartition("=")
        if not equals or wanted in self.columns.names:
            return self.columns.find(wanted, self.name), None
        try:
            step = float(text)
        except ValueError:
            step = math.nan
        if not 0 < step < math.inf:
            raise InputError(f"--dequantise {wanted}: the step must be a positive number; got '{text}'")
        return self.columns.find(name, self.name), step
