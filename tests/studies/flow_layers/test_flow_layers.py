"""Flows of one budget: equal parameters, equal starts, and a study that runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from studies.flow_layers import measure as measuring
from studies.flow_layers.measure import built, measure, width_nearest
from studies.flow_layers.report import selected, table
from studies.flow_layers.settings import REFERENCE, Settings, tasks
from studies.kit.compute import parameter_count
from studies.kit.study import Study
from studies.report.committed import results
from tests.studies.running import Refused, run

STUDY = "studies.flow_layers"


def test_the_width_is_the_nearest_to_the_budget() -> None:
    assert width_nearest(99, lambda width: width**2) == 10
    assert width_nearest(88, lambda width: width**2) == 9
    assert width_nearest(1, lambda width: 3 * width) == 1


def test_every_flow_starts_as_a_bijection_of_the_budget(generator: torch.Generator) -> None:
    settings = Settings(layers=3, hidden=24)
    rows = torch.randn(50, 13, generator=generator).cumsum(1)
    budget = parameter_count(built(settings, rows, 0, "kind", "affine", settings.hidden))
    x = rows[:5].double()
    for part in REFERENCE:
        for name in settings.names(part):
            flow_of = partial(built, settings, rows, 0, part, name)
            flow = flow_of(width_nearest(budget, lambda hidden, of=flow_of: parameter_count(of(hidden)))).double()
            assert parameter_count(flow) == pytest.approx(budget, rel=0.05)
            z, log_det = flow.transform(x)
            back, minus = flow.transform.inverse(z)
            torch.testing.assert_close(back, x, rtol=0, atol=1e-9)  # a few layers near the identity, double precision
            torch.testing.assert_close(log_det, -minus, rtol=0, atol=1e-9)


def test_the_study_runs_and_replots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--data", "wine", "--epochs", "1", "--layers", "2", "--hidden", "8"]
    arguments += ["--between", "none", "lu", "--kinds", "affine", "maf"]
    _, rows = run(STUDY, arguments, tmp_path)
    assert "passed: parameters within 5 %" in capsys.readouterr().out
    by = rows.set_index(["part", "name", "versus"]).sort_index()
    for part, name, first in (("between", "lu", "none"), ("kind", "maf", "affine")):
        log_p = by.loc[part].query("versus.isna()")["log_p"].droplevel("versus")
        assert by.loc[(part, name, first), "gain"] == pytest.approx(log_p[name] - log_p[first], abs=1e-9)
    run(STUDY, [*arguments, "--replot"], tmp_path)
    assert "MAF" in capsys.readouterr().out


def test_a_label_is_what_every_flow_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "WIDEST", 16)
    kinds = np.arange(200) % 2
    x = np.random.default_rng(0).normal(size=(200, 2)) + 20 * kinds[:, None]
    pd.DataFrame(x, columns=["a", "b"]).assign(kind=kinds).to_csv(tmp_path / "mine.csv", index=False)
    short = {"epochs": 10, "batch_size": 16, "learning_rate": 0.03, "layers": 2, "hidden": 4, "repeats": 1}
    settings = Settings(data=str(tmp_path / "mine.csv"), output=tmp_path, **short)
    log_p: dict[str | None, float] = {}
    for chosen in (replace(settings, label="kind"), replace(settings, drop=("kind",))):
        for task in tasks(chosen):
            if task.key.name == "maf" and not task.key.versus:
                row = measure(chosen, task)
                assert row["given"] == chosen.label
                log_p[chosen.label] = float(str(row["log_p"]))
    assert log_p["kind"] > log_p[None] + 0.3  # of classes far apart: who knows them has log 2 more, an easier task
    given = pd.DataFrame(results(Study(STUDY))[0].rows).assign(given="kind")
    assert "log p(x | kind), nats" in [str(column.header) for column in table(given).renderables[0].columns]


def test_a_run_shows_the_flows_that_it_asks_for() -> None:
    (committed,) = results(Study(STUDY))
    rows = selected(Settings(between=("none", "qr"), kinds=("affine",)), committed.rows)
    assert set(rows["name"]) == {"none", "qr", "affine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kinds", "maf", "maf"], "--kinds expects different names"),
        (["--layers", "1"], "--layers must be at least 2, so that every feature moves; got 1"),
        (["--decay", "-1"], "--decay must be 0 or positive"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
