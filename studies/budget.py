"""Studies within a budget of time, such as the minutes that a GPU is lent, those worth most first."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from studies.kit.errors import InputError
from studies.kit.registry import doc, every_study
from studies.kit.rows import write_whole
from studies.kit.run import main as run
from studies.kit.study import Study
from studies.report.argument import in_order
from studies.turns import SECONDS, Turn, in_turns, seconds_of, status

QUICK = 60.0  # seconds: what --quick promises of any study

Start = Callable[[str, Sequence[str]], int]


@dataclass(frozen=True)
class Options:
    """Run studies until a budget is spent, in the order of the report.

    A study is started if as much time is left as its docstring states, times the pace of this machine as far as it was
    measured; what is under way at the end is cut off. Finished rows are kept, and the same command goes on from there.
    """

    budget: str
    """Seconds, or minutes or hours: 480s, 8m, 0.5h."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ... On cuda studies take their preset for a GPU, if they have one."""
    studies: tuple[str, ...] = ()
    """Which, in this order; without it all of them."""
    quick: bool = False
    """Small runs, less than a minute each."""
    output: Path = Path("results")
    """Folder for results; the table of this run is there as budget.csv."""


def stated(study: Study) -> float:
    """Seconds of a run with the defaults, as the docstring's ``Run time:`` has them: the first time that it names.

    >>> stated(Study("studies.naive_monte_carlo"))
    35.0
    """
    text = doc(study).sections["Run time"]
    found = re.search(r"(\d+(?:\.\d+)?) (?:CPU )?(second|minute|hour)", text)
    if not found:
        raise InputError(f"{study.package}: 'Run time:' names no time such as '5 minutes'")
    return float(found[1]) * SECONDS[found[2][0]]


def arguments(study: Study, options: Options) -> list[str]:
    """A study's command line: on cuda the preset that would compute there, if there is one, and the device as asked.

    >>> arguments(Study("studies.images"), Options("8m", "cuda:1"))
    ['--device', 'cuda:1', '--output', 'results', '--preset', 'gpu']
    """
    device = next(f for f in fields(study.settings) if f.name == "device")
    presets = [name for name, value in device.metadata.items() if value == "cuda" and options.device.startswith("cuda")]
    chosen = ["--preset", presets[0]] if presets else []
    quick = ["--quick"] if options.quick else []
    return ["--device", options.device, "--output", str(options.output), *chosen, *quick]


def within(options: Options, start: Start = run, clock: Callable[[], float] = time.monotonic) -> list[dict[str, str]]:
    """Run what fits; a row for each study, in order: what was asked, stated, expected and taken, and how it ended.

    Args:
        options: of the command line.
        start: runs a study of a package with arguments, and returns its exit status.
        clock: seconds.

    Raises:
        InputError: a time or a name makes no sense.
    """
    seconds = seconds_of(options.budget)
    known = {study.name: study for _, part in in_order(every_study()) for study in part}
    if unknown := [name for name in options.studies if name not in known]:
        raise InputError(f"--studies: no study {', '.join(unknown)}; python -m studies lists them")
    given = {name: arguments(known[name], options) for name in options.studies or known}
    turns = [
        Turn(name, QUICK if options.quick else stated(known[name]), partial(start, known[name].package, given[name]))
        for name in given
    ]
    return [
        {
            "study": found.turn.name,
            "arguments": " ".join(given[found.turn.name]),
            "stated": f"{found.turn.stated:.0f}",
            "expected": f"{found.expected:.0f}",
            "seconds": "" if found.seconds is None else f"{found.seconds:.1f}",
            "ended": found.ended,
        }
        for found in in_turns(turns, seconds, clock)
    ]


def worst(table: list[dict[str, str]]) -> int:
    """Exit status of a table: that of its worst row."""
    return status(row["ended"] for row in table)


def write(table: list[dict[str, str]], options: Options) -> None:
    """Print the table, and write it beside the results."""
    shown = Table(*table[0], title=f"{options.budget} on {options.device}")
    for row in table:
        shown.add_row(*row.values())
    Console().print(shown)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(table[0]), *(list(row.values()) for row in table)])
    write_whole(options.output / "budget.csv", text.getvalue())
