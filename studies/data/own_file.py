"""One's own data: a table of numbers in a .csv, .tsv, .npy or .npz file, one row a point."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies.data.raw import Array, Raw
from studies.kit.errors import InputError, warn

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".npy", ".npz")
MISSING = ("", "nan", "na", "n/a", "null", "none")
NAMES_OF_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def own_file(path: Path) -> Raw:
    """Read a table.

    A .csv is separated by commas, a .tsv by tabs; a first line that has a word in it holds names. Of several arrays in
    an .npz the one called ``x`` is read.

    Raises:
        InputError: there is no such file, or something in it is no finite number; the message names line and column.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'")
    try:
        rows, names = _read_text(path) if path.suffix in SEPARATORS else (_read_numpy(path), ())
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read '{path}': {error}") from error
    _warn_of_indices(path, rows, _labels(names, rows.shape[1]))
    return Raw(path.stem, "row", rows, names=names)


def _labels(names: Sequence[str], count: int) -> list[str]:
    """What errors call the columns: by their numbers, and names where there are some."""
    return [f"column {n + 1}" + (f" ({names[n]})" if names else "") for n in range(count)]


def _read_text(path: Path) -> tuple[Array, tuple[str, ...]]:
    """Values, and the names of the columns if the first line has them."""
    import pandas as pd

    separator = SEPARATORS[path.suffix]
    lines = _lines_of_equal_length(path, separator)
    # utf-8-sig: spreadsheets begin a file with a mark of byte order, which belongs to no name.
    table = pd.read_csv(
        path, sep=separator, header=None, dtype=str, keep_default_na=False, skip_blank_lines=True, encoding="utf-8-sig"
    )
    numbers = table.apply(pd.to_numeric, errors="coerce")
    names: tuple[str, ...] = ()
    first = zip(numbers.iloc[0].isna(), table.iloc[0], strict=True)
    if any(wordy and not _missing(text) for wordy, text in first):  # the first line holds names
        names = tuple(str(name).strip() for name in table.iloc[0])
        table, numbers, lines = table.iloc[1:], numbers.iloc[1:], lines[1:]
    rows = numbers.to_numpy(np.float64)
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        text = str(table.iat[row, column])
        count = int(bad[:, column].sum())
        if _missing(text):
            problem, remedy = "the value is missing", "Remove or impute such values"
        elif np.isinf(rows[row, column]):
            problem, remedy = f"'{text}' is not finite", "Remove or impute such values"
        else:
            problem, remedy = f"'{text}' is not a number", "Drop the column or encode it as numbers"
        label = _labels(names, rows.shape[1])[column]
        raise InputError(f"'{path}', line {lines[row]}, {label}: {problem} ({count} such in this column). {remedy}")
    return rows, names


def _lines_of_equal_length(path: Path, separator: str) -> list[int]:
    """The numbers of the lines that are not blank; an error where one is longer or shorter than the first."""
    found: list[int] = []
    length = 0
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=separator)
        for values in reader:
            if not values or (len(values) == 1 and not values[0].strip()):
                continue
            if not found:
                length = len(values)
                _check_separator(path, values, separator)
            elif len(values) != length:
                raise InputError(
                    f"'{path}', line {reader.line_num}: {len(values)} values, where line {found[0]} has {length}. "
                    f"Every line must have as many, separated by {NAMES_OF_SEPARATORS[separator]}"
                )
            found.append(reader.line_num)
    if not found:
        raise InputError(f"'{path}' is empty; a table of numbers was expected, one line a point")
    return found


def _check_separator(path: Path, first: Sequence[str], separator: str) -> None:
    others = [other for other in NAMES_OF_SEPARATORS if other != separator and other in first[0]]
    if len(first) == 1 and others:
        advice = "rename it to .tsv" if others[0] == "\t" else f"save it with {NAMES_OF_SEPARATORS[separator]}"
        if others[0] == ";":
            advice += " and decimal points"
        raise InputError(
            f"'{path}' seems to be separated by {NAMES_OF_SEPARATORS[others[0]]}; a {path.suffix} file must be "
            f"separated by {NAMES_OF_SEPARATORS[separator]}. If so, {advice}"
        )


def _missing(text: str) -> bool:
    return text.strip().lower() in MISSING


def _read_numpy(path: Path) -> Array:
    with path.open("rb") as file:  # np.load leaves a broken archive open
        found = np.load(file, allow_pickle=False)
        if path.suffix == ".npy":
            raw = found
        else:
            if len(found) != 1 and "x" not in found:
                raise InputError(f"'{path}' holds the arrays {', '.join(found)}; keep one, or call the data 'x'")
            raw = found["x" if "x" in found else next(iter(found))]
    if raw.dtype.kind not in "fiub":
        raise InputError(f"'{path}' holds {raw.dtype} values; an array of numbers was expected")
    rows = np.asarray(raw, np.float64)
    if rows.ndim != 2:
        raise InputError(f"'{path}' has shape {list(rows.shape)}; a table [rows, columns] was expected")
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        problem = "the value is missing" if np.isnan(rows[row, column]) else f"'{rows[row, column]}' is not finite"
        raise InputError(
            f"'{path}', row {row + 1}, column {column + 1}: {problem} ({int(bad[:, column].sum())} such in this "
            "column). Remove or impute such values"
        )
    return rows


def _warn_of_indices(path: Path, rows: Array, labels: list[str]) -> None:
    """Columns that count the rows."""
    if len(rows) < 3:
        return
    for position in (np.diff(rows, axis=0) == 1).all(0).nonzero()[0]:
        warn(f"'{path}', {labels[position]} counts the rows: an index, not data? If so, drop it")
