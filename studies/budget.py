"""Studies within a budget of time, such as the minutes that a GPU is lent, those worth most first."""

from __future__ import annotations

import csv
import io
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from studies.kit.errors import InputError
from studies.kit.registry import doc, every_study
from studies.kit.rows import write_whole
from studies.kit.run import main as run
from studies.kit.study import Study
from studies.report.argument import in_order

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
QUICK = 60.0  # seconds: what --quick promises of any study
ENDED = {0: "all is well", 1: "a fit or a check failed", 2: "the request makes no sense", 130: "cut off, rows are kept"}
BROKEN = "broke off: "
NOT_STARTED = "not started: too little left"


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


@dataclass
class Pace:
    """Seconds taken for a second stated, over the studies that have ended; 1 before.

    >>> pace = Pace()
    >>> pace.took(stated=60, seconds=15)
    >>> pace.expected(120)
    30.0
    """

    pairs: list[tuple[float, float]] = field(default_factory=list)

    def took(self, stated: float, seconds: float) -> None:
        """A study has ended."""
        self.pairs.append((stated, seconds))

    def expected(self, stated: float) -> float:
        """Seconds that a study is expected to take."""
        return stated * (sum(s for _, s in self.pairs) / sum(s for s, _ in self.pairs) if self.pairs else 1.0)


def seconds_of(budget: str) -> float:
    """Of a time such as "8m".

    >>> seconds_of("8m"), seconds_of("90")
    (480.0, 90.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", budget.strip())
    if not found or not float(found[1]):
        raise InputError(f"--budget expects a positive time such as 480s, 8m or 0.5h; got {budget}")
    return float(found[1]) * SECONDS[found[2] or "s"]


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
    known = {study.name: study for _, part in in_order(every_study()) for study in part}
    if unknown := [name for name in options.studies if name not in known]:
        raise InputError(f"--studies: no study {', '.join(unknown)}; python -m studies lists them")
    chosen = [known[name] for name in options.studies or known]
    end, pace, table = clock() + seconds_of(options.budget), Pace(), []
    for study in chosen:
        time_stated, given = QUICK if options.quick else stated(study), arguments(study, options)
        begun, expected = clock(), pace.expected(time_stated)
        row = {"study": study.name, "arguments": " ".join(given), "stated": f"{time_stated:.0f}"}
        row |= {"expected": f"{expected:.0f}", "seconds": "", "ended": NOT_STARTED}
        if expected <= end - begun:
            status: int | None = None
            try:
                with _cut_off(end - begun):
                    status = start(study.package, given)
                ended = ENDED[status]
            except Exception as error:  # whatever befalls one study, the others have their turn
                traceback.print_exc()
                ended = f"{BROKEN}{type(error).__name__}: {error}"
            taken = clock() - begun
            row |= {"seconds": f"{taken:.1f}", "ended": " ".join(ended.split())}
            if status in (0, 1):
                pace.took(time_stated, taken)
        table.append(row)
    return table


def worst(table: list[dict[str, str]]) -> int:
    """Exit status of a table: 1 if a study failed or broke off, else 2 if the request of one made no sense, else 0."""
    ends = [row["ended"] for row in table]
    if ENDED[1] in ends or any(end.startswith(BROKEN) for end in ends):
        return 1
    return 2 if ENDED[2] in ends else 0


def write(table: list[dict[str, str]], options: Options) -> None:
    """Print the table, and write it beside the results."""
    shown = Table(*table[0], title=f"{options.budget} on {options.device}")
    for row in table:
        shown.add_row(*row.values())
    Console().print(shown)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([list(table[0]), *(list(row.values()) for row in table)])
    write_whole(options.output / "budget.csv", text.getvalue())


@contextmanager
def _cut_off(seconds: float) -> Iterator[None]:
    """An interrupt as from the keyboard after so many seconds; a study answers it with status 130."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
