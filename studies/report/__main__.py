"""The command line of the page of results: ``python -m studies.report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

import studies.report
from studies.kit.errors import InputError
from studies.kit.registry import every_study
from studies.kit.rows import write_whole
from studies.kit.study import Study
from studies.report.committed import results
from studies.report.page import chapter, page
from studies.report.redraw import redraw


@dataclass(frozen=True)
class Settings:
    """Where results are and where the page goes."""

    results: Path = Path("results")
    """A folder of your own results, shown beside the committed ones; it need not exist."""
    output: Path = Path("results/report.html")
    """The page."""
    studies: tuple[str, ...] = ()
    """Names of the studies that the page shows; without any, all."""
    redraw: bool = False
    """Draw the committed figures again from the committed rows, and make no page. Figures of arrays, which are not
    committed, need those of a run of the same settings in the folder of results."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 if a check failed or committed rows are of other settings."""
    settings = tyro.cli(
        Settings,
        prog="python -m studies.report",
        description=studies.report.__doc__,
        args=None if arguments is None else list(arguments),
    )
    try:
        folder = settings.results if settings.results.is_dir() else None
        chosen = asked(settings.studies)
        if settings.redraw:
            for line in redraw(chosen, folder):
                print(line)
            return 0
        chapters = [chapter(study, results(study, folder)) for study in chosen]
        write_whole(settings.output, page(chapters))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = [(one.name, result) for one in chapters for result in one.results]
    failed = [f"{name}: {check.claim}" for name, result in shown for check in result.checks if check.failed]
    stale = [f"{name}: {result.warning}" for name, result in shown if result.warning]
    for line in [*(f"FAILED: {line}" for line in failed), *(f"warning: {line}" for line in stale)]:
        print(line, file=sys.stderr)
    print(f"{settings.output}: {len(chapters)} studies, {len(shown)} results")
    return 1 if failed or stale else 0


def asked(names: Sequence[str]) -> list[Study]:
    """The studies of these names, or all.

    Raises:
        InputError: there is none of a name.
    """
    every = {study.name: study for study in every_study()}
    if unknown := [name for name in names if name not in every]:
        raise InputError(f"--studies: there is no {', '.join(unknown)}; there are {', '.join(every)}")
    return [every[name] for name in names] if names else list(every.values())


if __name__ == "__main__":
    raise SystemExit(main())
