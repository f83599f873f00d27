"""A run: kills cost one row, processes share it, and rows belong to their data."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from studies.kit.rows import Rows
from studies.kit.seeds import derived_seed
from studies.kit.tables import frame
from tests.places import ROOT

KEY = ("step", "study", "data", "data_hash", "seed", "settings_hash")
CLOCK = ["seconds", "date"]


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.studies.kit.fake", "--output", str(folder), *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "FAKE_LOG": str(folder / "log"), "OMP_NUM_THREADS": "1"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, check=False, env=environment(folder)
    )


def rows_in(folder: Path) -> pd.DataFrame:
    return frame(Rows(folder / "fake" / "digits" / "rows.csv", KEY))


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_nothing(tmp_path: Path, kills: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert run(whole).returncode == 0
    moments = random.Random(20260301)
    path = cut / "fake" / "digits" / "rows.csv"
    for _ in range(kills):
        process = subprocess.Popen(
            command(cut, "--pause", "0.05"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(cut),
        )
        start, deadline = (path.stat().st_size if path.exists() else 0), time.monotonic() + 60
        while (path.stat().st_size if path.exists() else 0) == start and time.monotonic() < deadline:
            time.sleep(0.001)  # until it has written: so every kill falls among rows
        time.sleep(0.12 * moments.random())
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was finished before it was killed"
    result = run(cut)
    assert result.returncode == 0, result.stderr
    expected, found = rows_in(whole), rows_in(cut)
    order = ["step"]
    numbers = expected.columns.difference(CLOCK).tolist()
    pd.testing.assert_frame_equal(
        expected.sort_values(order, ignore_index=True)[numbers],
        found.sort_values(order, ignore_index=True)[numbers],
        check_exact=True,
    )
    begun = Counter((cut / "log").read_text().splitlines())
    assert len(begun) == 30
    assert sum(begun.values()) <= 30 + kills, "a kill cost more than the row under way"
    assert result.stdout == run(whole).stdout.replace(str(whole), str(cut))


@pytest.mark.slow
def test_ten_kills_of_the_main_study_change_nothing(tmp_path: Path) -> None:
    small = [
        "--quick",
        "--data",
        "wine",
        "--epochs",
        "2",
        "--draws",
        "100",
        "--components",
        "2",
        "--linear-latents",
        "3",
    ]
    study = [sys.executable, "-m", "studies.elbo_gap", *small, "--output"]
    started = time.monotonic()
    assert subprocess.run([*study, str(tmp_path / "whole")], cwd=ROOT, capture_output=True, check=False).returncode == 0
    length, moments = time.monotonic() - started, random.Random(20260302)
    for _ in range(10):
        process = subprocess.Popen(
            [*study, str(tmp_path / "cut")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(moments.uniform(0.05, 0.6) * length)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert subprocess.run([*study, str(tmp_path / "cut")], cwd=ROOT, capture_output=True, check=False).returncode == 0
    key = ("model", "versus", "study", "data", "data_hash", "seed", "settings_hash")
    expected, found = (
        frame(Rows(tmp_path / place / "elbo_gap" / "wine-quick" / "rows.csv", key)) for place in ("whole", "cut")
    )
    order, numbers = ["model", "versus"], expected.columns.difference([*CLOCK, "seconds_asking"]).tolist()
    pd.testing.assert_frame_equal(
        expected.sort_values(order, ignore_index=True)[numbers],
        found.sort_values(order, ignore_index=True)[numbers],
        check_exact=True,
        check_dtype=False,
    )


def test_what_was_written_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    log, path, kept = tmp_path / "log", tmp_path / "fake" / "digits" / "rows.csv", 0
    for _ in range(3):
        process = subprocess.Popen(
            command(tmp_path, "--pause", "0.05"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(tmp_path),
        )
        deadline = time.monotonic() + 60
        while (path.read_bytes().count(b"\n") if path.exists() else 0) < kept + 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        survivors = len(Rows(path, ("step",)))
        assert survivors >= kept + 3
        kept = survivors
    done = run(tmp_path, "--pause", "0")
    assert done.returncode == 0, done.stderr
    assert "30 rows" in done.stdout
    assert rows_in(tmp_path)["value"].tolist() == [derived_seed(0, str(step)) / 7 for step in range(30)]
    begun = log.read_text().splitlines()
    assert set(begun) == {f"0 {step}" for step in range(30)}
    assert len(begun) <= 30 + 3, "a kill cost more than the row under way"


def test_every_row_says_where_it_comes_from(tmp_path: Path) -> None:
    assert run(tmp_path).returncode == 0
    rows = rows_in(tmp_path)
    for column in ("seed", "device", "dtype", "versions", "settings_hash", "data_hash", "seconds", "date"):
        assert rows[column].notna().all(), column
    assert (rows["seconds"] > 0.015).all()
    assert list(rows.columns[:6]) == ["study", "settings_hash", "data", "data_hash", "seed", "step"]


def test_rows_are_shown_of_the_data_as_it_is_now(tmp_path: Path) -> None:
    first, other = run(tmp_path), run(tmp_path, "--hash", "1")
    again = run(tmp_path)  # the data as it was at first: nothing is computed, and its own rows are shown
    assert first.stdout == again.stdout != other.stdout
    assert "30 rows" in other.stdout
    assert len(rows_in(tmp_path)) == 60
    assert run(tmp_path, "--replot").stdout == other.stdout  # the latest
    assert len((tmp_path / "log").read_text().splitlines()) == 60


def test_of_several_processes_one_writes_and_all_compute(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, *command(tmp_path, "--pause", "0")[1:]],
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("30 rows") == 1
    begun = Counter((tmp_path / "log").read_text().splitlines())
    assert begun == Counter(f"{rank} {step}" for rank in range(2) for step in range(30))
    assert rows_in(tmp_path)["step"].tolist() == list(range(30))
    lines = (tmp_path / "fake" / "digits" / "rows.csv").read_text().splitlines()
    assert len(lines) == 31
    assert json.loads((tmp_path / "fake" / "digits" / "manifest.json").read_text())["study"] == "fake"
