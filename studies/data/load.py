"""Data for the studies: split, hashed, and with what it takes to report log p(x) in the units of the data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from studies.data.directory import data_directory
from studies.data.download import download_mnist
from studies.data.embedded import embedded
from studies.data.images import binarised_mnist, fashion_mnist, frey_faces, mnist
from studies.data.maf_suite import FEATURES, maf_suite
from studies.data.own.file import SUFFIXES, WHOLE, Selection, own_file, suffix_of
from studies.data.preprocessing import Preprocessing, level_width
from studies.data.random_ppca import random_ppca
from studies.data.raw import Array, Column, Numbers, Raw
from studies.data.split import Labels, same_rows, split
from studies.data.tables import galaxies, oil_flow
from studies.data.toys import TOYS, toy
from studies.kit.errors import InputError
from studies.kit.seeds import derived_seed
from studies.kit.settings import CommonSettings

FEWEST_ROWS = 20
FEWEST_TESTED = 4
LARGE = 10_000_000  # values beyond which dequantised pixels are kept in float32: 24 bits hold 8 and a fine noise

EMBEDDED = ("digits", "breast-cancer", "wine")
TOY_NAMES = ("toy", *TOYS)
READERS: dict[str, Callable[[Path | None], Raw]] = {
    "mnist": mnist,
    "mnist-binary": binarised_mnist,
    "fashion-mnist": fashion_mnist,
    "frey-faces": frey_faces,
    "oil-flow": oil_flow,
    "galaxies": galaxies,
}
FROM_DIRECTORY = (*READERS, *FEATURES)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows to fit and rows to judge by, in the coordinates y that the models are fitted in.

    Attributes:
        name: as the user gave it, without folders.
        hash: SHA-256 of the raw values, before noise and split.
        unit: what one row is.
        train, test: y, shapes ``[n, D]``.
        log_scale: what to add to a mean of log p(y) over test rows for log p(x) in the units of the data.
        note: what was done to the data, in words.
        best: where known, the expected log p(x) of the true density, nats: no model can have more, on average.
        best_error: standard error of that number, 0 where it is exact.
        validation: y of the published validation rows ``[n, D]``; None where the split is ours.
        log_scales: what to add to log p(y) of each test row ``[n]``; None: ``log_scale``, the same for all.
        levels: of pixels, integers 0 … levels − 1; None for continuous data.
        measure: of log p(x): counting for binary data as it is, product for several kinds of columns, else Lebesgue.
        train_labels, test_labels: classes ``[n]``, for pictures; None where there are none.
        classes: what the classes are called, where labels count them from 0; empty: by their numbers.
        preprocessing: the map from x to y.
        columns: what the user calls them, by number and name; of pixels they have no names.
        shared: test rows that are in the training part too, before noise.
        divided: whether the split is by the seed.
        source: of one's own file, which it is and what of it these rows are, in words.
        kinds: what each column holds, where they are of several kinds; else all are numbers.
    """

    name: str
    hash: str
    unit: str
    train: Numbers
    test: Numbers
    log_scale: float
    note: str
    best: float | None = None
    best_error: float = 0.0
    validation: Numbers | None = None
    log_scales: Array | None = None
    levels: int | None = None
    measure: Literal["Lebesgue", "counting", "product"] = "Lebesgue"
    train_labels: Labels | None = None
    test_labels: Labels | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    columns: tuple[str, ...] = ()
    shared: int = 0
    classes: tuple[str, ...] = ()
    divided: bool = True
    source: str = ""
    kinds: tuple[Column, ...] = ()

    @property
    def incomplete(self) -> bool:
        """Whether values are missing, nan."""
        return bool(np.isnan(self.train).any() or np.isnan(self.test).any())

    @property
    def contexts(self) -> tuple[Numbers, Numbers] | None:
        """Indicators ``[n, classes]`` of the classes of training and test rows, for models of p(x | class).

        None unless a label was chosen.
        """
        if not self.classes or self.train_labels is None or self.test_labels is None:
            return None
        indicators = np.eye(len(self.classes))
        return indicators[self.train_labels], indicators[self.test_labels]

    @property
    def features(self) -> int:
        """D."""
        return self.train.shape[1]

    def bits_per_dimension(self, log_p: float) -> float | None:
        """−log p(x)/(D log 2) for pixels, None for other data.

        >>> load("digits", seed=0).bits_per_dimension(-64 * math.log(2))
        1.0
        """
        return None if self.levels is None else -log_p / (self.features * math.log(2))


