"""Rows as data frames: numbers where all of a column are, the rows that settings ask for, means over seeds."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from significance import over_seeds
from studies.elbo_gap.settings import Settings
from studies.kit.compute import curve
from studies.kit.rows import Rows
from studies.kit.study import Study
from studies.kit.tables import Number, averaged, frame, selected, series
from studies.report.committed import results


def test_a_column_is_of_numbers_where_all_its_cells_are_and_a_hash_never_is(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.csv", ("seed",))
    rows.append({"seed": 0, "data_hash": "123456", "draws": 5, "value": 0.1, "at": "0.1"})
    rows.append({"seed": 1, "data_hash": "1e5", "draws": None, "value": 2, "at": "none"})
    read = frame(rows)
    assert read["seed"].tolist() == [0, 1]
    assert read["data_hash"].tolist() == ["123456", "1e5"]
    assert read["draws"].iloc[0] == 5
    assert math.isnan(read["draws"].iloc[1])
    assert read["value"].tolist() == [0.1, 2.0]
    assert read["at"].tolist() == ["0.1", "none"]


def test_a_run_shows_its_seeds_and_its_models() -> None:
    study = Study("studies.elbo_gap")
    every = results(study)[0].rows
    assert every["seed"].nunique() == 3
    few = selected(study, Settings(seeds=(1, 2), models=("ppca", "vae-2")), every)
    assert set(few["seed"]) == {1, 2}
    assert set(few["model"]) == {"ppca", "vae-2"}
    assert set(few["versus"].dropna()) == {"ppca"}
    assert len(few) == 2 * 3  # two models, one pair


def test_errors_of_means_are_those_that_verdicts_have() -> None:
    errors = [0.2, 0.6, 0.5, 0.1]
    rows = pd.DataFrame(
        {"part": ["a"] * 4, "at": ["x", "x", "y", "y"], "seed": [0, 1] * 2, "v": [1.0, 3.0, 5.0, 7.0]}
    ).assign(v_error=errors, monte_carlo_error=errors, w_error=errors)
    found = averaged(rows, "part", "at", draws=("w_error",))
    assert found["v"].tolist() == [2.0, 6.0]
    assert found.index.tolist() == [("a", "x"), ("a", "y")]
    fitted = [over_seeds(of["v"], of["v_error"], 100)[0].error for _, of in rows.groupby("at")]
    assert found["v_error"].tolist() == pytest.approx(fitted)
    for name in ("monte_carlo_error", "w_error"):  # of independent draws
        assert found[name].tolist() == pytest.approx([math.hypot(0.2, 0.6) / 2, math.hypot(0.5, 0.1) / 2])


def test_the_same_test_rows_in_every_seed_are_no_more_of_them() -> None:
    one = pd.DataFrame({"model": ["a"], "seed": [0], "v": [1.0], "v_error": [0.6]})
    several = pd.concat([one.assign(seed=seed) for seed in range(9)])
    assert averaged(several, "model")["v_error"].item() == pytest.approx(0.6)
    assert averaged(pd.concat([one, several.assign(model="b")]), "model")["v_error"]["a"] == 0.6  # of one seed


def test_a_sum_of_numbers_has_the_errors_of_both() -> None:
    assert str(Number(-1.0, 0.3) + Number(3.0, 0.4)) == "2.00 ± 0.50"


def test_a_curve_is_read_as_it_was_written() -> None:
    assert curve([1, 2 / 3], 4) == "1 0.6667"
    assert series(curve([1, 2 / 3], 4)).tolist() == [1.0, 0.6667]
    assert series("0.5").tolist() == [0.5]
