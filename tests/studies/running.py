"""Small runs of studies, and the rows that they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from studies.kit.rows import Rows
from studies.kit.run import main
from studies.kit.study import Study
from studies.kit.tables import frame

Refused = Callable[[str, Sequence[str]], str]  # what a study answers to arguments: a fixture of the room's


def run(study: str, arguments: Sequence[str], output: Path) -> tuple[int, pd.DataFrame]:
    """The exit status of a run, which draws its figure, and its rows."""
    status = main(study, [*arguments, "--output", str(output)])
    (rows,) = output.glob(f"{Study(study).name}/*/rows.csv")
    assert (rows.parent / "figure.png").exists()
    return status, frame(Rows(rows, Study(study).key))
