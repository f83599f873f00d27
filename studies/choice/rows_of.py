"""Rows for `choice`: simulated ones of a known number of components or latents, velocities of galaxies, oil flow."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studies.data.load import load
from studies.kit.seeds import derived_seed

Numbers = NDArray[np.float64]
APART = 3.5  # the least distance of two components' means, of standard deviations between 0.6 and 1

# Of 82 galaxies in the Corona Borealis region, km/s (Postman, Huchra & Geller 1986; Roeder 1990), from memory, with
# the misprint 26690 of the table that R's MASS has; quartiles and mean are those that are printed of it.
VELOCITIES = (
    9172, 9350, 9483, 9558, 9775, 10227, 10406, 16084, 16170, 18419, 18552, 18600, 18927, 19052, 19070, 19330, 19343,
    19349, 19440, 19473, 19529, 19541, 19547, 19663, 19846, 19856, 19863, 19914, 19918, 19973, 19989, 20166, 20175,
    20179, 20196, 20215, 20221, 20415, 20629, 20795, 20821, 20846, 20875, 20986, 21137, 21492, 21701, 21814, 21921,
    21960, 22185, 22209, 22242, 22249, 22314, 22374, 22495, 22746, 22747, 22888, 22914, 23206, 23241, 23263, 23484,
    23538, 23542, 23666, 23706, 23711, 24129, 24285, 24289, 24366, 24717, 24990, 25633, 26690, 26995, 32065, 32789,
    34279,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to choose by.

    Attributes:
        hash: SHA-256 of them.
        train: ``[n, D]``.
        test: ``[m, D]``; None where parts of the rows are held out, each once.
    """

    hash: str
    train: Numbers
    test: Numbers | None


def rows_of(train: Numbers, test: Numbers | None) -> Rows:
    """Rows with their hash."""
    return Rows(hashlib.sha256(train.tobytes() + (b"" if test is None else test.tobytes())).hexdigest(), train, test)


def velocities() -> Rows:
    """The velocities of 82 galaxies, 1,000 km/s.

    >>> rows = velocities().train
    >>> rows.shape, round(float(rows.mean()), 3), np.quantile(rows, [0.25, 0.5, 0.75]).round(3).tolist()
    ((82, 1), 20.828, [19.532, 20.834, 23.133])
    """
    return rows_of(np.array(VELOCITIES, dtype=np.float64)[:, None] / 1000, None)


def oil_flow(seed: int, directory: Path | None) -> Rows:
    """The published rows to fit and to test on."""
    found = load("oil-flow", seed, directory=directory)
    return rows_of(np.asarray(found.train, np.float64), np.asarray(found.test, np.float64))


def simulated(family: str, seed: int, repeat: int, rows: int) -> Rows:
    """As many rows to fit as to judge by, of the truth of a family, which every set draws anew.

    - ``mixture``: four Gaussians in the plane with full covariances.
    - ``ppca``, ``linear-vae``: eight features that are linear in three latents, and noise.
    - ``vae``: six features that a network makes of two latents, and noise.
    """
    random = np.random.default_rng(derived_seed(seed, "choice", family, str(repeat)))
    n = 2 * rows
    if family == "mixture":
        x = _mixture(random, n)
    elif family == "vae":
        hidden = np.tanh(random.normal(size=(n, 2)) @ (1.5 * random.normal(size=(2, 8))) + random.normal(size=8))
        x = hidden @ random.normal(size=(8, 6)) + 0.3 * random.normal(size=(n, 6))
    else:
        loadings = random.normal(size=(3, 8)) * np.array([[1.2], [0.8], [0.5]])
        x = random.normal(size=(n, 3)) @ loadings + 0.7 * random.normal(size=(n, 8))
    return rows_of(x[:rows], x[rows:])


def _mixture(random: np.random.Generator, n: int) -> Numbers:
    means = 3 * random.normal(size=(4, 2))
    while min(np.linalg.norm(means[i] - means[j]) for i in range(4) for j in range(i)) < APART:
        means = 3 * random.normal(size=(4, 2))
    turns = random.uniform(0, np.pi, 4)
    axes = np.stack([np.stack([np.cos(turns), np.sin(turns)], -1), np.stack([-np.sin(turns), np.cos(turns)], -1)], -1)
    factors = axes * random.uniform(0.6, 1.0, (4, 1, 2))
    of = random.choice(4, size=n, p=random.dirichlet(np.full(4, 10.0)))
    return means[of] + np.einsum("nij,nj->ni", factors[of], random.normal(size=(n, 2)))