def load(
    name: str,
    seed: int,
    *,
    dequantise: Sequence[str] = (),
    logit: bool = False,
    group_duplicates: bool = False,
    selection: Selection = WHOLE,
    incomplete: bool = False,
    narrowest: int = 2,
    directory: Path | None = None,
    download: bool = False,
) -> Dataset:
    """A data set by name, or one's own file, with the split that belongs to a seed or was published.

    - Pixels: ``digits`` (scikit-learn, 8 × 8, 17 levels) and, from a directory, ``mnist``, ``fashion-mnist``
      (28 × 28, 256 levels) and ``frey-faces`` (28 × 20) are dequantised: uniform noise on [0, 1) is added, log p is in
      units of levels, and by Jensen's inequality its mean is a lower bound on the log-mass of the pixels themselves.
    - ``mnist-binary`` (statically binarised, from a directory) stays as it is: log p is a log-mass.
    - Tables: ``breast-cancer``, ``wine`` (scikit-learn); ``oil-flow``, ``galaxies`` and the MAF suite ``power``,
      ``gas``, ``hepmass``, ``miniboone``, ``bsds300`` from a directory; a path to one's own file, which
      :func:`~studies.data.own.file.own_file` reads.
    - Toys of known entropy: ``toy`` (a random PPCA), ``gaussian``, ``mixture``, ``eight-gaussians``, ``checkerboard``,
      ``rings``, ``moons``, ``random-flow``, ``nonlinear`` (two latents and a random decoder).

    Tables and toys are standardised with training statistics, pixels are not; log p is reported in the units of the
    data in every case.

    Args:
        seed: of noise and, where no split was published, of the split: one fifth of the rows are for testing.
        dequantise: columns of a table, by name or by number from 1, or "all": uniform noise on [0, 1) is added in units
            of each one's levels: the smallest difference of two of its values, or the step of "column=step". Binary
            pixels take "all".
        group_duplicates: keep rows that are equal on one side of a split that is ours.
        selection: of one's own file, what of it is data.
        incomplete: whether one's own file may miss values; they are nan then, and log p(x) is that of the others.
        narrowest: the least number of columns that vary.
        logit: fit pixels in their logits.
        directory: where data is that is not shipped; None: the environment variable ELBOGAP_DATA.
        download: fetch ``mnist`` if it is not in the directory.

    Raises:
        InputError: no such data, or it is unusable; the message names the place and the remedy.
    """
    raw = _raw(name, selection, incomplete, directory, download)
    notes = [raw.note] if raw.note else []
    widths = _widths(raw, dequantise)
    pixels = raw.levels is not None and bool(widths.all())
    binary = raw.levels == 2 and not pixels
    if logit and not pixels:
        raise InputError(f"--logit is for pixels; '{name}' has none" + (" that are dequantised" if binary else ""))
    kept = _kept(raw, name, widths, narrowest)
    noisy = np.flatnonzero(widths).tolist()
    rows, widths = (raw.rows, widths) if kept.all() else (raw.rows[:, kept], widths[kept])
    if not kept.all():
        notes.append(f"constant columns dropped: {', '.join(map(raw.label, np.flatnonzero(~kept).tolist()))}")
    shape = repr(rows.shape if selection.test is None else (rows.shape, raw.published))
    digest = hashlib.sha256(shape.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()
    if widths.any():
        random = np.random.default_rng(derived_seed(seed, "dequantise"))
        noise = random.random(rows.shape, np.float32) if rows.size > LARGE else random.random(rows.shape)
        rows = rows + (noise if pixels else noise * widths)
        if (widths == 1).all():
            notes.append("dequantised with uniform noise: a lower bound on the log-mass of the integers")
        else:
            which = "all columns" if widths.all() else f"columns {', '.join(map(raw.label, noisy))}"
            notes.append(f"{which} dequantised with uniform noise as wide as a level")
    same = same_rows(raw.rows) if raw.levels is None else np.arange(len(rows))
    train, validation, test = split(same, raw.published, seed, group_duplicates)
    shared = int(np.isin(same[test], same[train]).sum())
    if shared and not widths.any():  # noise has made them different rows
        notes.append(f"{shared} of {len(test)} test rows are in the training part too")
    _check_parts(raw, kept, train, test)
    if raw.incomplete:
        notes.append("values are missing: log p(x) is that of those which a row has")
    if logit:
        assert raw.levels is not None
        preprocessing = Preprocessing(levels=raw.levels)
        notes.append("fitted in logits")
    elif raw.levels is None:
        preprocessing = Preprocessing.standardise(rows[train])
    else:
        preprocessing = Preprocessing()
    y, log_scales = preprocessing(rows[test])
    return Dataset(
        raw.name,
        digest,
        raw.unit,
        preprocessing(rows[train])[0],
        y,
        float(log_scales.mean()),
        "; ".join(notes),
        raw.best,
        raw.best_error,
        preprocessing(rows[validation])[0] if len(validation) else None,
        log_scales if logit or raw.incomplete else None,
        raw.levels,
        "counting" if binary else "Lebesgue",
        None if raw.labels is None else raw.labels[train],
        None if raw.labels is None else raw.labels[test],
        preprocessing,
        () if raw.levels is not None else tuple(map(raw.label, np.flatnonzero(kept).tolist())),
        shared,
        raw.classes,
        raw.published is None,
        raw.source,
    )


def dataset(settings: CommonSettings, seed: int, *, incomplete: bool = False, narrowest: int = 2) -> Dataset:
    """The data that settings name, by :func:`load`; ``incomplete`` where a model of the study takes missing values,
    ``narrowest`` as many columns as it needs.
    """
    return load(
        settings.data,
        seed,
        dequantise=settings.dequantise or (),
        logit=settings.logit,
        group_duplicates=settings.group_duplicates,
        selection=Selection(settings.label, settings.drop or (), settings.test, settings.drop_incomplete),
        incomplete=incomplete,
        narrowest=narrowest,
        directory=settings.data_directory,
        download=settings.download,
    )


def _raw(name: str, selection: Selection, incomplete: bool, directory: Path | None, download: bool) -> Raw:
    known = name in (*EMBEDDED, *TOY_NAMES, *FROM_DIRECTORY)
    if selection and known:
        raise InputError(f"--label, --drop, --test and --drop-incomplete are for a file of your own; '{name}' is none")
    if name in EMBEDDED:
        return embedded(name)
    if name == "toy":
        return random_ppca()
    if name in TOYS:
        return toy(name)
    if name in FROM_DIRECTORY:
        place = data_directory(directory)
        if download:
            if name != "mnist":
                raise InputError(f"--download fetches mnist alone, not '{name}'")
            place = download_mnist(place)
        return maf_suite(name, place) if name in FEATURES else READERS[name](place)
    if suffix_of(name):
        return own_file(Path(name), selection, incomplete=incomplete)
    if Path(name).exists():
        what = "is a folder" if Path(name).is_dir() else "is there"
        raise InputError(f"{name} {what}, but --data takes a file that ends in {', '.join(SUFFIXES)}")
    raise InputError(
        f"no data called '{name}'. Name one of {', '.join((*EMBEDDED, *TOY_NAMES))}; with a data directory one of "
        f"{', '.join(FROM_DIRECTORY)}; or a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file"
    )


def _widths(raw: Raw, dequantise: Sequence[str]) -> Array:
    """Of every column ``[D]``, how wide the noise is to be: 0 for none."""
    count = raw.rows.shape[1]
    everything = tuple(dequantise) == ("all",) and "all" not in raw.columns.names
    if raw.levels is not None:
        if dequantise and not everything:
            raise InputError(f"'{raw.name}' are pixels, which are dequantised together: --dequantise all")
        return np.full(count, 1.0 if everything or raw.levels > 2 else 0.0)
    widths = np.zeros(count)
    for column, step in [(c, None) for c in range(count)] if everything else map(raw.column_and_step, dequantise):
        values = raw.rows[~np.isnan(raw.rows[:, column]), column]
        width = level_width(values) if step is None else step
        if width is None:
            raise InputError(
                f"--dequantise: column {raw.label(column)} of '{raw.name}' has no levels to dequantise: "
                f"{len(np.unique(values))} different values in {len(values)} rows"
            )
        widths[column] = width
    return widths


def _kept(raw: Raw, name: str, widths: Array, narrowest: int) -> NDArray[np.bool_]:
    """Which columns ``[D]`` there are to fit: not constant ones, which have no density, but by noise."""
    rows = raw.rows
    if len(rows) < FEWEST_ROWS:
        raise InputError(f"'{name}' has {len(rows)} rows; at least {FEWEST_ROWS} are needed to fit and to test")
    if raw.levels is not None:
        return np.ones(rows.shape[1], bool)
    known = ~np.isnan(rows)
    first = rows[known.argmax(0), np.arange(rows.shape[1])]
    kept: NDArray[np.bool_] = ((rows != first) & known).any(0) | (widths > 0)
    if kept.sum() < narrowest:
        words = "column that varies" if kept.sum() == 1 else "columns that vary"
        raise InputError(f"'{name}' has {kept.sum()} {words}; the models need at least {narrowest}")
    return kept


def _check_parts(raw: Raw, kept: NDArray[np.bool_], train: Labels, test: Labels) -> None:
    """Errors of parts that are too small, or that miss all of a column."""
    fewest = FEWEST_ROWS - FEWEST_TESTED
    if len(train) < fewest or len(test) < FEWEST_TESTED:
        raise InputError(
            f"'{raw.name}' has {len(train)} rows to fit and {len(test)} to test on; at least {fewest} and "
            f"{FEWEST_TESTED} are needed"
        )
    if raw.incomplete and (empty := kept & np.isnan(raw.rows[train]).all(0)).any():
        column = raw.label(int(empty.argmax()))
        raise InputError(f"'{raw.name}': column {column} has no value in the rows to fit. --drop leaves it out")
