"""Speed beside the peers: ``python -m benchmarks`` (needs benchmarks/requirements.txt).

Flows against nflows, zuko, normflows and FrEIA; EM against scikit-learn, pomegranate and torchgmm; PPCA against
scikit-learn; a VAE against pythae; multi-scale Glow against normflows and nflows. What can be is computed with the same
weights, and compared before it is timed; a peer that cannot take part is named with the reason.

Rows are written after each race, so that a run that is cut off loses nothing, to a table for each part, on CUDA to one
for all; a plot is beside it. With a budget of time, and on CUDA there is always one, jobs go by their worth, and one is
started if it is expected to fit.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.jobs import JOBS, ROOMS, SMALL, Job
from benchmarks.plot import plot
from benchmarks.timing import Row, table, use_threads, write
from studies.kit.errors import InputError
from studies.turns import Turn, in_turns, seconds_of, status

BUDGET = "8m"  # on CUDA
TABLES = {"em": "models", "ppca": "models", "vae": "models"}  # by the word of the command line, if it is another


class Tables:
    """The rows of a run, each table written anew with every race that ends."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.rows: dict[str, list[Row]] = {}

    def add(self, room: str, rows: list[Row]) -> None:
        """What a race found."""
        print(table(rows), flush=True)
        name = TABLES.get(room, room) if self.device.type == "cpu" else self.device.type
        self.rows.setdefault(name, []).extend(rows)
        write(self.rows[name], self.folder / f"{name}.csv")

    def draw(self) -> None:
        """A plot beside each table."""
        for name, rows in self.rows.items():
            plot(rows, self.folder / f"{name}.png")
            print(f"rows: {self.folder / name}.csv")


def turns(options: argparse.Namespace, tables: Tables) -> Iterator[Turn]:
    """The jobs that were asked for, with each number of threads."""
    device: torch.device = options.device
    jobs = [job for job in (SMALL if options.small else JOBS) if job.on in ("", device.type)]
    seconds = options.seconds or (4.0 if device.type == "cuda" else 12.0)
    seconds = 0.0 if options.small else 1.0 if options.quick else seconds

    def start(job: Job, threads: int) -> int:
        use_threads(threads)
        torch.manual_seed(0)
        for race in job.make(device):
            tables.add(job.room, race.run(seconds, device))
        return 0

    for threads in options.threads or ([1, 2] if device.type == "cpu" else [torch.get_num_threads()]):
        for job in jobs:
            if job.room in (options.only or ROOMS):
                stated = job.making + job.races * max(seconds, 1.0)
                yield Turn(job.name, stated, partial(start, job, threads))


def require(device: torch.device) -> None:
    """Refuse a device on which nothing can be made, before every job breaks off at it."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, ImportError, RuntimeError) as error:
        raise InputError(f"--device {device}: this machine or this torch has none ({error})") from error


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for or fits; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("only", nargs="*", metavar="|".join(ROOMS), choices=[[], *ROOMS], help="which of them (default: all)")
    add("--device", type=torch.device, default="cpu", help="where all is computed: cpu (default), cuda, cuda:1, ...")
    add("--budget", help=f"time in all, such as 90s or 8m (default: {BUDGET} on CUDA, else none)")
    add("--seconds", type=float, help="of a race (default: 12, on CUDA 4)")
    add("--quick", action="store_true", help="a second a race, for a look")
    add("--small", action="store_true", help="tiny sizes, to see whether everything runs; the times mean nothing")
    add("--threads", type=int, nargs="+", help="of every library (default: 1, then 2; on CUDA torch's own)")
    add("--output", type=Path, default=Path("results/benchmarks"), help="folder of tables and plots")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of the peers, about their own calls
    tables = Tables(options.output, options.device)
    budget = options.budget or (BUDGET if options.device.type == "cuda" else None)
    ends: list[str] = []
    try:
        require(options.device)
        for outcome in in_turns(turns(options, tables), seconds_of(budget) if budget else math.inf):
            taken = "" if outcome.seconds is None else f" after {outcome.seconds:.0f} s"
            print(f"{outcome.turn.name}: {outcome.ended}{taken} (expected: {outcome.expected:.0f} s)", flush=True)
            ends.append(outcome.ended)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        tables.draw()
    return status(ends)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
