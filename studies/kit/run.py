"""Computing what is missing of a study's rows, each kept as it comes.

Under ``torchrun`` every process computes every row, and what the rows need is summed over processes; the main process
alone writes and prints.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from studies.kit.errors import InputError
from studies.kit.provenance import provenance, write_manifest
from studies.kit.rows import Row, Rows, is_main
from studies.kit.settings import CommonSettings
from studies.kit.study import Study


@dataclass(frozen=True)
class Outcome:
    """The rows that there are after a run, and what the run came upon.

    Attributes:
        rows: all of the file, those of other settings too.
        hashes: of the data in use; None if it was not loaded.
        failures: what could not be computed, and why.
        new: the number of rows that were computed; None if none was to be.
    """

    rows: Rows
    hashes: frozenset[str] | None = None
    failures: tuple[str, ...] = ()
    new: int | None = None


def stored(study: Study, folder: Path) -> Outcome:
    """The rows that there are; nothing is computed."""
    return Outcome(Rows(folder / "rows.csv", study.key))


def compute(study: Study, settings: CommonSettings, folder: Path) -> Outcome:
    """Compute what is missing; the study's ``measure`` is imported for the first row that is."""
    with _processes(settings.device) as wait:
        if is_main():
            stored(study, folder)  # mends what a kill has cut, before others read it
        wait()
        rows = stored(study, folder).rows
        wait()
        started, failures, new = time.perf_counter(), [], 0
        constant: Row = {"study": study.name, "settings_hash": settings.digest}
        tasks = list(study.tasks(settings))
        bar = tqdm(tasks, desc=study.name, unit="row", disable=None if is_main() else True)
        try:
            for task in bar:
                key = {**constant, **asdict(task.key)}
                if key in rows and all(path.exists() for path in task.makes):
                    continue
                if not all(path.exists() for path in task.needs):
                    continue
                bar.set_postfix_str(task.label)
                begun = time.perf_counter()
                try:
                    columns = study.measure(settings, task)
                except InputError:
                    raise
                except (ValueError, ArithmeticError, RuntimeError) as error:
                    failures.append(f"{task.label or asdict(task.key)}: {error}")
                    continue
                seconds = time.perf_counter() - begun
                about = {"dtype": settings.dtype, "seconds": round(seconds, 3)}
                if is_main():
                    rows.append({**key, **about, **columns, **provenance(settings.device)})
                new += 1
                wait()
                if task.label and is_main():
                    tqdm.write(f"{task.label}: {seconds:.1f} s", file=sys.stderr)
        finally:
            if is_main() and (new or (len(rows) and not (folder / "manifest.json").exists())):
                write_manifest(folder / "manifest.json", study.name, settings, rows, time.perf_counter() - started)
        return Outcome(rows, frozenset(task.key.data_hash for task in tasks), tuple(failures), new)


@contextmanager
def _processes(device: str) -> Iterator[Callable[[], None]]:
    """Join the processes that ``torchrun`` started, if it did; yields what makes each of them wait for the others."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield lambda: None
        return
    from density.parallel.processes import barrier, joined

    with joined(device):
        yield barrier
