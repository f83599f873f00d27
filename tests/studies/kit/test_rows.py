"""Rows survive being killed: at most the row under way is lost, and nothing is half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.kit.errors import InputError
from studies.kit.rows import Rows, write_whole
from studies.kit.tables import frame

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
    read = frame(again)
    assert read["value"].tolist() == [0.1 + 0.2] * 3
    assert read["seed"].tolist() == [0, 1, 2]
    assert read["missing"].isna().all()


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
    read = frame(Rows(path, KEY))
    assert read["extra"].fillna("").tolist() == ["", "", "x y"]
    assert read["value"].notna().tolist() == [True, True, False]


def test_the_last_row_of_a_key_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows_with(path, 2).append({"model": 'a, "b"', "seed": 1, "value": 7.0, "missing": None})
    assert frame(Rows(path, KEY))["value"].tolist() == [0.1 + 0.2, 7.0]


@pytest.mark.parametrize("lost", [1, 2, 10])
def test_a_cut_last_line_is_dropped_and_the_file_mended(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "rows.csv"
    rows_with(path, 3)
    path.write_bytes(path.read_bytes()[:-lost])
    rows = Rows(path, KEY)
    assert len(rows) == 2
    rows.append({"model": "c", "seed": 0, "value": 1.0, "missing": None})
    assert frame(Rows(path, KEY))["value"].tolist() == [0.1 + 0.2, 0.1 + 0.2, 1.0]


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
