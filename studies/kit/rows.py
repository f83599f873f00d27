"""Rows of a study in a CSV file that survives being killed, and files that are written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from studies.kit.errors import InputError

Cell = str | int | float | None
Row = dict[str, Cell]


def is_main() -> bool:
    """Whether this process writes and prints: under ``torchrun`` the one of rank 0 alone. (torch is not loaded.)"""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file atomically: whoever reads it sees the old content or the new, never a part.

    Of several processes only the main one writes.
    """
    if not is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class Rows:
    """Rows of a CSV file, each with a key; floats keep every digit.

    A row is appended by one write, then flushed to the disk, so that a kill loses at most the row under way. What a
    kill in the middle of a write leaves, a last line without its end, is dropped when the file is next opened. Of rows
    with equal keys the last counts.

    Args:
        path: of the CSV file; it need not exist.
        key: the columns that name a row.

    Raises:
        InputError: the file is not such a table, or cannot be read.
    """

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self.path = path
        self.key = key
        self.columns: list[str] = []
        self._rows: dict[tuple[str, ...], dict[str, str]] = {}
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        self._load(content)

    def __contains__(self, key: Mapping[str, Cell]) -> bool:
        return self._name(key) in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Mapping[str, str]]:
        """The cells of every row by column, as they are written: empty or absent where there is no value."""
        return iter(self._rows.values())

    def append(self, row: Row) -> None:
        """Add a row and return when it is on the disk. New columns rewrite the file, whole."""
        text = {column: _text(cell) for column, cell in row.items()}
        new = [column for column in text if column not in self.columns]
        self.columns += new
        self._rows[self._name(row)] = text
        if new:
            write_whole(self.path, _lines(self.columns, list(self._rows.values())))
            return
        line = _lines(self.columns, [text], header=False).encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{self.path}: the disk is full; make room and run again, finished rows are kept")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _load(self, content: bytes) -> None:
        whole = content[: content.rfind(b"\n") + 1]
        try:
            lines = list(csv.reader(io.StringIO(whole.decode())))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{self.path} is not a table of rows ({error}); move it away and run again") from error
        if lines:
            self.columns = lines[0]
            if not set(self.key) <= set(self.columns) or any(len(line) != len(self.columns) for line in lines):
                raise InputError(f"{self.path} is not a table of rows of this study; move it away and run again")
            for line in lines[1:]:
                row = dict(zip(self.columns, line, strict=True))
                self._rows[self._name(row)] = row
        if len(whole) < len(content):
            write_whole(self.path, whole)

    def _name(self, row: Mapping[str, Cell]) -> tuple[str, ...]:
        return tuple(_text(row[column]) for column in self.key)


@dataclass(frozen=True)
class Outcome:
    """All rows of a file after a run, those of other settings too, and what the run came upon.

    Attributes:
        rows: of the file.
        hashes: of the data in use; None if it was not loaded.
        failures: what could not be computed, and why.
        new: the number of rows that were computed; None if none was to be.
        refused: tasks that the data is none for, and why.
    """

    rows: Rows
    hashes: frozenset[str] | None = None
    failures: tuple[str, ...] = ()
    new: int | None = None
    refused: tuple[str, ...] = ()


def _lines(columns: list[str], rows: list[dict[str, str]], header: bool = True) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return " ".join(str(cell).split()) if isinstance(cell, str) else repr(cell)
