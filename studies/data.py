"""Data for the studies: split, hashed, and in units that log p(x) is reported in."""

from __future__ import annotations

import hashlib
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.errors import InputError
from studies.seeds import derived_seed

Array = NDArray[np.float64]

FEWEST_ROWS = 20
TEST_SHARE = 0.2
TOY_FEATURES, TOY_LATENTS, TOY_NOISE = 8, 3, 0.5


@dataclass(frozen=True)
class Dataset:
    """Rows to fit and rows to judge by, in the coordinates y that the models are fitted in.

    Attributes:
        name: as the user gave it, without folders.
        hash: SHA-256 of the raw values, before noise and split.
        unit: what one row is.
        train, test: y, shapes ``[n, D]``: x itself, or x standardised with the statistics of the training rows.
        log_scale: what to add to log p(y) for log p(x) in the units of the data, −Σ log of the standard deviations.
        note: what was done to the data, in words.
        best: where known, the expected log p(x) of the true density, nats: no model can have more, on average.
    """

    name: str
    hash: str
    unit: str
    train: Array
    test: Array
    log_scale: float
    note: str
    best: float | None = None

    @property
    def features(self) -> int:
        """D."""
        return self.train.shape[1]


def load(name: str, seed: int, *, dequantise: bool = False) -> Dataset:
    """A data set by name, or one's own file, with the split that belongs to a seed.

    - ``digits``: 1797 images of 8 × 8 pixels with values 0 … 16 (scikit-learn), always dequantised: uniform noise on
      [0, 1) is added, log p is in pixel units, and by Jensen's inequality its mean is a lower bound on the log-mass of
      the digits themselves.
    - ``breast-cancer``, ``wine``: continuous tables (scikit-learn).
    - ``toy``: 2000 draws from a known Gaussian in 8 dimensions, whose entropy is known.
    - a path to ``.csv``, ``.npy`` or ``.npz``: one row a point.

    Every set but digits is standardised with training statistics, and log p is reported in the units of the data.

    Args:
        seed: of split and noise; one fifth of the rows are for testing.
        dequantise: add uniform noise on [0, 1) to every value of a file of integers.

    Raises:
        InputError: no such data, or it is unusable; the message names the place and the remedy.
    """
    best = None
    if name in EMBEDDED:
        raw, unit = _embedded(name)
        dequantise = name == "digits"
        if name == "toy":
            best = -_toy_entropy()
    else:
        raw, unit = _read(Path(name)), "row"
    notes = []
    raw, dropped = _checked(raw, name, dequantise)
    if dropped:
        notes.append(f"constant columns dropped: {', '.join(map(str, dropped))}")
    digest = hashlib.sha256(repr(raw.shape).encode() + np.ascontiguousarray(raw).tobytes()).hexdigest()
    if dequantise:
        raw = raw + np.random.default_rng(derived_seed(seed, "dequantise")).random(raw.shape)
        notes.append("dequantised with uniform noise: a lower bound on the log-mass of the integers")
    order = np.random.default_rng(derived_seed(seed, "split")).permutation(len(raw))
    held_out = int(len(raw) * TEST_SHARE)
    test, train = raw[order[:held_out]], raw[order[held_out:]]
    log_scale = 0.0
    if name != "digits":
        mean, std = train.mean(0), train.std(0)
        std = np.where(std > 0, std, 1.0)
        train, test, log_scale = (train - mean) / std, (test - mean) / std, -float(np.log(std).sum())
    short = name if name in EMBEDDED else Path(name).stem
    return Dataset(short, digest, unit, train, test, log_scale, "; ".join(notes), best)


EMBEDDED = ("digits", "breast-cancer", "wine", "toy")


