"""Interleaved timing: contestants take turns within each round, so that a busy machine slows all of them alike."""

from __future__ import annotations

import csv
import os
import platform
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from benchmarks.contestants import Absent, Work, present

CPU = torch.device("cpu")
TURN = 20e-3  # seconds of a contestant's calls in a round
PAUSE = 200e-3  # seconds; after its last work, another library's pool of threads spins for half of them


@dataclass(frozen=True)
class Row:
    """One contestant at one job; times in milliseconds a call, nan if it is absent, with the reason as the note.

    ``ratio`` is the median over rounds of this contestant's time over ours in the same round: above 1, ours is faster.
    """

    job: str
    contestant: str
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    ratio: float
    peak_mib: float
    rounds: int
    dtype: str
    device: str
    threads: int
    torch_version: str
    version: str
    machine: str
    note: str = ""


def use_threads(count: int) -> None:
    """So many threads for torch and for what numpy and scipy call, whatever the environment says."""
    torch.set_num_threads(count)
    threadpool_limits(limits=count)


@dataclass(frozen=True)
class Race:
    """A job and its contestants, the first of which is ours; notes are about some of them.

    Where contestants have pools of several threads each (``pools``), beside torch's, a pause and a call that is not
    timed come before each turn.
    """

    job: str
    contestants: Mapping[str, Work | Absent]
    notes: Mapping[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    pools: bool = False

    def run(self, seconds: float, device: torch.device = CPU) -> list[Row]:
        """Time the contestants in turns; those that fail at their first call are absent.

        A round gives each contestant calls for 20 ms, so that it is timed as it runs in a loop, with its weights in
        cache, and not as the first call after another library's. Rounds go on for the given time, at least 3 and at
        most 400. CPU times are those of the process, which other processes on the machine do not enter; with several
        threads they are wall-clock times, on CUDA the device's own, between events.
        """
        calls: dict[str, int | Absent] = {
            name: one if isinstance(one, Absent) else present(lambda one=one: _calls(one, device))
            for name, one in self.contestants.items()
        }
        ours = next(iter(calls))
        if isinstance(calls[ours], Absent):
            raise RuntimeError(f"{self.job}: ours does not run: {calls[ours]}")
        names = [name for name, count in calls.items() if not isinstance(count, Absent)]
        rounds: list[dict[str, float]] = []
        start = time.perf_counter()
        while len(rounds) < 3 or (time.perf_counter() - start < seconds and len(rounds) < 400):
            shift = len(rounds) % len(names)
            turns = {}
            for name in names[shift:] + names[:shift]:
                if self.pools and torch.get_num_threads() > 1:
                    time.sleep(PAUSE)
                    if calls[name] > 1:
                        self.contestants[name]()
                turns[name] = _seconds(self.contestants[name], calls[name], device)
            rounds.append(turns)
        return [self._row(name, calls[name], rounds, ours, device) for name in calls]

    def _row(
        self, name: str, calls: int | Absent, rounds: Sequence[Mapping[str, float]], ours: str, device: torch.device
    ) -> Row:
        figures = [float("nan")] * 5
        if not isinstance(calls, Absent):
            times = sorted(1e3 * one[name] for one in rounds)
            lower, median, upper = (round(time, 4) for time in statistics.quantiles(times, n=4))
            ratio = round(statistics.median(one[name] / one[ours] for one in rounds), 3)
            figures = [median, lower, upper, ratio, round(peak_mib(self.contestants[name], device), 1)]
        return Row(
            self.job,
            name,
            *figures,
            len(rounds) if not isinstance(calls, Absent) else 0,
            str(self.dtype).removeprefix("torch."),
            device.type,
            torch.get_num_threads(),
            torch.__version__,
            _version(name),
            _machine(device),
            str(calls) if isinstance(calls, Absent) else self.notes.get(name, ""),
        )


def _calls(work: Work, device: torch.device) -> int:
    """How many make a turn."""
    once = _seconds(work, 1, device)
    if once < 1:  # what takes longer needs no warmth
        work()
        once = _seconds(work, 1, device)
    return max(1, round(TURN / max(once, 1e-6)))


def write(rows: Iterable[Row], path: Path) -> None:
    """All rows as one CSV file, written whole."""
    write_records([asdict(row) for row in rows], path)


def write_records(records: Sequence[Mapping[str, object]], path: Path) -> None:
    """Records of the same names as one CSV file, written whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    os.replace(unfinished, path)


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'job':<52} {'contestant':<14} {'ms':>9} {'quartiles':>19} {'/ ours':>7} {'MiB':>7}"]
    for row in rows:
        if not row.rounds:
            lines.append(f"{row.job:<52} {row.contestant:<14} {row.note}")
            continue
        spread = f"{row.lower_quartile_ms:.2f} … {row.upper_quartile_ms:.2f}"
        lines.append(
            f"{row.job:<52} {row.contestant:<14} {row.median_ms:>9.2f} {spread:>19} "
            f"{row.ratio:>7.2f} {row.peak_mib:>7.1f}"
        )
    return "\n".join(lines)


def _version(contestant: str) -> str:
    """Of the library that a contestant is named after; ours and the floor are of no other."""
    try:
        return metadata.version(contestant.partition(",")[0])
    except metadata.PackageNotFoundError:
        return ""


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def _seconds(work: Work, calls: int, device: torch.device) -> float:
    if device.type == "cuda":
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(calls):
            work()
        last.record()
        torch.cuda.synchronize(device)
        return first.elapsed_time(last) / 1e3 / calls
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(calls):
        work()
    return (clock() - start) / calls


def peak_mib(work: Work, device: torch.device) -> float:
    """Memory that one call takes beyond what was held before it; NaN where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - held) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    except OSError:
        return float("nan")
    held = _resident("VmRSS")
    work()
    return max(0.0, (_resident("VmHWM") - held) / 2**10)


def _resident(name: str) -> float:
    with Path(f"/proc/{os.getpid()}/status").open() as status:
        return float(next(line.split()[1] for line in status if line.startswith(f"{name}:")))
