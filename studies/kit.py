"""What all studies share: computing rows that are kept as they come, and reporting them.

A study file has one order: docstring (question, claim, paper, command, run time, expected numbers, answer as observed),
frozen ``Settings``, ``compute(settings)`` yielding rows to be computed, ``figure(df)``, ``table(df)``, ``main``. Its
heavy imports are inside ``compute``: ``--replot``, and a rerun that finds every row finished, never load torch.

Under ``torchrun`` every process computes every row, and what the rows need is summed over processes; the main process
alone writes and prints.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from tqdm import tqdm

from studies.errors import InputError
from studies.manifest import provenance, write_manifest
from studies.results import Row, Rows, is_main, write_whole
from studies.settings import S, parsed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

COMMON_KEY = ("study", "data", "data_hash", "seed", "settings_hash")
WIDTH = 150  # of tables that go to a file


@dataclass(frozen=True)
class Task:
    """A row that can be computed.

    Attributes:
        key: the columns that name it: the study's own, ``data``, ``data_hash`` and ``seed``.
        run: computes the other columns; ``dtype`` and ``seconds`` are added where it does not.
        label: what to call it while it runs; empty for rows that take no time.
        output: a file that ``run`` writes beside the row; without it the row counts as unfinished.
        needs: files that must be there; otherwise the task is passed over.
    """

    key: Row
    run: Callable[[], Row]
    label: str = ""
    output: Path | None = None
    needs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Check:
    """A claim that the study's own numbers decide; for the report, what was expected and what came."""

    claim: str
    passed: bool
    expected: str = ""
    measured: str = ""


@dataclass(frozen=True)
class Study(Generic[S]):
    """The parts of a study file.

    Attributes:
        name: of the file.
        doc: its docstring.
        settings: its ``Settings``.
        key: the study's own columns that name a row, beside data, seed and settings.
        compute, figure, table: its functions.
        checks: what must hold of the rows; a failure makes the exit status 1.
    """

    name: str
    doc: str
    settings: type[S]
    key: tuple[str, ...]
    compute: Callable[[S], Iterable[Task]]
    figure: Callable[[pd.DataFrame], Figure]
    table: Callable[[pd.DataFrame], RenderableType]
    checks: Callable[[pd.DataFrame], list[Check]] = lambda rows: []


def run(study: Study[S], arguments: Sequence[str] | None = None) -> int:
    """A study from its command line; the exit status.

    0: all is well; 1: a fit failed or a check did; 2: the request makes no sense; 130: interrupted. Finished rows are
    kept in every case, and the next run goes on from there.
    """
    try:
        settings = parsed(study.settings, study.name, study.doc, arguments)
        folder = settings.folder(study.name)
        if settings.replot:
            rows, found = Rows(folder / "rows.csv", (*study.key, *COMMON_KEY)), Found()
        else:
            with _processes(settings.device) as wait:
                rows, found = _compute(study, settings, folder, wait)
        return _report(study, settings, rows, folder, found) if is_main() else 0
    except (InputError, OSError) as error:
        if is_main():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished rows are kept, the same command goes on from there", file=sys.stderr)
        return 130


@dataclass(frozen=True)
class Found:
    """What computing came upon: hashes of the data in use, None if it was not loaded; failures; number of new rows."""

    hashes: frozenset[str] | None = None
    failures: tuple[str, ...] = ()
    new: int | None = None