def _embedded(name: str) -> tuple[Array, str]:
    if name == "toy":
        axes, noise = _toy()
        draws = np.random.default_rng(derived_seed(0, "toy data")).standard_normal((2000, TOY_LATENTS + TOY_FEATURES))
        return draws[:, :TOY_LATENTS] @ axes.T + noise * draws[:, TOY_LATENTS:], "point"
    from sklearn import datasets

    loaders = {"digits": datasets.load_digits, "breast-cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}
    return loaders[name]().data.astype(np.float64), {"digits": "image", "breast-cancer": "patient", "wine": "wine"}[
        name
    ]


def _toy() -> tuple[Array, float]:
    axes = np.random.default_rng(derived_seed(0, "toy model")).standard_normal((TOY_FEATURES, TOY_LATENTS))
    return axes, TOY_NOISE


def _toy_entropy() -> float:
    axes, noise = _toy()
    covariance = axes @ axes.T + noise**2 * np.eye(TOY_FEATURES)
    return float(0.5 * (np.linalg.slogdet(covariance)[1] + TOY_FEATURES * math.log(2 * math.pi * math.e)))


def _read(path: Path) -> Array:
    known = f"Name one of {', '.join(EMBEDDED)}, or a .csv, .npy or .npz file"
    if path.suffix not in (".csv", ".npy", ".npz"):
        raise InputError(f"no data called '{path}'. {known}")
    if not path.is_file():
        raise InputError(f"no file '{path}'. {known}")
    try:
        return _read_csv(path) if path.suffix == ".csv" else _read_numpy(path)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read '{path}': {error}") from error


def _read_csv(path: Path) -> Array:
    table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, skip_blank_lines=True)
    numbers = table.apply(pd.to_numeric, errors="coerce")
    names = [f"column {position + 1}" for position in range(table.shape[1])]
    first_line = 1
    words = numbers.iloc[0].isna() & ~_missing(table.iloc[0])
    if bool(words.any()):  # the first line holds names
        names = [f"column {position + 1} ({name})" for position, name in enumerate(table.iloc[0])]
        table, numbers, first_line = table.iloc[1:], numbers.iloc[1:], 2
    for position, name in enumerate(names):
        column, values = table.iloc[:, position], numbers.iloc[:, position]
        bad = values.isna() & ~_missing(column)
        if bool(bad.any()):
            row = int(bad.to_numpy().nonzero()[0][0])
            raise InputError(
                f"'{path}', line {row + first_line}, {name}: '{column.iloc[row]}' is not a number "
                f"({int(bad.sum())} such values in this column). Drop the column or encode it as numbers"
            )
    return numbers.to_numpy(np.float64)


def _missing(column: pd.Series[str]) -> pd.Series[bool]:
    return column.str.strip().str.lower().isin(["", "nan", "na", "n/a", "null", "none"])


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
    return np.asarray(raw, np.float64)


def _checked(raw: Array, name: str, dequantise: bool) -> tuple[Array, list[int]]:
    """Finite, two-dimensional, long enough; and without constant columns, which have no density (numbered from 1)."""
    if raw.ndim != 2:
        raise InputError(f"'{name}' has shape {list(raw.shape)}; a table [rows, columns] was expected")
    if len(raw) < FEWEST_ROWS:
        raise InputError(f"'{name}' has {len(raw)} rows; at least {FEWEST_ROWS} are needed to fit and to test")
    finite = np.isfinite(raw)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise InputError(
            f"'{name}' has a missing or infinite value in data row {row + 1}, column {column + 1} "
            f"({(~finite).sum()} of {raw.size} values). Remove or impute them"
        )
    if dequantise:
        if (raw != np.round(raw)).any():
            raise InputError(f"'{name}' is not a table of integers, so there is nothing to dequantise")
        return raw, []
    constant = (raw == raw[0]).all(0)
    if (~constant).sum() < 2:
        raise InputError(f"'{name}' has {(~constant).sum()} columns that vary; the models need at least 2")
    return raw[:, ~constant], [int(column) + 1 for column in constant.nonzero()[0]]
