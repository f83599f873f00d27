"""Settings that every study has, how a study declares its own, and the command line made of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from studies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from studies.data import Dataset

# Metadata of a settings field.
OF_THE_RUN: Mapping[str, Any] = {"of_the_run": True}  # it decides which rows there are and where, but no number in them
ADDED_LATER: Mapping[str, Any] = {
    "added_later": True
}  # at its default, rows from before there was such a field stay valid


def quick(value: object) -> Mapping[str, Any]:
    """The field's value with ``--quick``, unless the user chose one."""
    return {"quick": value}


@dataclass(frozen=True)
class CommonSettings:
    """What every study can be asked for. Study classes add their own fields."""

    quick: bool = field(default=False, metadata=OF_THE_RUN)
    """A small run, less than a minute: numbers worse than the study's, the same tables and figures."""
    data: str = field(default="digits", metadata=OF_THE_RUN)
    """digits, breast-cancer, wine; a toy density (toy, gaussian, mixture, eight-gaussians, checkerboard, rings, moons,
    random-flow, nonlinear); from the data directory mnist, mnist-binary, fashion-mnist, frey-faces, oil-flow, galaxies,
    power, gas, hepmass, miniboone, bsds300; or a path to your own .csv, .tsv, .npy or .npz with one row a point."""
    data_directory: Path | None = field(default=None, metadata=OF_THE_RUN)
    """Where data is that is not shipped; without it, the environment variable ELBOGAP_DATA."""
    download: bool = field(default=False, metadata=OF_THE_RUN)
    """Fetch mnist if it is not in the data directory."""
    dequantise: bool = False
    """Add uniform noise on [0, 1) to your own data of integers, or to mnist-binary (other pixels always get it)."""
    logit: bool = field(default=False, metadata=ADDED_LATER)
    """Fit pixels in their logits; log p(x) stays in the units of pixels."""
    seeds: tuple[int, ...] = field(default=(0,), metadata=OF_THE_RUN)
    """Each seed is a whole repetition: split, noise, starts, draws."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: Literal["float32", "float64"] = "float32"
    """What to compute in."""
    threads: int = 1
    """CPU threads. With one, numbers do not depend on how many cores there are; small models gain little from more."""
    replot: bool = field(default=False, metadata=OF_THE_RUN)
    """Redraw figure and table from the stored rows; computes nothing."""
    output: Path = field(default=Path("results"), metadata=OF_THE_RUN)
    """Folder for results; each study and data set has its own below it."""

    def check(self) -> None:
        """Raise InputError for values that the command line cannot know to be wrong."""
        if self.threads < 1:
            raise InputError(f"--threads must be at least 1; got {self.threads}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"--seeds expects different integers from 0 up; got {' '.join(map(str, self.seeds))}")

    def quickened(self) -> Self:
        """With ``--quick``, every setting that is still at its default takes its quick value."""
        if not self.quick:
            return self
        chosen = {f.name: f.metadata["quick"] for f in fields(self) if "quick" in f.metadata}
        defaults = {f.name: f.default for f in fields(self)}
        return replace(self, **{name: v for name, v in chosen.items() if getattr(self, name) == defaults[name]})

    @property
    def digest(self) -> str:
        """Names the settings that a row's numbers depend on, beside its data and seed: 12 hexadecimal digits."""
        values = {
            f.name: getattr(self, f.name)
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

    def selected(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that a run with these settings shows."""
        return rows[rows["seed"].isin(self.seeds)]

    def options(self) -> str:
        """The options that differ from their defaults, as one would give them; empty if none does.

        >>> CommonSettings(seeds=(0, 1), quick=True).options()
        '--quick --seeds 0 1'
        """
        shown = []
        for f in fields(self):
            value = getattr(self, f.name)
            if (
                value == f.default
                or f.name in ("output", "replot")
                or (self.quick and f.metadata.get("quick") == value)
            ):
                continue
            words = [] if value is True else value if isinstance(value, tuple) else [value]
            shown.append(" ".join(["--" + f.name.replace("_", "-"), *map(str, words)]))
        return " ".join(shown)

    def plain(self) -> dict[str, object]:
        """As JSON can hold it."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def load(self, seed: int) -> Dataset:
        """The data that these settings name, with the split of a seed.

        Raises:
            InputError: there is no such data, or it is unusable.
        """
        from studies.data import load

        return load(
            self.data,
            seed,
            dequantise=self.dequantise,
            logit=self.logit,
            directory=self.data_directory,
            download=self.download,
        )


S = TypeVar("S", bound=CommonSettings)


def parsed(settings: type[S], study: str, description: str, arguments: Sequence[str] | None) -> S:
    """Settings from the command line; ``--help`` shows each with its default.

    Raises:
        InputError: a value makes no sense.
        SystemExit: help was asked for (0), or an option is unknown or malformed (2).
    """
    import tyro

    chosen = tyro.cli(
        settings,
        prog=f"python -m studies.{study}",
        description=description,
        args=None if arguments is None else list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    chosen.check()
    return chosen.quickened()
