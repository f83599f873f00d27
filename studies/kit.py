"""What all studies share: computing rows that are kept as they come, and reporting them.

A study file has one order: docstring (question, claim, paper, command, run time, expected numbers, answer as observed),
frozen ``Settings``, ``compute(settings)`` yielding rows to be computed, ``figure(df)``, ``table(df)``, ``main``. Its
heavy imports are inside ``compute``: ``--replot``, and a rerun that finds every row finished, never load torch.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import matplotlib as mpl
import pandas as pd
from rich.console import Console, RenderableType
from tqdm import tqdm

from studies.errors import InputError
from studies.manifest import provenance, write_manifest
from studies.results import Row, Rows, write_whole
from studies.settings import S, parsed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMON_KEY = ("study", "data", "data_hash", "seed", "settings_hash")
WIDTH = 150  # of tables that go to a file


@dataclass(frozen=True)
class Task:
    """A row that can be computed.

    Attributes:
        key: the columns that name it: the study's own, ``data``, ``data_hash`` and ``seed``.
        run: computes the other columns.
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
    """A claim that the study's own numbers decide."""

    claim: str
    passed: bool


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
        rows = Rows(folder / "rows.csv", (*study.key, *COMMON_KEY))
        failures = [] if settings.replot else _compute(study, settings, rows, folder)
        return _report(study, settings, rows, folder, failures)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished rows are kept, the same command goes on from there", file=sys.stderr)
        return 130


def _compute(study: Study[S], settings: S, rows: Rows, folder: Path) -> list[str]:
    """Compute what is missing; what could not be computed, and why."""
    started, failures, new = time.perf_counter(), [], 0
    constant: Row = {"study": study.name, "settings_hash": settings.digest}
    bar = tqdm(list(study.compute(settings)), desc=study.name, unit="row", disable=None)
    try:
        for task in bar:
            if {**constant, **task.key} in rows and (task.output is None or task.output.exists()):
                continue
            if any(not path.exists() for path in task.needs):
                continue
            bar.set_postfix_str(task.label)
            began = time.perf_counter()
            try:
                columns = task.run()
            except InputError:
                raise
            except (ValueError, ArithmeticError, RuntimeError) as error:
                failures.append(f"{task.label or task.key}: {error}")
                continue
            rows.append({**constant, **task.key, **columns, **provenance(settings.device)})
            new += 1
            if task.label:
                tqdm.write(f"{task.label}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    finally:
        if new or (len(rows) and not (folder / "manifest.json").exists()):
            write_manifest(folder / "manifest.json", study.name, settings, rows.frame(), time.perf_counter() - started)
    return failures


def _report(study: Study[S], settings: S, rows: Rows, folder: Path, failures: list[str]) -> int:
    every = rows.frame() if len(rows) else pd.DataFrame(columns=["settings_hash", "seed"])
    mine = every[every["settings_hash"] == settings.digest]
    if len(mine):
        mine = settings.selected(mine[mine["data_hash"] == mine["data_hash"].iloc[-1]])
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    if mine.empty:
        others = f"; it has {len(every)} rows of other settings" if len(every) else ""
        reasons = "".join(f"\n  {failure}" for failure in failures)
        raise InputError(f"{rows.path} has no rows of these settings to show{others}. Run without --replot{reasons}")
    table, checks = study.table(mine), study.checks(mine)
    verdicts = [f"{'passed' if check.passed else 'FAILED'}: {check.claim}" for check in checks]
    verdicts += [f"not fitted: {failure}" for failure in failures]
    console.print(table)
    for line in verdicts:
        console.print(
            line, style="bold red" if not line.startswith("passed") else "green", highlight=False, markup=False
        )
    recorder = Console(file=io.StringIO(), width=WIDTH, record=True)
    recorder.print(table)
    recorder.print("\n".join(verdicts), highlight=False, markup=False)
    write_whole(folder / "table.txt", recorder.export_text())
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = study.name  # equal rows make equal files
    figure = study.figure(mine)
    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=160, bbox_inches="tight", metadata=metadata)
        write_whole(folder / f"figure.{suffix}", buffer.getvalue())
    console.print(f"Rows, figure, table and manifest: {folder}/", highlight=False, markup=False)
    return 1 if failures or not all(check.passed for check in checks) else 0
