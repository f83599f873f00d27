"""Settings that every study has, and how a study declares its own: a default, what the setting is for, and bounds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from studies.kit.errors import InputError

T = TypeVar("T")

# Marks of a setting.
OF_THE_RUN: Mapping[str, Any] = {"of_the_run": True}  # it decides which rows there are and where, but no number in them
ADDED_LATER: Mapping[str, Any] = {
    "added_later": True
}  # at its default, rows from before there was such a field stay valid


def preset(name: str, value: object) -> Mapping[str, Any]:
    """The setting's value where a preset of that name is in force, unless the user chose one.

    >>> dict(preset("full", 3280))
    {'full': 3280}
    """
    return {name: value}


def quick(value: object) -> Mapping[str, Any]:
    """The setting's value with ``--quick``, unless the user chose one.

    >>> dict(quick(12))
    {'quick': 12}
    """
    return preset("quick", value)


@dataclass(frozen=True)
class Bound:
    """A condition on a setting's value.

    Attributes:
        holds: whether a value meets it.
        words: what stands between the option and the value in the error, such as "must be positive".

    >>> even = Bound(lambda value: value % 2 == 0, "must be even")
    >>> even.holds(4), even.words
    (True, 'must be even')
    """

    holds: Callable[[Any], bool]
    words: str


POSITIVE = Bound(lambda value: 0 < value < math.inf, "must be positive")
NOT_NEGATIVE = Bound(lambda value: 0 <= value < math.inf, "must be 0 or positive")
WIDTHS = Bound(lambda widths: all(width > 0 for width in widths), "expects positive widths")

SOME_WIDTHS = Bound(lambda widths: len(widths) > 0 and WIDTHS.holds(widths), "expects one or more positive widths")


def at_least(least: int, reason: str = "") -> Bound:
    """A number from ``least`` up; the reason follows in the error."""
    return Bound(lambda value: value >= least, f"must be at least {least}" + (f", {reason}" if reason else ""))


def all_or_at_least(least: int) -> Bound:
    """A number of rows: from ``least`` up, or 0 for all."""
    return Bound(lambda value: value == 0 or value >= least, f"must be 0 (all) or at least {least}")


def one_of(values: Sequence[str], reason: str) -> Bound:
    """One of some words; the reason follows in the error."""
    return Bound(lambda value: value in values, f"must be {' or '.join(values)}, {reason}")


def different(things: str, least: int | None = None) -> Bound:
    """One or more values, none of them twice; numbers from ``least`` up."""

    def holds(values: Any) -> bool:  # noqa: ANN401 - a tuple of names or of numbers
        return len(set(values)) == len(values) > 0 and (least is None or min(values) >= least)

    return Bound(holds, f"expects different {things}" + ("" if least is None else f" from {least} up"))


SEEDS = different("integers", least=0)


COLUMNS = Bound(lambda columns: columns is None or len(columns) > 0, "expects names or numbers of columns, or all")
SOME_COLUMNS = Bound(COLUMNS.holds, "expects names or numbers of columns")


def recorded(plain: Callable[[Any], object]) -> Mapping[str, Any]:
    """How the setting's value enters the digest, so that rows from before its type changed stay valid."""
    return {"recorded": plain}


def _itself(value: object) -> object:
    return value


def _as_before_there_were_columns(columns: tuple[str, ...] | None) -> object:
    """``dequantise`` was a yes or no for the whole table."""
    return columns == ("all",) if columns in (None, ("all",)) else columns


def setting(default: T, *about: Bound | Mapping[str, Any]) -> T:
    """A field of a study's settings: its default, marks, values of presets, and bounds.

    >>> @dataclass(frozen=True)
    ... class Settings(CommonSettings):
    ...     epochs: int = setting(300, quick(12), POSITIVE)
    >>> Settings(quick=True).quickened().epochs
    12
    >>> Settings(epochs=0).check()
    Traceback (most recent call last):
    studies.kit.errors.InputError: --epochs must be positive; got 0
    """
    metadata: dict[str, Any] = {"bounds": tuple(bound for bound in about if isinstance(bound, Bound))}
    for mark in about:
        metadata |= {} if isinstance(mark, Bound) else mark
    declared: Any = field(default=default, metadata=metadata)  # which a dataclass takes for a value of the field's type
    return declared


