"""One's own data: a file, and what of it is fitted, told apart by, and tested on."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.data.own.binary import read_numpy, read_parquet
from studies.data.own.kinds import coded
from studies.data.own.sheet import Sheet
from studies.data.own.text import read_text
from studies.data.raw import SHOWN, Array, Column, Header, Raw
from studies.kit.errors import InputError, warn

TEXTS = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".parquet", ".npy", ".npz")
CLASSES = 0.5  # of the rows: more different values than that are no classes


@dataclass(frozen=True)
class Selection:
    """What of a file is data.

    Attributes:
        label: a column of classes, which is no part of x.
        drop: columns to leave out.
        test: another file with the same columns, whose rows are those to test on; None: they are split off.
        drop_incomplete: leave out rows that miss a value.
        mixed: words are categories and whole numbers counts; else all columns are numbers.
        numbers: columns of whole numbers that are numbers all the same.
    """

    label: str | None = None
    drop: tuple[str, ...] = ()
    test: Path | None = None
    drop_incomplete: bool = False
    mixed: bool = False
    numbers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != WHOLE


WHOLE = Selection()


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one file: numbers ``[n, D]``, labels ``[n]`` where there are some, and what was left out."""

    sheet: Sheet
    header: Header
    rows: Array
    labels: NDArray[Any] | None
    said: tuple[str, ...]
    kinds: tuple[Column, ...] = ()


def suffix_of(name: str) -> str | None:
    """The ending by which a file is known to be a table; None of anything else.

    >>> suffix_of("Mine.CSV.gz"), suffix_of("mine.tar.gz")
    ('.csv.gz', None)
    """
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def own_file(path: Path, selection: Selection = WHOLE, *, incomplete: bool = False) -> Raw:
    """Read a table of one's own.

    Commas separate a .csv, tabs a .tsv; a .txt is separated by what its first line has. Lines that begin with # are
    comments; a first line that has a word above a column of numbers, or no number at all, holds names. Of several
    arrays in an .npz the one called ``x`` is read, and others of one number a row may be the label.

    Args:
        incomplete: whether missing values may stay, as nan.

    Raises:
        InputError: there is no such file, or something in it is no finite number; the message names line and column.
    """
    sheet, published = read(path), None
    if selection.test is None:
        part = _part(sheet, None, selection, incomplete)
        rows, labels, said = part.rows, [part.labels], part.said
    else:
        other = read(selection.test)
        part, test = _part(sheet, other, selection, incomplete), _part(other, sheet, selection, incomplete)
        rows = np.concatenate([part.rows, test.rows[:, _order(part, test)]])
        published = (len(part.rows), 0, len(test.rows))
        labels = [part.labels, test.labels]
        said = (*part.said, ", ".join((f"tested on {selection.test}", *test.said)))
    kinds: NDArray[np.integer[Any]] | None = None
    classes: tuple[str, ...] = ()
    if selection.label is not None:
        kinds, classes = _classes(str(path), selection.label, [each for each in labels if each is not None])
        said = (*said, f"label {selection.label} with {len(classes)} classes")
    name = path.name[: -len(suffix_of(path.name) or "")]
    source = "; ".join((str(path), *said))
    return Raw(
        name, "row", rows, published, labels=kinds, header=part.header, classes=classes, source=source,
        kinds=part.kinds,
    )  # fmt: skip


