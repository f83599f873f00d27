"""Results that are there: rows in `studies/reference`, and in a folder of one's own; each with its study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from studies.kit.errors import InputError
from studies.kit.rows import Rows
from studies.kit.study import Study
from studies.kit.tables import frame, selected

REFERENCE = Path(__file__).parent.parent / "reference"


@dataclass(frozen=True, eq=False)
class Result:
    """Rows of one study on one data set, and the figure beside them.

    Attributes:
        study: whose they are.
        path: of the rows.
        figure: an SVG, or else a PNG; None if there is none.
        rows: of one settings hash, in the order of the file.
        current: were they made by the settings that the code has now, at their defaults?
        committed: do they lie in `studies/reference`?
    """

    study: Study
    path: Path
    figure: Path | None
    rows: pd.DataFrame
    current: bool
    committed: bool

    @property
    def data(self) -> str:
        """Names of the data sets."""
        return ", ".join(map(str, self.rows["data"].unique()))

    @property
    def quick(self) -> bool:
        """Was it a quick run, by the name of its folder?"""
        return self.path.parent.name.endswith("-quick")

    @property
    def stale(self) -> bool:
        """Committed as those of the code's defaults, and made by other settings.

        In `reference/STUDY/ANYTHING` lie rows that are meant to be of others.
        """
        return self.committed and not self.current and self.path.parent.parent.name != self.study.name

    def shown(self) -> pd.DataFrame:
        """Rows of the seeds that the study takes by default, or all if they are of other settings."""
        chosen = selected(self.study, self.study.settings(), self.rows) if self.current else self.rows
        return chosen if len(chosen) else self.rows

    def every_seed(self) -> pd.DataFrame:
        """The same of all seeds: what is most to be said of the study's data and models."""
        seeds = tuple(int(seed) for seed in self.rows["seed"].unique())
        settings = replace(self.study.settings(), seeds=seeds)
        chosen = selected(self.study, settings, self.rows) if self.current else self.rows
        return chosen if len(chosen) else self.rows


def results(study: Study, folder: Path | None = None) -> list[Result]:
    """Everything there is of a study: first what was committed, then what lies in a folder of results.

    Rows of several settings are several results, those of the code's defaults first.

    Raises:
        InputError: a file of rows cannot be read.

    >>> from studies.kit.study import Study
    >>> [result.figure.stem for result in results(Study("studies.survae"))]
    ['survae']
    """
    found = [result for path in _committed(study.name) for result in _split(study, path, committed=True)]
    if folder is not None:
        for path in sorted((folder / study.name).glob("*/rows.csv")):
            found += _split(study, path, committed=False)
    return found


def _committed(name: str) -> list[Path]:
    """``reference/NAME.csv``, ``reference/NAME/rows.csv`` and ``reference/NAME/ANYTHING/rows.csv``."""
    single = REFERENCE / f"{name}.csv"
    return [path for path in (single, REFERENCE / name / "rows.csv") if path.exists()] + sorted(
        (REFERENCE / name).glob("*/rows.csv")
    )


def _split(study: Study, path: Path, *, committed: bool) -> list[Result]:
    digest = study.settings().digest
    every = frame(Rows(path, study.key))
    if every.empty:
        raise InputError(f"{path} has no rows")
    names = [path.with_suffix(suffix) if committed else None for suffix in (".svg", ".png")]
    names += [path.with_name(f"figure{suffix}") for suffix in (".svg", ".png")]
    figures = [name for name in names if name is not None and name.exists()]
    figure = figures[0] if figures else None
    hashes = sorted(every["settings_hash"].unique(), key=lambda found: found != digest)
    return [
        Result(
            study,
            path,
            figure if position == 0 else None,  # it was drawn from the rows of one of them
            every[every["settings_hash"] == found].reset_index(drop=True),
            found == digest,
            committed,
        )
        for position, found in enumerate(hashes)
    ]
