"""Tables without atoms, sides that are chosen by held-out rows, and a study that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from significance import Verdict, decisions
from studies.defaults.measure import CANDIDATES, of_sides
from studies.defaults.report import difference, siblings
from studies.defaults.settings import ARMS, Settings
from studies.defaults.tables import SHIPPED, Table, smoothed, split
from studies.kit.compute import save_arrays
from tests.studies.running import Refused, run

STUDY = "studies.defaults"


@pytest.mark.parametrize("name", SHIPPED)
def test_tables_are_standardised_and_repeat_no_value(name: Table) -> None:
    data = split(name, 0, None)
    rows = np.concatenate([data.train, data.test])
    assert np.abs(data.train.mean(0)).max() < 1e-9
    assert np.abs(data.train.std(0) - 1).max() < 1e-9
    assert all(len(np.unique(column)) == len(column) for column in rows.T)
    assert split(name, 0, None).hash == data.hash != split(name, 1, None).hash


def test_atoms_are_left_out_and_levels_are_filled() -> None:
    random = np.random.default_rng(0)
    levels = random.integers(0, 100, 1000) / 4
    rows = np.stack([levels, np.where(random.random(1000) < 0.2, 0, random.random(1000)), random.random(1000)], 1)
    found = smoothed(rows, random)
    assert found.shape == (1000, 2)
    noise = found[:, 0] - np.unique(rows, axis=0)[:, 0]
    assert np.abs(noise).max() <= 0.125
    assert noise.std() == pytest.approx(0.25 / np.sqrt(12), rel=0.05)


def test_each_side_sends_the_model_in_that_place_by_its_held_out_rows(tmp_path: Path) -> None:
    values = np.arange(4.0)
    paths = [tmp_path / f"{name}.npz" for name in "abcd"]
    for path, held_out, shift in zip(paths, (1.0, 3.0, 5.0, 4.0), (0, 1, 2, 4), strict=True):
        save_arrays(path, log_p=values + shift, held_out=held_out)
    best, second = (of_sides(tuple(paths[:2]), tuple(paths[2:]), place) for place in (0, 1))
    assert (best["ours"], best["theirs"], best["difference"]) == ("b", "c", -1.0)
    assert (second["ours"], second["theirs"], second["difference"]) == ("a", "d", -4.0)


def test_errors_of_rows_and_of_seeds_and_holm() -> None:
    rows = pd.DataFrame({"difference": [1.0, 1.2, 0.8], "difference_error": [0.01] * 3, "test_rows": [100] * 3})
    (single, none), (_, one) = difference(rows[:1]), difference(rows)
    assert none is None
    assert one is not None
    assert one.mean == pytest.approx(1.0)
    assert one.error == pytest.approx(0.2 / np.sqrt(3), rel=0.01)  # between fits; rows add little
    assert one.fits_freedom == pytest.approx(2)  # three fits, and so Student's t: 1 ± 0.12 has a p of 0.013
    assert one.p_value == pytest.approx(0.013, abs=5e-4)
    assert (single.error, single.freedom) == (pytest.approx(0.01), 99)
    alike = rows.assign(difference=[0.1, -0.1, 0.1])
    found = decisions({"one": difference(rows[:1]), "three": difference(rows), "open": difference(alike)})
    assert [each.of_all for each in found.values()] == [Verdict.FIRST, Verdict.FIRST, Verdict.OPEN]


def test_a_builder_that_falls_behind_is_named() -> None:
    rows = pd.DataFrame(
        [
            {"data": data, "model": model, "versus": np.nan, "log_p": value, "train_rows": count}
            for data, count in (("large", 3000), ("small", 300))
            for model, value in (("glow", 0.0), ("maf", -1.5), ("nsf", 2.0), ("spline-maf", 1.5))
        ]
    )
    (line,) = siblings(rows)
    assert line.endswith(": maf on large (-1.50).")


def test_every_arm_has_a_candidate() -> None:
    assert set(ARMS) < set(CANDIDATES)
    assert Settings().arms == ()


def test_the_study_runs_and_replots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--most-steps", "20", "--hidden", "8", "--builders", "glow", "spline-maf"]
    arguments += ["--arms", "glow, rotations", "spline-maf, averaged"]
    status, rows = run(STUDY, arguments, tmp_path)
    assert status == 0
    assert "passed: every model gives every test row a finite log p" in capsys.readouterr().out
    alone = rows[rows["versus"].isna()].set_index("model")["log_p"]
    paired = rows[rows["versus"] == "glow"].set_index("model")["difference"]
    assert paired["glow, rotations"] == pytest.approx(alone["glow, rotations"] - alone["glow"], abs=1e-9)
    assert set(rows["model"]) >= {"best", "second", "nflows MAF", "gaussian", "mixture"}
    run(STUDY, [*arguments, "--replot"], tmp_path)
    assert "Ours minus theirs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--builders", "maf", "maf"], "--builders expects different names"),
        (["--most-steps", "0"], "--most-steps must be positive"),
        (["--tables", "protein"], "protein"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
