"""Files of a data directory, found and verified; what is missing or altered is one error that says where to get it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from studies.kit.errors import InputError

VARIABLE = "ELBOGAP_DATA"


@dataclass(frozen=True)
class Place:
    """Where a data set's files are looked for, and where they come from.

    Attributes:
        data: its name.
        directory: the user's, from ``--data-directory`` or the environment; None if there is none.
        source: where to get the files, in words.
    """

    data: str
    directory: Path | None
    source: str

    def find(self, *names: str) -> Path:
        """The first of these files, relative to the directory, that exists.

        Raises:
            InputError: there is no directory, or none of the files in it.
        """
        expected = " or ".join(names)
        if self.directory is None:
            raise InputError(
                f"'{self.data}' is read from a directory of data. Name it with --data-directory DIR or {VARIABLE}=DIR, "
                f"and put {expected} there. Get it from {self.source}"
            )
        for name in names:
            if (self.directory / name).is_file():
                return self.directory / name
        raise InputError(f"'{self.data}' needs {expected} in {self.directory}. Get it from {self.source}")

    def verify(self, path: Path, content: bytes, digest: str, what: str = "content") -> None:
        """Compare the SHA-256 (64 digits) or MD5 (32 digits) of some content with what was published.

        Raises:
            InputError: it differs.
        """
        algorithm = "sha256" if len(digest) == 64 else "md5"
        found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
        if found != digest:
            raise self.unusable(path, f"the {algorithm} of its {what} is {found}, not {digest}")

    def unusable(self, path: Path, reason: object) -> InputError:
        """The error for a file that is there and is not what it should be."""
        return InputError(
            f"'{path}' is cut, altered or another file than '{self.data}' ({reason}). Get it from {self.source}"
        )


def data_directory(chosen: Path | None) -> Path | None:
    """``--data-directory`` if given, else the environment's, else None.

    Raises:
        InputError: it is no directory.
    """
    named = os.environ.get(VARIABLE)
    directory = chosen if chosen is not None else Path(named) if named else None
    if directory is not None and not directory.is_dir():
        raise InputError(f"no directory '{directory}' (--data-directory, or {VARIABLE})")
    return directory
