"""What projections keep is measured as its definitions say; the study runs on data without classes, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.manifold import trustworthiness as reference
from sklearn.neighbors import KNeighborsClassifier

from flows import glow, random_rotation
from studies.kit.run import main
from studies.kit.study import Study
from studies.latent_space.measure import round_trip, trustworthiness, voted
from studies.latent_space.report import checks, selected
from studies.latent_space.settings import Settings
from studies.report.committed import results
from tests.studies.running import Refused

STUDY = "studies.latent_space"


def test_trustworthiness_is_that_of_scikit_learn(generator: torch.Generator) -> None:
    data = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    embedded = data[:, :2] + 0.3 * torch.randn(60, 2, generator=generator, dtype=torch.float64)
    for k in (1, 5, 20):
        ours = trustworthiness(data, embedded, k).mean().item()
        assert ours == pytest.approx(reference(data.numpy(), embedded.numpy(), n_neighbors=k), abs=1e-12)
    assert trustworthiness(data, data, 5).min() == 1


def test_votes_are_those_of_scikit_learn(generator: torch.Generator) -> None:
    train, test = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (80, 40))
    labels = torch.randint(10, 14, (80,), generator=generator)
    theirs = KNeighborsClassifier(7).fit(train.numpy(), labels.numpy()).predict(test.numpy())
    assert voted(train, labels, test, 7).tolist() == theirs.tolist()


def test_the_study_runs_on_a_csv_without_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).standard_normal((120, 4)) @ np.diag([3, 1, 1, 1])
    pd.DataFrame(rows, columns=list("abcd")).to_csv(tmp_path / "mine.csv", index=False)
    arguments = ["--quick", "--data", str(tmp_path / "mine.csv"), "--epochs", "1", "--flow-layers", "2"]
    arguments += ["--dimensions", "1", "2", "--output", str(tmp_path / "results")]
    assert main(STUDY, arguments) == 0
    printed = capsys.readouterr().out
    assert "no labels" in printed
    assert "FAILED" not in printed
    assert list((tmp_path / "results").rglob("figure.png"))
    assert main(STUDY, [*arguments, "--replot"]) == 0


def test_as_many_dimensions_as_columns_is_one_clear_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(STUDY, ["--dimensions", "64", "--output", str(tmp_path)]) == 2
    assert "has 64 columns; choose fewer --dimensions" in capsys.readouterr().err


def test_a_run_shows_its_models_and_dimensions_beside_the_data_and_the_whole_flow() -> None:
    (committed,) = results(Study(STUDY))
    rows = selected(Settings(models=("ppca", "flow"), dimensions=(2,)), committed.rows)
    shown = set(zip(rows["model"], rows["dimensions"], strict=True))
    assert shown == {("data", 64), ("ppca", 2), ("flow", 2), ("flow", 64)}


def test_a_claim_fails_where_its_number_does() -> None:
    (committed,) = results(Study(STUDY))
    rows = committed.rows
    assert all(check.passed for check in checks(rows))
    assert len(checks(rows)) == 5
    lost = rows.assign(round_trip=rows["round_trip"] + 0.1)
    assert [check.claim[:28] for check in checks(lost) if not check.passed] == ["the flow can be inverted: x "]
    equal = rows.assign(classes=rows["classes"].where(rows["model"] != "vae", 0.5))
    assert ["VAE keeps more classes than PPCA" in check.claim for check in checks(equal) if not check.passed] == [True]
    assert len(checks(rows.assign(epochs=15))) == 1  # of a small run, the round trip alone


def test_the_round_trip_of_a_flow_is_measured(generator: torch.Generator) -> None:
    flow, x = glow(3, 2, (4,), linear=random_rotation(generator)).double(), torch.randn(20, 3, dtype=torch.float64)
    assert round_trip(flow, x) < 1e-12  # rounding, times condition numbers of some tens


def test_bad_requests_are_one_clear_error(refused: Refused) -> None:
    assert "--models expects different models" in refused(STUDY, ["--models"])
    assert "--dimensions expects different numbers from 1 up" in refused(STUDY, ["--dimensions"])
