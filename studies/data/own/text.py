"""Tables in text: .csv, .tsv and .txt, also compressed, with or without names, and with comments after #."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from studies.data.own.sheet import MISSING, Sheet, Words, column_of, number
from studies.data.raw import Array, Header
from studies.kit.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
NAMES_OF_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "blanks"}
COMMENT = "#"


@dataclass
class Lines:
    """The lines of a file that are neither blank nor comments.

    Attributes:
        file: to read.
        number: of the line that was read last, from 1.
        comments: lines that were passed over.
    """

    file: TextIO
    number: int = 0
    comments: int = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            self.number += 1
            if line.lstrip().startswith(COMMENT):
                self.comments += 1
            elif line.strip():
                yield line


def read_text(path: Path, suffix: str) -> Sheet:
    """A table of lines with cells; the first line holds names if it must.

    Raises:
        InputError: it is empty, or its lines are not of one length.
    """
    kind = suffix.removesuffix(".gz")
    # utf-8-sig: spreadsheets begin a file with a mark of byte order, which belongs to no name.
    opened = gzip.open if suffix.endswith(".gz") else open
    with cast(TextIO, opened(path, "rt", newline="", encoding="utf-8-sig")) as file:
        lines = Lines(file)
        cells, numbers = _cells(path, kind, lines)
    if not cells:
        raise InputError(f"'{path}' is empty; a table of numbers was expected, one line a point")
    names: tuple[str, ...] = ()
    if _holds_names(cells):
        names = tuple(name.strip() for name in cells[0])
        cells, numbers = cells[1:], numbers[1:]
    count = len(names or cells[0])
    table: Array = np.empty((len(cells), count))
    words: dict[int, Words] = {}
    for place, column in enumerate(zip(*cells, strict=True)):
        table[:, place], written = column_of(column)
        if written is not None:
            words[place] = written
    return Sheet(path, Header.of(count, names), table, words, numbers, comments=lines.comments)


def _cells(path: Path, kind: str, lines: Lines) -> tuple[list[list[str]], list[int]]:
    """The cells of every line, and the line's number."""
    rest = iter(lines)
    first = next(rest, "")
    separator = SEPARATORS.get(kind) or _separator_in(first)
    every = chain([first] if first else [], rest)
    split = map(str.split, every) if separator == " " else csv.reader(every, delimiter=separator)
    found: list[list[str]] = []
    numbers: list[int] = []
    for cells in split:
        if not found:
            _check_separator(path, kind, cells, separator)
        elif len(cells) != len(found[0]):
            raise InputError(
                f"'{path}', line {lines.number}: {len(cells)} values, where line {numbers[0]} has {len(found[0])}. "
                f"Every line must have as many, separated by {NAMES_OF_SEPARATORS[separator]}"
            )
        found.append(cells)
        numbers.append(lines.number)
    return found, numbers


def _separator_in(line: str) -> str:
    """What separates the cells of a .txt: tabs, semicolons or commas, whichever the line has, else blanks."""
    return next((separator for separator in ("\t", ";", ",") if separator in line), " ")


def _check_separator(path: Path, kind: str, first: Sequence[str], separator: str) -> None:
    others = [other for other in (",", ";", "\t") if other != separator and other in first[0]]
    if len(first) == 1 and others:
        advice = "rename it to .tsv" if others[0] == "\t" else f"save it with {NAMES_OF_SEPARATORS[separator]}"
        if others[0] == ";":
            advice += " and decimal points"
        raise InputError(
            f"'{path}' seems to be separated by {NAMES_OF_SEPARATORS[others[0]]}; a {kind} file must be "
            f"separated by {NAMES_OF_SEPARATORS[separator]}. If so, {advice}"
        )


def _holds_names(cells: Sequence[Sequence[str]]) -> bool:
    """Whether the first line holds names: a word above a column of numbers, or words alone.

    Not every word is a name: a first row may hold a class, in a column where all rows do. And not every name is a
    word: columns may be counted, three or more, above numbers that are no integers.

    >>> _holds_names([["a", "2"], ["1", "3"]]), _holds_names([["1", "cat"], ["2", "dog"]])
    (True, False)
    """
    first, rest = cells[0], cells[1:]
    wordy = [place for place, text in enumerate(first) if not _is_number(text) and not _is_missing(text)]
    if not any(map(_is_number, first)):
        return bool(wordy)
    counted = [[str(place + start) for place in range(len(first))] for start in (0, 1)]
    if len(first) > 2 and list(first) in counted:
        return any(_is_number(text) and not number(text).is_integer() for line in rest[:100] for text in line)
    return any(_mostly_numbers([line[place] for line in rest]) for place in wordy)


def _mostly_numbers(cells: Sequence[str]) -> bool:
    """At least half of those that are not missing."""
    known = [text for text in cells if not _is_missing(text)]
    return 2 * sum(map(_is_number, known)) >= len(known)


def _is_number(text: str) -> bool:
    return not np.isnan(number(text))


def _is_missing(text: str) -> bool:
    return text.strip().lower() in MISSING
