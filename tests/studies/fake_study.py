"""A study that takes no time, for tests of the kit: thirty rows, each from its own seed.

Run with ``python fake_study.py LOG ARGUMENTS...``; every row that is begun is noted in the log.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from studies import kit
from studies.results import Row
from studies.seeds import derived_seed
from studies.settings import OF_THE_RUN, CommonSettings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Settings(CommonSettings):
    """A hash of the data can be given, as if the file had changed."""

    hash: str = field(default="0", metadata=OF_THE_RUN)
    pause: float = field(default=0.02, metadata=OF_THE_RUN)


def compute(settings: Settings) -> Iterator[kit.Task]:
    """Thirty rows."""
    for step in range(30):
        key: Row = {"data": "none", "data_hash": settings.hash, "seed": 0, "step": step}
        yield kit.Task(key, partial(_row, settings, step), f"step {step}")


def _row(settings: Settings, step: int) -> Row:
    with open(sys.argv[1], "a") as log:
        log.write(f"{os.environ.get('RANK', '0')} {step}\n")
    time.sleep(settings.pause)
    return {"value": derived_seed(0, str(step)) / 7 + (0 if settings.hash == "0" else 1e20)}


def figure(df: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    return Figure((1, 1))


def table(df: pd.DataFrame) -> str:
    return f"{len(df)} rows, mean {df['value'].mean():.6e}"


if __name__ == "__main__":
    study = kit.Study("fake", "A fake.", Settings, ("step",), compute, figure, table)
    raise SystemExit(kit.run(study, sys.argv[2:]))
