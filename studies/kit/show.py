"""Showing a study's rows: table, checks and figure, on the terminal and in files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from studies.kit.errors import InputError
from studies.kit.figures import add, draw
from studies.kit.rows import Outcome, write_whole
from studies.kit.settings import CommonSettings
from studies.kit.study import Check, Finding, Study
from studies.kit.tables import frame, selected

WIDTH = 150  # of tables that go to a file
STYLES = {  # of lines that begin so; others are bad news
    "passed": "green", "undecided": "yellow", "left out": "yellow",
    "confirmed": "green", "the opposite": "bold yellow", "open": "yellow",
}  # fmt: skip


def show(study: Study, settings: CommonSettings, folder: Path, outcome: Outcome) -> int:
    """Print and write what the rows of these settings say; the exit status: 1 if a fit failed or a check did.

    Raises:
        InputError: there are no such rows.
    """
    every, failures = frame(outcome.rows), outcome.failures
    mine = of_this_run(study, settings, every, outcome.hashes)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, soft_wrap=False)
    if mine.empty:
        if failures:
            raise InputError("nothing could be computed:" + "".join(f"\n  {failure}" for failure in failures))
        others = f"; it has {len(every)} rows of other settings" if len(every) else ""
        again = ". Run without --replot" if settings.replot else ""
        raise InputError(f"{outcome.rows.path} has no rows of these settings to show{others}{again}")
    table, checks = study.report.table(mine), study.report.checks(mine)
    verdicts = [line_of(check) for check in checks]
    verdicts += [f"not fitted: {failure}" for failure in failures]
    verdicts += [f"left out: {reason}" for reason in outcome.refused]
    sources = sources_of(mine)
    console.print(table)
    for line in sources:
        console.print(line, highlight=False, markup=False)
    for line in verdicts:
        console.print(line, style=STYLES.get(line.partition(":")[0], "bold red"), highlight=False, markup=False)
    recorder = Console(file=io.StringIO(), width=WIDTH, record=True)
    recorder.print(f"python -m studies.{study.name} {settings.options()}".strip(), highlight=False, markup=False)
    recorder.print(table)
    recorder.print("\n".join([*sources, *verdicts]), highlight=False, markup=False)
    write_whole(folder / "table.txt", recorder.export_text())
    figure = study.report.figure(mine)
    if settings.dequantise:
        add(figure, f"Dequantised columns: {', '.join(settings.dequantise)}.")
    for line in sources:
        add(figure, line)
    draw(study.name, figure, folder / "figure.png", folder / "figure.svg", about=study.shows(settings.data))
    if outcome.new == 0:
        again = f"All {len(mine)} rows were there already; to compute them again, delete {outcome.rows.path}."
        print(again, file=sys.stderr)
    if len(every) > len(mine):
        some = f"Figure and table show the {len(mine)} rows of this run's settings; rows.csv holds {len(every)}."
        print(some, file=sys.stderr)
    console.print(f"Rows, figure, table and manifest: {folder}/", highlight=False, markup=False)
    return 1 if failures or any(check.failed for check in checks) else 0


def line_of(check: Check) -> str:
    """Verdict and claim, and what came where the claim does not say it."""
    measured = f": {check.measured}" if check.measured and check.measured not in check.claim else ""
    return f"{check.verdict}: {check.claim}{measured if isinstance(check, Finding) else ''}"


def sources_of(rows: pd.DataFrame) -> list[str]:
    """Of rows of one's own files, which they are and what of them was data, a sentence each."""
    if "source" not in rows:
        return []
    return [f"Data: {source}." for source in rows["source"].dropna().unique()]


def of_this_run(
    study: Study, settings: CommonSettings, every: pd.DataFrame, hashes: frozenset[str] | None
) -> pd.DataFrame:
    """The rows that a run shows: of its settings, its seeds and its data as it is now.

    Where the data was not loaded (``--replot``), of rows that differ in the data's hash alone the latest data counts.
    """
    if every.empty:
        return every
    mine = every[every["settings_hash"] == settings.digest]
    if hashes is None:
        latest = mine.groupby("data")["data_hash"].agg("last")
        mine = mine[mine["data_hash"] == mine["data"].map(latest)] if len(mine) else mine
    else:
        mine = mine[mine["data_hash"].isin(hashes)]
    return selected(study, settings, mine) if len(mine) else mine
