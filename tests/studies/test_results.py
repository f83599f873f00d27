"""Rows survive being killed: at most the row under way is lost, and nothing is half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies.errors import InputError
from studies.results import Rows, write_whole
from tests.places import ROOT

KEY = ("model", "seed")


def rows_with(path: Path, count: int) -> Rows:
    rows = Rows(path, KEY)
    for seed in range(count):
        rows.append({"model": 'a, "b"', "seed": seed, "value": 0.1 + 0.2, "missing": None})
    return rows


def test_what_is_appended_is_read_back_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    rows_with(path, 3)
    again = Rows(path, KEY)
    assert {"model": 'a, "b"', "seed": 2} in again
    assert {"model": 'a, "b"', "seed": 3} not in again
    frame = again.frame()
    assert frame["value"].tolist() == [0.1 + 0.2] * 3
    assert frame["seed"].tolist() == [0, 1, 2]
    assert frame["missing"].isna().all()


def test_an_append_touches_nothing_that_was_written_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = rows_with(path, 2)
    before, inode = path.read_bytes(), path.stat().st_ino
    rows.append({"model": "c", "seed": 0, "value": 1.0, "missing": None})
    assert path.read_bytes().startswith(before)
    assert path.stat().st_ino == inode


def test_a_new_column_keeps_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows_with(path, 2).append({"model": "c", "seed": 0, "extra": "x\ny"})
    frame = Rows(path, KEY).frame()
    assert frame["extra"].fillna("").tolist() == ["", "", "x y"]
    assert frame["value"].notna().tolist() == [True, True, False]


def test_the_last_row_of_a_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows_with(path, 2).append({"model": 'a, "b"', "seed": 1, "value": 7.0, "missing": None})
    assert Rows(path, KEY).frame()["value"].tolist() == [0.1 + 0.2, 7.0]


@pytest.mark.parametrize("lost", [1, 2, 10])
def test_a_cut_last_line_is_dropped_and_the_file_mended(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "rows.csv"
    rows_with(path, 3)
    path.write_bytes(path.read_bytes()[:-lost])
    rows = Rows(path, KEY)
    assert len(rows) == 2
    rows.append({"model": "c", "seed": 0, "value": 1.0, "missing": None})
    assert Rows(path, KEY).frame()["value"].tolist() == [0.1 + 0.2, 0.1 + 0.2, 1.0]


def test_a_cut_header_is_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"model,se")
    assert len(rows_with(path, 1)) == 1
    assert len(Rows(path, KEY)) == 1


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b"model,seed\n1,2,3\n", b"\xff\xfe\n"])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="move it away"):
        Rows(path, KEY)
    assert path.read_bytes() == content


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(TypeError):
        write_whole(path, 3)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


STUDY = """
import sys, time
from dataclasses import dataclass
from rich.text import Text
from matplotlib.figure import Figure
from studies import kit
from studies.settings import CommonSettings

@dataclass(frozen=True)
class Settings(CommonSettings):
    pass

def compute(settings):
    def run(step):
        time.sleep(0.05)
        with open(sys.argv[1], "a") as log:
            log.write(f"{step}\\n")
        return {"value": step / 7}
    for step in range(30):
        yield kit.Task({"data": "none", "data_hash": "0", "seed": 0, "step": step}, lambda step=step: run(step))

def table(df):
    return Text(f"{len(df)} rows")

study = kit.Study("fake", "A fake.", Settings, ("step",), compute, lambda df: Figure(), table)
raise SystemExit(kit.run(study, ["--output", sys.argv[2]]))
"""


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    log, path = tmp_path / "log", tmp_path / "fake" / "digits" / "rows.csv"
    command = [sys.executable, "-c", STUDY, str(log), str(tmp_path)]
    kept = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while (path.read_bytes().count(b"\n") if path.exists() else 0) < kept + 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        survivors = len(Rows(path, ("step",)))
        assert survivors >= kept + 3
        kept = survivors
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "30 rows" in result.stdout
    frame = Rows(path, ("step",)).frame()
    assert frame["value"].tolist() == [step / 7 for step in range(30)]
    runs = log.read_text().split()
    assert set(runs) == {str(step) for step in range(30)}
    assert len(runs) <= 30 + 3, "a kill cost more than the row under way"
