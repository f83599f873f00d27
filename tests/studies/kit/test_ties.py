"""A table with ties on the command line, as somebody would have one: what is said, and what the cure changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studies.kit.errors import warn
from studies.kit.run import main
from tests.studies.running import Refused, run

STUDY = "studies.elbo_gap"
SMALL = ["--quick", "--models", "lu-flow", "gaussian", "--steps", "20"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    warn.cache_clear()
    random = np.random.default_rng(0)
    columns = [random.normal(size=100), random.integers(0, 9, 100), random.normal(size=100).round(1)]
    lines = ["height,children,rounded", *(",".join(map(repr, map(float, row))) for row in np.column_stack(columns))]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine.csv"


def test_ties_are_named_once_with_the_option_that_cures_them(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = run(STUDY, [*SMALL, "--data", str(path)], path.parent / "out")
    assert status == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(said) == 1, "not once a model"
    assert "columns 2 (children) (9 values), 3 (rounded) (" in said[0]
    assert said[0].endswith("Cure: --dequantise 2 3 adds noise to what repeats")


def test_the_cure_silences_it_and_is_said_in_the_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--dequantise", "children", "3"]
    status, rows = run(STUDY, [*SMALL, "--data", str(path), *chosen], path.parent / "out")
    assert status == 0
    assert "warning" not in capsys.readouterr().err
    assert "columns 2 (children), 3 (rounded) dequantised" in rows["note"].dropna().iloc[0]
    (table,) = (path.parent / "out").glob("*/*/table.txt")
    assert "--dequantise children 3" in table.read_text()
    (figure,) = (path.parent / "out").glob("*/*/figure.svg")
    assert figure.stat().st_size > 0


def test_bare_it_is_asked_for_columns(refused: Refused) -> None:
    line = refused(STUDY, ["--data", "wine", "--dequantise"])
    assert line == "error: --dequantise expects names or numbers of columns, or all; got none"
    line = refused("studies.survae", ["--dequantise", "all"])
    assert line == "error: --dequantise changes nothing in survae with --data toys: leave it out"
    assert "has no column 'ash2'" in refused(STUDY, ["--data", "wine", "--dequantise", "ash2"])


def test_help_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(STUDY, ["--help"])
    assert "Columns of a table, by name or by number from 1, or all" in " ".join(capsys.readouterr().out.split())