def _part(sheet: Sheet, other: Sheet | None, selection: Selection, incomplete: bool) -> Part:
    labels, labelling = (None, None) if selection.label is None else sheet.labels(selection.label)
    # A column may be in one of the two files alone, and is then dropped there.
    elsewhere = [wanted for wanted in selection.drop if other is not None and other.header.has(wanted)]
    mine = [wanted for wanted in selection.drop if sheet.header.has(wanted) or wanted not in elsewhere]
    dropped = sorted({sheet.column(wanted) for wanted in mine})
    if labelling in dropped:
        raise InputError(f"--label {selection.label} is among --drop; leave it out there: a label is no part of x")
    chosen = [place for place in range(len(sheet.header.numbers)) if place not in {labelling, *dropped}]
    columns: tuple[Column, ...] = ()
    if not selection.mixed:
        rows = sheet.data(chosen)
    elif other is not None:
        raise InputError("--mixed takes one file, of which a fifth of the rows are tested on: leave out --test")
    else:
        rows, columns = coded(sheet, chosen, selection.numbers)
    said = [f"{len(rows)} rows"]
    if sheet.comments:
        said.append(f"{sheet.comments} line{'s' if sheet.comments > 1 else ''} of comments")
    if dropped:
        said.append(f"dropped columns {', '.join(map(sheet.header.label, dropped))}")
    holes = np.isnan(rows)
    keep = np.ones(len(rows), bool)
    if labels is not None and not (known := _known(labels)).all():
        keep &= known
        said.append(f"{int((~known).sum())} rows without a label dropped")
    if selection.drop_incomplete:
        said.append(f"{int((keep & holes.any(1)).sum())} rows with a missing value dropped")
        keep &= ~holes.any(1)
    elif holes.any() and not incomplete:
        sheet.refuse_missing(chosen)
    elif holes.any():
        said.append(f"{int(holes[keep].sum())} values missing in {int(holes[keep].any(1).sum())} rows")
    header = sheet.header.kept(chosen)
    _warn_of_indices(sheet.path, rows, header)
    return Part(sheet, header, rows[keep], None if labels is None else labels[keep], tuple(said), columns)


def read(path: Path) -> Sheet:
    """The table of a file, by the ending of its name."""
    suffix = suffix_of(path.name)
    if suffix is None:
        raise InputError(f"'{path}' is no table that can be read: its name must end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"no file '{path}'")
    try:
        if suffix == ".parquet":
            return read_parquet(path)
        return read_numpy(path, suffix) if suffix.startswith(".np") else read_text(path, suffix)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, csv.Error) as error:
        raise InputError(f"cannot read '{path}': {error}") from error


def _known(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows have a label."""
    known: NDArray[np.bool_] = labels != "" if labels.dtype.kind == "U" else ~np.isnan(labels)
    return known


def _classes(
    source: str, wanted: str, parts: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.integer[Any]], tuple[str, ...]]:
    """The class of every row of all parts ``[n]``, from 0, and what the classes are called: in order.

    Raises:
        InputError: there are too many of them.
    """
    if any(part.dtype.kind == "U" for part in parts):
        parts = [part if part.dtype.kind == "U" else np.array([f"{value:g}" for value in part]) for part in parts]
    labels = np.concatenate(parts)
    values, kinds = np.unique(labels, return_inverse=True)
    if len(values) > CLASSES * len(labels):
        raise InputError(
            f"'{source}': --label {wanted} has {len(values)} different values in {len(labels)} rows. A label is a "
            "class, which several rows share"
        )
    return kinds.ravel(), tuple(str(value) if values.dtype.kind == "U" else f"{value:g}" for value in values)


def _order(part: Part, test: Part) -> Sequence[int]:
    """The places of the test file's columns in the order of the training file's: by name, where both have names.

    Raises:
        InputError: they do not have the same columns.
    """
    ours, theirs = part.header.names, test.header.names
    if ours == theirs or not (ours and theirs):
        if part.rows.shape[1] != test.rows.shape[1]:
            raise InputError(
                f"'{test.sheet.path}' has {test.rows.shape[1]} columns of data, where '{part.sheet.path}' has "
                f"{part.rows.shape[1]}; the rows to test on need the same columns"
            )
        return range(len(test.header.numbers))
    lacking, further = ([name for name in a if name not in b] for a, b in ((ours, theirs), (theirs, ours)))
    if lacking or further or len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):
        words = [f"has no {', '.join(lacking[:SHOWN])}"] if lacking else []
        words += [f"has {', '.join(further[:SHOWN])} besides"] if further else []
        raise InputError(
            f"'{test.sheet.path}' must have the columns of '{part.sheet.path}', each of one name; it "
            f"{' and '.join(words) or 'has names that are there twice, in another order'}"
        )
    return [theirs.index(name) for name in ours]


def _warn_of_indices(path: Path, rows: Array, header: Header) -> None:
    """Columns that count the rows."""
    if len(rows) < 3:
        return
    for place in (np.diff(rows, axis=0) == 1).all(0).nonzero()[0]:
        warn(
            f"'{path}', column {header.label(place)} counts the rows: an index, not data? If so, "
            f"--drop {header.short(place)}"
        )
