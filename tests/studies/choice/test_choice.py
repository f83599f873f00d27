"""`choice`: rows of known truth, what is picked of given numbers, and that it runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lvm import PPCA
from studies.choice.measure import candidate, measure
from studies.choice.report import checks, selected
from studies.choice.rows_of import simulated, velocities
from studies.choice.settings import Key, Settings, tasks
from studies.choice.standings import curves, picks
from studies.kit.study import Task
from studies.kit.tables import series
from tests.studies.running import Refused, run

STUDY = "studies.choice"
SMALL = Settings(rows=60, folds=3, most_components=4, most_latents=4, most_of_vae=2, restarts=1, epochs=2, draws=5)
TINY = ["--quick", "--rows", "40", "--repeats", "2", "--folds", "2", "--most-components", "4"]
TINY += ["--most-of-vae", "2", "--epochs", "1", "--draws", "4", "--hidden", "4", "--families", "mixture", "vae"]


@pytest.mark.parametrize("family", ["mixture", "ppca", "vae"])
def test_sets_follow_seed_and_number(family: str) -> None:
    sets = [simulated(family, seed, repeat, 50) for seed, repeat in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert [each.hash == sets[0].hash for each in sets] == [True, True, False, False]
    assert sets[0].test is not None
    assert sets[0].train.shape == sets[0].test.shape


def test_three_latents_explain_what_is_simulated_for_ppca() -> None:
    found = simulated("ppca", 0, 0, 2000).train
    values = np.linalg.eigvalsh(np.cov(found.T))[::-1]
    assert values[2] > 1.3 * values[3]
    assert values[3:].mean() == pytest.approx(0.49, rel=0.1), "noise of 0.7"


def test_a_candidate_is_judged_by_rows_that_it_did_not_see() -> None:
    """Of the folds too: each row by a model of the others."""
    rows = simulated("ppca", 0, 0, 60)
    assert rows.test is not None
    found = candidate(SMALL, rows, Key("simulated", "", 0, "ppca", 0), 2)
    assert len(found.evidence) == 60
    assert found.elbo is None
    parameters = PPCA(8, 2).parameter_count
    whole = candidate(SMALL, replace(rows, test=rows.train), Key("simulated", "", 0, "ppca", 0), 2)
    assert found.bic == pytest.approx(parameters * math.log(60) - 2 * whole.evidence.sum().item(), rel=1e-4)
    assert found.evidence.mean() < whole.evidence.mean(), "what it saw is likelier"
    folded = candidate(SMALL, velocities(), Key("velocities", "", 0, "mixture", 0), 2)
    assert len(folded.evidence) == 82
    assert folded.evidence.isfinite().all()


def test_picks_follow_from_the_curves() -> None:
    rows = simulated("vae", 0, 0, 60)
    row = measure(SMALL, Task(Key("simulated", "generated", 0, "vae", 0), rows))
    evidence, bic, elbo = (series(str(row[name])) for name in ("evidence", "bic", "elbo"))
    behind, errors = series(str(row["behind"])), series(str(row["behind_errors"]))
    assert row["by_evidence"] == evidence.argmax() + 1
    assert row["by_bic"] == bic.argmin() + 1
    assert row["by_elbo"] == elbo.argmax() + 1
    assert row["by_one_error"] == int(np.flatnonzero(behind <= errors)[0]) + 1
    np.testing.assert_allclose(behind, evidence.max() - evidence, atol=1e-6)
    assert (elbo < evidence + 1).all(), "by other draws"
    assert row["truth"] == 2


def frame(picked: list[int], data: str = "simulated") -> pd.DataFrame:
    """Rows of so many sets of mixtures."""
    return pd.DataFrame(
        {"data": data, "family": "mixture", "repeat": range(len(picked)), "seed": 0, "truth": 4, "sizes": "3 4 5",
         "evidence": "-2 -1 -1.5", "behind": "1 0 0.5", "behind_errors": "0.1 0 0.1",
         "by_evidence": picked, "by_one_error": picked, "by_bic": picked}
    )  # fmt: skip


def test_shares_have_binomial_errors() -> None:
    found = picks(frame([4, 4, 5, 4]))
    assert [each.criterion for each in found] == ["evidence", "one_error", "bic"]
    assert found[0].share == 0.75
    assert found[0].mean == 4.25
    assert found[0].error == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
    assert picks(frame([4, 4]))[0].error > 0, "two successes prove no certainty"
    (curve,) = curves(frame([4, 4]))
    assert curve.truth == 4
    assert curve.behind.tolist() == [1.0, 0.0, 0.5]
    assert curves(frame([5], "velocities"))[0].picked == {"evidence": 5, "one_error": 5, "bic": 5}
    (always,) = checks(frame([4] * 12))
    assert always.verdict == "passed"
    rows = frame([5] * 12).assign(by_bic=4, family="vae")
    assert checks(rows)[1].verdict == "confirmed"
    assert checks(rows.assign(by_bic=5))[1].verdict == "open"
    assert checks(rows.assign(by_one_error=6))[0].failed


def test_rows_are_those_that_were_asked_for() -> None:
    kept = selected(Settings(repeats=2), pd.concat([frame([4, 4, 4]), frame([5], "velocities")]))
    assert len(kept) == 3
    keys = [task.key for task in tasks(replace(SMALL, repeats=2))]
    assert len(keys) == len(set(keys)) == 9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_runs(tmp_path: Path) -> None:
    status, rows = run(STUDY, TINY, tmp_path)
    assert status in (0, 1), "so few rows decide little"
    assert set(rows["data"]) == {"simulated", "velocities"}
    assert len(rows) == 5
    assert rows["by_elbo"].notna().sum() == 2


def test_requests_that_make_no_sense(refused: Refused) -> None:
    assert "must be embedded or oil-flow" in refused(STUDY, ["--data", "digits"])
    assert "--repeats must be at least 2" in refused(STUDY, ["--repeats", "1"])