@contextmanager
def _processes(device: str) -> Iterator[Callable[[], None]]:
    """Join the processes that ``torchrun`` started, if it did; yields what makes each of them wait for the others."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield lambda: None
        return
    from density.parallel.processes import barrier, joined

    with joined(device):
        yield barrier


def _compute(study: Study[S], settings: S, folder: Path, wait: Callable[[], None]) -> tuple[Rows, Found]:
    """Compute what is missing."""
    path, key = folder / "rows.csv", (*study.key, *COMMON_KEY)
    if is_main():
        Rows(path, key)  # mends what a kill has cut, before others read it
    wait()
    rows = Rows(path, key)
    wait()
    started, failures, new, last = time.perf_counter(), [], 0, time.perf_counter()
    constant: Row = {"study": study.name, "settings_hash": settings.digest}
    tasks = list(study.compute(settings))
    bar = tqdm(tasks, desc=study.name, unit="row", disable=None if is_main() else True)
    try:
        for task in bar:
            if {**constant, **task.key} in rows and (task.output is None or task.output.exists()):
                continue
            if any(not needed.exists() for needed in task.needs):
                continue
            bar.set_postfix_str(task.label)
            last = time.perf_counter()
            try:
                columns = task.run()
            except InputError:
                raise
            except (ValueError, ArithmeticError, RuntimeError) as error:
                failures.append(f"{task.label or task.key}: {error}")
                continue
            seconds = time.perf_counter() - last
            row = {**constant, **task.key, **columns, **provenance(settings.device)}
            row = {"dtype": settings.dtype, "seconds": round(seconds, 3), **row}
            if is_main():
                rows.append({name: row[name] for name in (*constant, *task.key, *row)})
            new += 1
            wait()
            if task.label and is_main():
                tqdm.write(f"{task.label}: {seconds:.1f} s", file=sys.stderr)
    finally:
        if is_main() and (new or (len(rows) and not (folder / "manifest.json").exists())):
            write_manifest(folder / "manifest.json", study.name, settings, rows.frame(), time.perf_counter() - started)
    return rows, Found(frozenset(str(task.key["data_hash"]) for task in tasks), tuple(failures), new)


def shown(settings: S, every: pd.DataFrame, hashes: frozenset[str] | None) -> pd.DataFrame:
    """The rows that a run shows: of its settings, its seeds and its data as it is now.

    Where the data was not loaded (``--replot``), of rows that differ in the data's hash alone the latest data counts.
    """
    mine = every[every["settings_hash"] == settings.digest]
    if hashes is None:
        latest = mine.groupby("data")["data_hash"].agg("last")
        mine = mine[mine["data_hash"] == mine["data"].map(latest)] if len(mine) else mine
    else:
        mine = mine[mine["data_hash"].isin(hashes)]
    return settings.selected(mine) if len(mine) else mine


def _report(study: Study[S], settings: S, rows: Rows, folder: Path, found: Found) -> int:
    import pandas as pd
    from rich.console import Console

    every = rows.frame() if len(rows) else pd.DataFrame(columns=["settings_hash", "data", "data_hash", "seed"])
    mine, failures = shown(settings, every, found.hashes), found.failures
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    if mine.empty:
        if failures:
            raise InputError("nothing could be computed:" + "".join(f"\n  {failure}" for failure in failures))
        others = f"; it has {len(every)} rows of other settings" if len(every) else ""
        again = ". Run without --replot" if settings.replot else ""
        raise InputError(f"{rows.path} has no rows of these settings to show{others}{again}")
    table, checks = study.table(mine), study.checks(mine)
    verdicts = [f"{'passed' if check.passed else 'FAILED'}: {check.claim}" for check in checks]
    verdicts += [f"not fitted: {failure}" for failure in failures]
    console.print(table)
    for line in verdicts:
        console.print(
            line, style="bold red" if not line.startswith("passed") else "green", highlight=False, markup=False
        )
    recorder = Console(file=io.StringIO(), width=WIDTH, record=True)
    recorder.print(f"python -m studies.{study.name} {settings.options()}".strip(), highlight=False, markup=False)
    recorder.print(table)
    recorder.print("\n".join(verdicts), highlight=False, markup=False)
    write_whole(folder / "table.txt", recorder.export_text())
    draw(study.name, study.figure, mine, folder / "figure.png", folder / "figure.svg")
    notes = []
    if found.new == 0:
        notes.append(f"All {len(mine)} rows were there already; to compute them again, delete {rows.path}.")
    if len(every) > len(mine):
        notes.append(f"Figure and table show the {len(mine)} rows of this run's settings; rows.csv holds {len(every)}.")
    for line in notes:
        print(line, file=sys.stderr)
    console.print(f"Rows, figure, table and manifest: {folder}/", highlight=False, markup=False)
    return 1 if failures or not all(check.passed for check in checks) else 0


def draw(name: str, figure: Callable[[pd.DataFrame], Figure], rows: pd.DataFrame, *paths: Path) -> None:
    """Draw a study's figure into files, in the format that each name says. Equal rows make equal files."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = name
    drawn = figure(rows)
    for path in paths:
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        drawn.savefig(buffer, format=path.suffix[1:], dpi=160, bbox_inches="tight", metadata=metadata)
        write_whole(path, buffer.getvalue())
