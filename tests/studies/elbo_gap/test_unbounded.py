"""A table on which densities have no maximum: each cause is named, and no unbounded model is best or proven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studies.elbo_gap.figure import figure
from studies.elbo_gap.standings import standings
from studies.elbo_gap.verdicts import comparisons, pairs
from studies.kit.errors import warn
from tests.studies.running import run

STUDY = "studies.elbo_gap"
TINY = ["--quick", "--steps", "20", "--elbo-draws", "20", "--local-steps", "0"]
MODELS = ["--models", "ppca", "mixture", "lu-flow", "coupling", "maf", "--linear-latents", "2"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two columns without ties, an atom, a copy, a sum of two columns; a tenth of the rows are there twice."""
    warn.cache_clear()
    random = np.random.default_rng(0)
    free = random.normal(size=(200, 3))
    free[free[:, 2] < 0.5, 2] = 0
    rows = np.column_stack([free, 2 * free[:, 0] + 1, free[:, 0] + free[:, 1]])
    rows = np.concatenate([rows, rows[:40]])[random.permutation(240)]
    lines = ["a,b,rain,copy,sum", *(",".join(map(repr, map(float, row))) for row in rows)]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "mine.csv"


def test_each_cause_is_named_and_nothing_unbounded_is_best(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = run(STUDY, [*TINY, *MODELS, "--data", str(path)], path.parent / "out")
    said = capsys.readouterr().err
    assert "column 3 (rain) (" in said
    assert "are 0) has an atom" in said
    assert "column 4 (copy) (as 1 (a)) is a copy" in said
    assert "column 5 (sum) (of 1 (a), 2 (b)) is a linear combination" in said
    assert "rows repeat another" in said
    assert "test rows are in the training part too. --group-duplicates keeps equal rows on one side" in said
    assert "--dequantise 3=STEP" in said
    assert status in (0, 1), "a check of the LU flow may fail: it has no optimum"
    of = {row.model: row.unbounded for row in standings(rows)}
    assert of == {"ppca": False, "mixture": False} | {name: True for name in of if name not in ("ppca", "mixture")}
    assert len(of) > 2, "flows are fitted all the same"
    words = comparisons(rows)
    assert words[0].startswith("Unbounded here: ")
    assert {name for pair in pairs(rows) for name in (pair.model, pair.versus)} == {"ppca", "mixture"}
    assert any(line.startswith(("Best by log p(x): PPCA", "Best by log p(x): Gaussian mixture")) for line in words)
    (table,) = (path.parent / "out").glob("*/*/table.txt")
    assert "unbounded here" in table.read_text()
    labels = [label.get_text() for label in figure(rows).axes[0].get_yticklabels()]
    assert sum("unbounded here" in label for label in labels) == len(of) - 2


def test_without_the_causes_nothing_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warn.cache_clear()
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(200, 3)))
    arguments = [*TINY, "--models", "gaussian", "maf", "--data", str(tmp_path / "mine.npy"), "--seeds", "0", "1"]
    status, rows = run(STUDY, arguments, tmp_path / "out")
    assert status == 0
    assert "warning" not in capsys.readouterr().err
    assert not any(row.unbounded for row in standings(rows))
    (pair,) = pairs(rows)
    assert pair.anew is not None
    assert pair.anew.error >= pair.fitted.error
    assert any(line.startswith("Proven of these models, over seeds too: ") for line in comparisons(rows))
