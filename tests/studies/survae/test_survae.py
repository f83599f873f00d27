"""The toys are what their densities say; the study runs from the command line to its figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from studies.data.survae_patterns import toys
from studies.kit.rows import Rows
from studies.kit.run import main
from studies.kit.study import Study
from studies.kit.tables import frame
from studies.survae.report import RECALLED, checks, selected
from studies.survae.settings import Settings
from tests.studies.running import Refused

STUDY = "studies.survae"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    arguments = ["--quick", "--toys", "corners", "sets", "--train-rows", "500", "--test-rows", "200"]
    assert main(STUDY, [*arguments, "--hidden", "16", "--output", str(folder)]) == 0
    return folder / "survae" / "toys-quick"


def test_every_row_says_what_kind_of_number_it_is(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", Study(STUDY).key))
    models = rows[rows["versus"].isna()].set_index(["toy", "model"])
    assert len(models) == 5
    assert models.loc[("sets", "permute-flow"), "kind"] == "lower bound"
    assert models.drop(("sets", "permute-flow"))["kind"].eq("exact").all()
    assert len(rows) == 8
    for name in ("figure.png", "table.txt", "manifest.json"):
        assert (results / name).exists()


def test_a_failed_bar_is_a_failed_check(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", Study(STUDY).key))
    assert all(check.passed for check in checks(rows))
    whole = rows.assign(train_rows=rows["train_rows"].where(rows["versus"].notna(), 128_000))
    good = whole.assign(excess=np.where(whole["versus"].isna(), 0.1, -0.1), excess_error=0.01)
    assert all(check.passed for check in checks(good))
    assert len(checks(good)) > len(checks(rows))
    for column, value in (("excess", -0.1), ("excess", 0.3)):
        bad = good.assign(**{column: good[column].where(good["versus"].notna(), value)})
        assert not all(check.passed for check in checks(bad))
    assert not all(check.passed for check in checks(good.assign(excess_error=0.05)))
    of_bound = (good["model"] == "permute-flow") & good["versus"].isna()  # log p from below, so its excess from above
    below = checks(good.assign(excess=good["excess"].where(~of_bound, -0.1)))
    assert [check.claim[:23] for check in below if check.passed is False] == ["sets, random permutatio"]


def test_a_run_shows_its_toys(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", Study(STUDY).key))
    assert set(selected(Settings(toys=("sets",)), rows)["toy"]) == {"sets"}
    assert set(selected(Settings(), rows)["toy"]) == {"corners", "sets"}


@pytest.mark.parametrize(
    "arguments", [["--data", "digits"], ["--layers", "1"], ["--toys", "corners", "corners"], ["--draws", "0"]]
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, arguments)


def test_recalled_numbers_respect_the_entropies() -> None:
    known = toys()
    assert all(value > known[toy].entropy for toy, row in RECALLED.items() for value in row.values())
    assert pd.DataFrame(RECALLED).notna().all().all()
