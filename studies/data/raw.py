"""What a source of data hands over, before noise, split and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
