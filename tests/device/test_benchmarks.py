"""The benchmarks run on a CUDA device: on the pretended one, in small sizes, with the peers that are here."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.__main__
from benchmarks.__main__ import main
from benchmarks.contestants import Absent
from benchmarks.jobs import JOBS, SMALL, Job
from benchmarks.timing import Race, Row
from tests.device.counting import counting
from tests.device.pretended import pretended

CUDA = torch.device("cuda")
ELSEWHERE = {"zuko", "normflows", "FrEIA", "pomegranate", "torchgmm", "pythae"}  # in the benchmarks' own environment


class Event:
    """A moment of the host's."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        self.moment = float("nan")

    def record(self) -> None:
        self.moment = time.perf_counter()

    def elapsed_time(self, later: Event) -> float:
        return 1e3 * (later.moment - self.moment)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pretended device with a clock, a memory and a name, and without a compiler."""

    def no_compiler(*_: object, **__: object) -> Any:  # noqa: ANN401
        raise RuntimeError("no compiler here")

    found = {
        "Event": Event,
        "synchronize": lambda _: None,
        "reset_peak_memory_stats": lambda _: None,
        "memory_allocated": lambda _: 2**20,
        "max_memory_allocated": lambda _: 3 * 2**20,
        "get_device_name": lambda _: "a pretended GPU",
    }
    for name, value in found.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "compile", no_compiler)
    with pretended():
        yield


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_contestant_that_fails_is_absent_with_the_reason() -> None:
    def fails() -> None:
        raise RuntimeError("not here\nand not there")

    race = Race("job", {"ours": lambda: None, "theirs": fails, "others": Absent("too large")})
    ours, theirs, others = race.run(0.0)
    assert ours.rounds == 3
    assert (theirs.rounds, theirs.note) == (0, "absent: RuntimeError: not here")
    assert (others.rounds, others.note) == (0, "absent: too large")
    with pytest.raises(RuntimeError, match="ours does not run"):
        Race("job", {"ours": fails}).run(0.0)


@pytest.mark.usefixtures("device")
def test_time_and_memory_are_the_device_s() -> None:
    (row,) = Race("job", {"ours": lambda: time.sleep(2e-3)}).run(0.0, CUDA)
    assert (row.device, row.machine, row.peak_mib) == ("cuda", "a pretended GPU", 2.0)
    assert 2 <= row.median_ms < 200


def test_what_the_bars_are_about_comes_first() -> None:
    assert [job.name for job in JOBS if job.on in ("", "cuda")][:4] == [
        "coupling + LU, 6 features",
        "compiled coupling + LU, 6 features",
        "autoregressive inverse, 63 features",
        "EM full, n=10,000,000 D=16 K=32, float64",
    ]
    assert {job.make.func for job in SMALL} == {job.make.func for job in JOBS}


def test_a_run_that_is_cut_off_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def races(device: torch.device) -> Iterator[Race]:
        yield Race("first", {"ours": lambda: None, "theirs": lambda: None})
        yield Race("second", {"ours": lambda: time.sleep(30)})

    monkeypatch.setattr(benchmarks.__main__, "JOBS", (Job("em", "two", races, 2, making=0.1),))
    begun = time.monotonic()
    wanted = ["em", "--seconds", "0.1", "--threads", "1", "--budget", "2.5s", "--output", str(tmp_path)]
    assert main(wanted) == 0
    assert time.monotonic() - begun < 20
    assert [row["job"] for row in read(tmp_path / "models.csv")] == ["first", "first"]
    assert (tmp_path / "models.png").exists()
    assert main(["em", "--threads", "1", "--budget", "0.1s", "--output", str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none").exists()
    assert main(["--budget", "soon"]) == main(["--device", "hpu"]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("device")
def test_everything_runs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = []

    def watched(race: Race, *arguments: Any, run: Any = Race.run) -> list[Row]:  # noqa: ANN401 - as it is
        rows: list[Row] = run(race, *arguments)
        for name in (row.contestant for row in rows if row.rounds):
            with counting() as counts:
                race.contestants[name]()
            if not counts.kernels:
                elsewhere.append(f"{race.job}: {name}")
        return rows

    monkeypatch.setattr(Race, "run", watched)
    assert main(["--device", "cuda", "--small", "--output", str(tmp_path)]) == 0
    assert not elsewhere
    rows = read(tmp_path / "cuda.csv")
    assert (tmp_path / "cuda.png").exists()
    assert len({row["job"] for row in rows}) == sum(job.races for job in SMALL)
    assert {(row["device"], row["machine"]) for row in rows} == {("cuda", "a pretended GPU")}
    absent = {row["contestant"]: row["note"] for row in rows if row["rounds"] == "0"}
    here = {name for name in absent if name.partition(",")[0] not in ELSEWHERE}
    assert here == {"ours, compiled", "scikit-learn", "scikit-learn, its choice"}, absent
    assert absent["scikit-learn"] == "absent: computes on the CPU alone"
    assert absent["ours, compiled"] == "absent: RuntimeError: no compiler here"
