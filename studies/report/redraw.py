"""The committed figures, drawn again from the committed rows: ``python -m studies.report --redraw``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from studies.kit.figures import draw
from studies.kit.study import Study
from studies.report.committed import results

ARRAYS = "points"  # the column of rows whose arrays lie in a file


def redraw(studies: list[Study], folder: Path | None) -> Iterator[str]:
    """Write the figure beside the committed rows of every study; yields what became of each.

    Figures of rows that name files of arrays, which are not committed, need these files: those of a run of the same
    settings, anywhere in a folder of results. Without them the figure stays as it is.
    """
    for study in studies:
        for result in results(study):
            if result.figure is None and not result.current:
                continue
            rows, missing = with_arrays(result.every_seed(), folder)
            if missing:
                yield f"{study.name} on {result.data}: stays, since none of its arrays, such as {missing}, is there"
                continue
            path = result.path.with_name("figure.svg" if result.path.name == "rows.csv" else f"{result.path.stem}.svg")
            draw(study.name, study.report.figure(rows), path, about=study.shows(result.data))
            yield f"{study.name} on {result.data}: {path.stat().st_size / 1024:.0f} KiB"


def with_arrays(rows: pd.DataFrame, folder: Path | None) -> tuple[pd.DataFrame, str]:
    """Rows that name the files of arrays where these are in a folder; and the first of them, if none is there."""
    names = {str(path): Path(str(path)).name for path in rows.get(ARRAYS, []) if str(path).endswith(".npz")}
    if not names:
        return rows, ""
    there = {} if folder is None else {path.name: str(path) for path in sorted(folder.rglob("*.npz"))}
    if not set(names.values()) & set(there):
        return rows, next(iter(names.values()))
    found = [there.get(names.get(str(path), ""), path) for path in rows[ARRAYS]]
    return rows.assign(**{ARRAYS: found}), ""
