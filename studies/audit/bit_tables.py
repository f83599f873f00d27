"""Tables of bits for `audit`: one that is made up, few enough bits for all their states to be counted, and NLTCS."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from studies.data.binary.debd import debd
from studies.kit.seeds import derived_seed

TableName = Literal["questions", "nltcs"]
NAMES = get_args(TableName)

TRAITS = 2


@dataclass(frozen=True, eq=False)
class BitTable:
    """Rows of zeros and ones.

    Attributes:
        name: as the user gave it.
        hash: SHA-256 of all rows and of where they are split.
        train, test: ``[n, D]`` uint8.
    """

    name: str
    hash: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]

    @property
    def features(self) -> int:
        """D."""
        return self.train.shape[1]


def bit_table(name: str, seed: int, directory: Path | None, *, bits: int = 10, rows: int = 2000) -> BitTable:
    """A table by name, with its split.

    - ``questions``: with yes or no for an answer, made by the seed; as many rows to test on as to fit. A yes is a
      normal number above 0, and its mean is linear in two traits of the person, which are normal too.
    - ``nltcs``: 16 disabilities of elderly people (National Long Term Care Survey), with the published rows to fit and
      to test on (Lowd & Davis 2010), from a directory. The published validation rows are left out.

    Args:
        directory: where ``nltcs`` is.
        bits, rows: of each part of ``questions``.

    Raises:
        InputError: there is no such file in the directory, or it is another one.

    >>> table = bit_table("questions", 0, None)
    >>> table.train.shape, table.test.shape, sorted(set(table.test.ravel().tolist()))
    ((2000, 10), (2000, 10), [0, 1])
    """
    train, test = _questions(seed, bits, rows) if name == "questions" else _nltcs(directory)
    shape = repr((train.shape, test.shape)).encode()
    digest = hashlib.sha256(shape + train.tobytes() + test.tobytes()).hexdigest()
    return BitTable(name, digest, train, test)


def _questions(seed: int, bits: int, rows: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(derived_seed(seed, "audit", "questions"))
    loadings = 1.5 * random.normal(size=(TRAITS, bits))
    ease = random.normal(size=bits)
    traits = random.normal(size=(2 * rows, TRAITS))
    answers = (traits @ loadings + ease + random.normal(size=(2 * rows, bits)) > 0).astype(np.uint8)
    return answers[:rows], answers[rows:]


def _nltcs(directory: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    split = debd("nltcs", directory)
    return split.train, split.test
