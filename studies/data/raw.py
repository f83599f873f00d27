"""What a source of data hands over, before noise, split and preprocessing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.kit.errors import InputError

SHOWN = 20  # columns that an error lists
Numbers = NDArray[Any]  # float64; float32 or uint8 where images would take too much room
Array = NDArray[np.float64]


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
        best: where known, the expected log p(x) of the true density, nats.
        best_error: standard error or tolerance of that number.
        note: what was done to the data, in words.
        names: of the columns, as far as the source has them.
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
    names: tuple[str, ...] = ()

    def label(self, column: int) -> str:
        """What to call a column, by its number from 1 and its name.

        >>> raw = Raw("mine", "row", np.zeros((1, 2)), names=("a", "b"))
        >>> raw.label(1), Raw("pixels", "image", np.zeros((1, 2))).label(1)
        ('2 (b)', '2')
        """
        return f"{column + 1} ({self.names[column]})" if self.names else str(column + 1)

    def column_and_step(self, wanted: str) -> tuple[int, float | None]:
        """A column as in :meth:`column`, and the width of its levels where ``column=width`` gives one.

        Raises:
            InputError: there is no such column, or the width is no positive number.
        """
        name, equals, text = wanted.rpartition("=")
        if not equals or wanted in self.names:
            return self.column(wanted), None
        try:
            step = float(text)
        except ValueError:
            step = math.nan
        if not 0 < step < math.inf:
            raise InputError(f"--dequantise {wanted}: the step must be a positive number; got '{text}'")
        return self.column(name), step

    def column(self, wanted: str) -> int:
        """A column by its name or its number from 1.

        Raises:
            InputError: there is none, or more than one.
        """
        named = [column for column, name in enumerate(self.names) if name == wanted]
        if len(named) == 1:
            return named[0]
        count = self.rows.shape[1]
        if not named and wanted.isdecimal() and 1 <= int(wanted) <= count:
            return int(wanted) - 1
        shown = ", ".join(self.label(column) for column in range(min(count, SHOWN)))
        many = f"{len(named)} columns" if named else "no column"
        raise InputError(
            f"'{self.name}' has {many} '{wanted}'; it has {shown}{', ...' if count > SHOWN else ''}. Say which by its "
            "number or its name"
        )