@dataclass(frozen=True)
class CommonSettings:
    """What every study can be asked for. Study classes add their own fields."""

    quick: bool = setting(False, OF_THE_RUN)
    """A small run, less than a minute: numbers worse than the study's, the same tables and figures."""
    data: str = setting("digits", OF_THE_RUN)
    """digits, breast-cancer, wine; a toy density (toy, gaussian, mixture, eight-gaussians, checkerboard, rings, moons,
    random-flow, nonlinear); from the data directory mnist, mnist-binary, fashion-mnist, frey-faces, oil-flow, galaxies,
    power, gas, hepmass, miniboone, bsds300; or a path to your own .csv, .tsv or .txt (also .gz), .parquet, .npy or .npz
    with one row a point. Lines that begin with # are comments; the first may hold names."""
    label: str | None = setting(None, ADDED_LATER)
    """Of your own file the column of classes, by name or by number from 1: words or numbers, no part of x. flow_layers
    fits p(x | class), latent_space colours and counts classes, other models do not see them. In an .npz also another
    array, by its name."""
    drop: tuple[str, ...] | None = setting(None, ADDED_LATER, SOME_COLUMNS)
    """Of your own file the columns to leave out, by name or by number from 1."""
    test: Path | None = setting(None, ADDED_LATER)
    """A file of your own with the same columns, by name, whose rows are those to test on; without it a fifth of the
    rows of --data is, at random."""
    drop_incomplete: bool = setting(False, ADDED_LATER)
    """Leave out rows of your own file that miss a value (blank, nan, NA, null). Otherwise they go to the models that
    take them, PPCA and mixture of elbo_gap; all other models refuse them."""
    data_directory: Path | None = setting(None, OF_THE_RUN)
    """Where data is that is not shipped; without it, the environment variable ELBOGAP_DATA."""
    download: bool = setting(False, OF_THE_RUN)
    """Fetch mnist if it is not in the data directory."""
    dequantise: tuple[str, ...] | None = setting(None, COLUMNS, recorded(_as_before_there_were_columns))
    """Columns of a table, by name or by number from 1, or all: add uniform noise as wide as a level, so that integers
    and rounded numbers have a density; column=step says how wide. Other pixels than mnist-binary always get it."""
    group_duplicates: bool = setting(False, ADDED_LATER)
    """Keep equal rows of a table on one side of the split into training and test rows."""
    logit: bool = setting(False, ADDED_LATER)
    """Fit pixels in their logits; log p(x) stays in the units of pixels."""
    seeds: tuple[int, ...] = setting((0,), OF_THE_RUN, SEEDS)
    """Each seed is a whole repetition: split, noise, starts, draws."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: Literal["float32", "float64"] = "float32"
    """What to compute in."""
    threads: int = setting(1, at_least(1))
    """CPU threads. With one, numbers do not depend on how many cores there are; small models gain little from more."""
    replot: bool = setting(False, OF_THE_RUN)
    """Redraw figure and table from the stored rows; computes nothing."""
    output: Path = setting(Path("results"), OF_THE_RUN)
    """Folder for results; each study and data set has its own below it."""

    def check(self) -> None:
        """Compare every setting with its bounds; studies add what concerns several settings at once.

        Raises:
            InputError: a value is out of bounds, which the command line could not know.
        """
        for f in fields(self):
            value = getattr(self, f.name)
            for bound in f.metadata.get("bounds", ()):
                if not bound.holds(value):
                    raise InputError(f"{_option(f.name)} {bound.words}; got {_words(value) or 'none'}")

    def presets(self) -> tuple[str, ...]:
        """The presets in force, the one that counts most first."""
        return ("quick",) if self.quick else ()

    def of_presets(self) -> dict[str, Any]:
        """What the presets in force have for settings, whether the user chose these or not."""
        every = [(f, name) for name in reversed(self.presets()) for f in fields(self)]  # the one that counts most last
        return {f.name: f.metadata[name] for f, name in every if name in f.metadata}

    def quickened(self) -> Self:
        """Every setting that is still at its default takes the value that a preset in force has for it."""
        own = {f.name for f in fields(self) if getattr(self, f.name) == f.default}
        return replace(self, **{name: value for name, value in self.of_presets().items() if name in own})

    @property
    def digest(self) -> str:
        """Names the settings that a row's numbers depend on, beside its data and seed: 12 hexadecimal digits."""
        values = {
            f.name: f.metadata.get("recorded", _itself)(getattr(self, f.name))
            for f in fields(self)
            if "of_the_run" not in f.metadata
            and not ("added_later" in f.metadata and getattr(self, f.name) == f.default)
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def folder(self, study: str) -> Path:
        """Where this run's results lie: ``output/study/data``, quick ones apart.

        The folder of one's own file has a few digits of the file's whole path in its name, since two files in
        different places may be called alike.
        """
        path = Path(self.data)
        place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6] if path.suffix else ""
        name = "-".join(filter(None, (path.stem, place, "quick" if self.quick else "")))
        return self.output / study / name

    def arrays(self, study: str, name: str, data_hash: str) -> Path:
        """A file for the arrays of one row, which says of what data and settings they are."""
        return self.folder(study) / "points" / f"{name}-{data_hash[:8]}-{self.digest}.npz"

    def options(self) -> str:
        """The options that differ from their defaults, as one would give them; empty if none does.

        >>> CommonSettings(seeds=(0, 1), quick=True).options()
        '--quick --seeds 0 1'
        """
        shown = []
        for f in fields(self):
            value = getattr(self, f.name)
            of_quick = self.quick and f.metadata.get("quick") == value
            if value != f.default and not of_quick and f.name not in ("output", "replot"):
                shown.append(_option(f.name) if value is True else f"{_option(f.name)} {_words(value)}".rstrip())
        return " ".join(shown)

    def plain(self) -> dict[str, object]:
        """As JSON can hold it."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _words(value: object) -> str:
    """A value as one would give it on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
