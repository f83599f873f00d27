"""Tables in arrays and columns: .npy, .npz and .parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.data.own.sheet import Sheet, Words, column_of
from studies.data.raw import Array, Header
from studies.kit.errors import InputError


def read_numpy(path: Path, suffix: str) -> Sheet:
    """The array of an .npy, or of an .npz the one called ``x``, or else the only one that is a table.

    Raises:
        InputError: there is none, or it is no table of numbers.
    """
    beside: dict[str, NDArray[Any]] = {}
    with path.open("rb") as file:  # np.load leaves a broken archive open
        found = np.load(file, allow_pickle=False)
        if suffix == ".npy":
            raw = found
        else:
            arrays = {name: found[name] for name in found}
            tables = [name for name, array in arrays.items() if array.ndim == 2]
            chosen = "x" if "x" in arrays else tables[0] if len(tables) == 1 else next(iter(arrays), "")
            if not arrays or (chosen != "x" and len(tables) != 1 and len(arrays) > 1):
                raise InputError(f"'{path}' holds the arrays {', '.join(arrays)}; keep one, or call the data 'x'")
            raw = arrays.pop(chosen)
            beside = {name: _labels(array) for name, array in arrays.items() if _may_label(array, raw)}
    if raw.dtype.kind not in "fiub":
        raise InputError(f"'{path}' holds {raw.dtype} values; an array of numbers was expected")
    rows = np.asarray(raw, np.float64)
    if rows.ndim != 2:
        raise InputError(f"'{path}' has shape {list(rows.shape)}; a table [rows, columns] was expected")
    return Sheet(path, Header.of(rows.shape[1]), rows, {}, range(1, len(rows) + 1), "row", beside)


def _may_label(array: NDArray[Any], table: NDArray[Any]) -> bool:
    """Whether an array has a number or a word for every row of the table."""
    return array.shape == table.shape[:1] and array.dtype.kind in "fiubUS"


def _labels(array: NDArray[Any]) -> NDArray[Any]:
    """In float64, or as words."""
    return array.astype(np.str_ if array.dtype.kind in "US" else np.float64)


def read_parquet(path: Path) -> Sheet:
    """The columns of a .parquet: numbers and truth values as numbers, everything else as words.

    Raises:
        InputError: nothing that is installed reads such files.
    """
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except ImportError as error:
        raise InputError(
            f"reading '{path}' needs pyarrow, which is not installed: pip install pyarrow; or save the table as .csv"
        ) from error
    numbers: Array = np.empty(table.shape)
    words: dict[int, Words] = {}
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
            numbers[:, place] = column.to_numpy(np.float64, na_value=np.nan)
        else:
            cells = ["" if gone else str(cell) for cell, gone in zip(column, column.isna(), strict=True)]
            numbers[:, place], written = column_of(cells)
            if written is not None:
                words[place] = written
    names = tuple(str(name).strip() for name in table.columns)
    return Sheet(path, Header.of(len(names), names), numbers, words, range(1, len(numbers) + 1), "row")
