"""Tables of `binary_tables`: six that others have published numbers for, and one that is made up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from studies.data.binary.debd import DEBD, DebdName, Split, debd
from studies.kit.seeds import derived_seed

TableName = Literal["answers"] | DebdName
ALL = "debd"  # six at once
NAMES = ("answers", *DEBD, ALL)
COLUMNS = 12
TRAITS = 2
ROWS = (2000, 500, 2000)  # to fit, to choose by, to test on


@dataclass(frozen=True, eq=False)
class Answers:
    """What made up a table: a yes is a normal number above 0, whose mean is linear in normal traits of the person.

    Attributes:
        loadings: ``[traits, D]``.
        ease: ``[D]``.
    """

    loadings: NDArray[np.float64]
    ease: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BinaryTable:
    """Rows of zeros and ones.

    Attributes:
        name: of the table.
        hash: SHA-256 of all rows and of where they are split.
        split: rows to fit, to choose by, and to test on.
        truth: how they came about; None of real ones.
    """

    name: str
    hash: str
    split: Split
    truth: Answers | None = None

    @property
    def features(self) -> int:
        """D."""
        return self.split.train.shape[1]


def binary_table(name: str, seed: int, directory: Path | None, *, rows: tuple[int, int, int] = ROWS) -> BinaryTable:
    """A table by name: ``answers``, which the seed makes, or one of DEBD from a directory, with the published split.

    Args:
        directory: of data.
        rows: of answers, to fit, to choose by and to test on.

    Raises:
        InputError: there is no such file in the directory, or it is another one.

    >>> table = binary_table("answers", 0, None)
    >>> table.features, [len(rows) for rows in (table.split.train, table.split.valid, table.split.test)]
    (12, [2000, 500, 2000])
    """
    split, truth = _answers(seed, rows) if name == "answers" else (debd(name, directory), None)
    parts = (split.train, split.valid, split.test)
    shape = repr(tuple(part.shape for part in parts)).encode()
    digest = hashlib.sha256(shape + b"".join(part.tobytes() for part in parts)).hexdigest()
    return BinaryTable(name, digest, split, truth)


def _answers(seed: int, rows: tuple[int, int, int]) -> tuple[Split, Answers]:
    random = np.random.default_rng(derived_seed(seed, "binary_tables", "answers"))
    truth = Answers(1.5 * random.normal(size=(TRAITS, COLUMNS)), random.normal(size=COLUMNS))
    traits = random.normal(size=(sum(rows), TRAITS))
    noise = random.normal(size=(sum(rows), COLUMNS))
    answers = (traits @ truth.loadings + truth.ease + noise > 0).astype(np.uint8)
    return Split(*np.split(answers, np.cumsum(rows)[:-1])), truth
