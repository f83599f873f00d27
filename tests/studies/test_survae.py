"""The toys are what their densities say; the study runs from the command line to its figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from studies import survae
from studies.data.survae_patterns import Toy, toys
from studies.kit.rows import Rows
from studies.kit.tables import frame
from studies.survae_report import bars

KEY = ("toy", "model", "versus", "study", "data", "data_hash", "seed", "settings_hash")


@pytest.fixture(scope="module")
def known() -> dict[str, Toy]:
    return toys()


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    threads = torch.get_num_threads()
    arguments = ["--quick", "--toys", "corners", "sets", "--train-rows", "500", "--test-rows", "200"]
    status = survae.main([*arguments, "--hidden", "16", "--output", str(folder)])
    torch.set_num_threads(threads)
    assert status == 0
    return folder / "survae" / "toys-quick"


def test_every_row_says_what_kind_of_number_it_is(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", KEY))
    models = rows[rows["versus"].isna()].set_index(["toy", "model"])
    assert len(models) == 5
    assert models.loc[("sets", "permute-flow"), "kind"] == "lower bound"
    assert models.drop(("sets", "permute-flow"))["kind"].eq("exact").all()
    assert len(rows) == 8
    for name in ("figure.png", "table.txt", "manifest.json"):
        assert (results / name).exists()


def test_a_failed_bar_is_a_failed_check(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", KEY))
    assert all(check.passed for check in bars(rows))
    whole = rows.assign(train_rows=rows["train_rows"].where(rows["versus"].notna(), 128_000))
    good = whole.assign(excess=np.where(whole["versus"].isna(), 0.1, -0.1), excess_error=0.01)
    assert all(check.passed for check in bars(good))
    assert len(bars(good)) > len(bars(rows))
    for column, value in (("excess", -0.1), ("excess", 0.3)):
        bad = good.assign(**{column: good[column].where(good["versus"].notna(), value)})
        assert not all(check.passed for check in bars(bad))
    assert not all(check.passed for check in bars(good.assign(excess_error=0.05)))


@pytest.mark.parametrize(
    "arguments", [["--data", "digits"], ["--layers", "1"], ["--toys", "corners", "corners"], ["--draws", "0"]]
)
def test_bad_requests_are_one_clear_error(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert survae.main([*arguments, "--output", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_recalled_numbers_respect_the_entropies(known: dict[str, Toy]) -> None:
    from studies.survae_report import RECALLED

    assert all(value > known[toy].entropy for toy, row in RECALLED.items() for value in row.values())
    assert pd.DataFrame(RECALLED).notna().all().all()
