"""The KL term's study: fits by weight and by width are one fit, and the two-sample test tells what it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from studies.data.load import dataset
from studies.kit.run import main
from studies.kit.study import Study
from studies.kl_term.measure import prepared, same_by_width, two_sample
from studies.kl_term.report import selected
from studies.kl_term.settings import Settings
from studies.report.committed import results
from tests.studies.running import Refused

STUDY = "studies.kl_term"


@pytest.mark.filterwarnings("ignore::density.TiedColumns")  # the wines repeat values
def test_weight_and_width_are_the_same_fit() -> None:
    settings = replace(Settings(data="wine", latents=2, hidden=(8,)), same_epochs=3)
    row = same_by_width(prepared(settings, dataset(settings, 0), 0), 3.0)
    # Adam's ε = 1e-8 beside gradients of order 1 to 1e-4, and rounding, over a few dozen steps
    assert float(row["weights_moved"]) > 1e-3  # type: ignore[arg-type]
    assert float(row["weights_apart"]) < 1e-3 * float(row["weights_moved"])  # type: ignore[arg-type]


def test_equal_densities_are_told_apart_half_the_time_and_distant_ones_always(generator: torch.Generator) -> None:
    a, b = (torch.randn(400, 2, generator=generator) for _ in range(2))
    right = two_sample(a, b)
    assert abs(right.mean().item() - 0.5) < 0.1  # 800 votes that share neighbours: an error of some 0.02
    assert two_sample(a, b + 20).mean() == 1


def test_the_study_runs_and_replots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--data", "wine", "--latents", "2", "--hidden", "8", "--betas", "0", "1", "--epochs", "2"]
    arguments += ["--many-latents", "3", "--output", str(tmp_path)]
    main(STUDY, arguments)  # two epochs need not confirm the claims
    assert "rate" in capsys.readouterr().out
    assert list(tmp_path.rglob("figure.png"))
    main(STUDY, [*arguments, "--replot"])
    assert "rate" in capsys.readouterr().out


def test_a_run_shows_the_weights_that_it_asks_for_and_everything_else() -> None:
    (committed,) = results(Study(STUDY))
    assert set(committed.rows["at"]) == {"0", "0.1", "0.3", "1", "3", "10", "none", "warm-up"}
    rows = selected(Settings(betas=(1.0, 10.0)), committed.rows)
    assert set(rows.loc[rows["part"] == "sweep", "at"]) == {"1", "10"}
    assert set(rows.loc[rows["part"] == "width", "at"]) == {"0.1", "3"}
    assert set(rows.loc[rows["part"] == "warm-up", "at"]) == {"none", "warm-up"}


def test_weights_without_one_are_refused(refused: Refused) -> None:
    assert "1 among them" in refused(STUDY, ["--betas", "0", "2"])
