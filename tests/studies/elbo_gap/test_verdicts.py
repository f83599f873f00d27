"""Who wins: naive and honest verdicts, the causes of the gap, published numbers, limits on rows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from significance import Kind, Statement, Verdict
from studies.data.load import dataset
from studies.elbo_gap.published import SUITE, TABLE, published_table
from studies.elbo_gap.report import TIGHT, bounds
from studies.elbo_gap.settings import Settings
from studies.elbo_gap.standings import LABELS
from studies.elbo_gap.verdicts import LEAST, Pair, comparisons, judged, pairs, verdict_tables
from studies.kit.rows import Rows
from studies.kit.run import main
from studies.kit.study import Study
from studies.kit.tables import frame

STUDY = "studies.elbo_gap"
TINY = ["--quick", "--steps", "20", "--draws", "50", "--elbo-draws", "50", "--annealing-steps", "5"]
FEW = [*TINY, "--simulated", "5", "--models", "vae-2", "ppca", "gaussian"]


@pytest.mark.parametrize(
    ("kind", "difference", "naive", "honest", "naively", "comment"),
    [
        ("exact", 5.0, 4.0, Verdict.FIRST, Verdict.FIRST, "agree"),
        ("exact", 5.0, -4.0, Verdict.FIRST, Verdict.SECOND, "overturned"),
        ("lower bound", 5.0, -4.0, Verdict.FIRST, Verdict.SECOND, "overturned"),
        ("lower bound", -5.0, -9.0, Verdict.OPEN, Verdict.SECOND, "not proven"),  # the bound may be loose
        ("exact", -5.0, -9.0, Verdict.SECOND, Verdict.SECOND, "agree"),
        ("exact", 5.0, 1.0, Verdict.FIRST, Verdict.OPEN, "settled by log p(x)"),
        ("exact", 1.9, 1.9, Verdict.OPEN, Verdict.OPEN, "agree"),  # within two errors
        ("upper bound", 5.0, 4.0, Verdict.OPEN, Verdict.FIRST, "not proven"),
    ],
)
def test_a_verdict_needs_two_errors_and_the_right_kind_of_number(
    kind: str, difference: float, naive: float, honest: Verdict, naively: Verdict, comment: str
) -> None:
    def pair(difference: float, naive: float, error: float) -> Pair:
        numbers = (
            Statement(Kind(kind), difference, error, 499, LEAST),
            Statement(Kind.EXACT, naive, error, 499, LEAST),
        )
        return judged([Pair("vae-16", "maf", numbers[0], None, numbers[1])])[0]

    found = pair(difference, naive, 1.0)
    assert (found.honest, found.naively, found.comment) == (honest, naively, comment)
    tiny = pair(1e-3, -1e-3, 1e-9)  # two fits of one density
    assert (tiny.honest, tiny.naively) == (Verdict.OPEN, Verdict.OPEN)


def test_many_pairs_need_more_than_two_errors() -> None:
    small = Statement(Kind.EXACT, 2.5, 1.0, 499, LEAST)
    assert judged([Pair("vae-16", "maf", small)])[0].honest is Verdict.FIRST
    none = Statement(Kind.EXACT, 0.0, 1.0, 499, LEAST)
    family = [Pair("vae-16", "maf", small), *(Pair("vae-2", "maf", none) for _ in range(9))]
    assert judged(family)[0].honest is Verdict.OPEN


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    assert main(STUDY, [*FEW, "--data", "wine", "--local-steps", "20", "--output", str(folder)]) == 0
    return folder / "elbo_gap" / "wine-quick"


def test_the_naive_difference_is_elbo_against_log_p_at_the_same_points(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", Study(STUDY).key))
    pair = rows.set_index(["model", "versus"]).loc[("vae-2", "gaussian")]
    vae, gaussian = (np.load(next((results / "points").glob(f"{name}-0-*"))) for name in ("vae-2", "gaussian"))
    naive = vae["elbo"] - gaussian["value"]
    assert pair["naive"] == pytest.approx(naive.mean(), abs=1e-12)
    assert pair["naive_standard_error"] == pytest.approx(naive.std(ddof=1) / len(naive) ** 0.5, abs=1e-12)
    model = rows[rows["versus"].isna()].set_index("model").loc["vae-2"]
    assert vae["elbo"].mean() == pytest.approx(model["elbo"], abs=1e-9)
    assert gaussian["elbo"].size == 0
    assert pair["naive"] < pair["value"]


def test_the_two_causes_sum_to_the_gap(results: Path) -> None:
    model = frame(Rows(results / "rows.csv", Study(STUDY).key)).query("model == 'vae-2' and versus.isna()").iloc[0]
    assert model["approximation"] + model["amortisation"] == pytest.approx(model["gap"], abs=1e-9)
    assert "(approximation)" in (results / "table.txt").read_text()


def test_bounds_fail_where_an_elbo_is_above_log_p(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", Study(STUDY).key))
    assert [check.passed for check in bounds(rows, TIGHT)] == [True, True]
    assert "allowed in float32: -1e-03" in bounds(rows, TIGHT)[0].claim
    broken = rows.assign(gap=rows["gap"].where(rows["model"] != "vae-2", -5.0))
    assert [check.passed for check in bounds(broken, TIGHT)] == [False, True]
    broken = rows.assign(gap=rows["gap"].where(rows["model"] != "ppca", 0.1))
    assert [check.passed for check in bounds(broken, TIGHT)] == [True, False]


def test_the_best_model_and_what_it_is_proven_against(results: Path) -> None:
    rows = frame(Rows(results / "rows.csv", Study(STUDY).key))
    assert "Unbounded here: VAE, 2 latents" in " ".join(comparisons(rows)), "wines repeat values"
    rows = rows.assign(unbounded=0)
    words = " ".join(comparisons(rows))
    best = max(("vae-2", "ppca", "gaussian"), key=lambda name: rows.query("model == @name")["value"].iloc[0])
    assert f"Best by log p(x): {LABELS[best]}" in words
    assert len(pairs(rows)) == 3
    (found,) = verdict_tables(rows)
    assert found.row_count == 2
    assert verdict_tables(rows[rows["model"] != "vae-2"]) == []


def test_rows_are_limited_at_random_and_the_same_for_every_model(tmp_path: Path) -> None:
    arguments = [
        *TINY,
        "--data",
        "gaussian",
        "--test-rows",
        "50",
        "--train-rows",
        "200",
        "--models",
        "gaussian",
        "ppca",
    ]
    assert main(STUDY, [*arguments, "--linear-latents", "2", "--output", str(tmp_path)]) == 0
    rows = frame(Rows(tmp_path / "elbo_gap" / "gaussian-quick" / "rows.csv", Study(STUDY).key))
    assert rows["test_rows"].eq(50).all()
    assert rows["train_rows"].dropna().eq(200).all()
    row = rows[rows["versus"].isna()].iloc[0]
    data = dataset(Settings(data="gaussian"), 0)
    assert row["best"] == data.best
    whole = data.test  # 50 random rows of a Gaussian with 4 features: sd of log p is sqrt(2), of the mean 0.2
    assert row["value"] == pytest.approx(data.best, abs=4.5 * 0.2 + 0.1)
    assert len(whole) == 2000


def test_pixels_in_logits_are_reported_in_units_of_pixels(tmp_path: Path) -> None:
    arguments = [*TINY, "--models", "gaussian", "--output", str(tmp_path)]
    assert main(STUDY, [*arguments, "--logit"]) == 0
    assert main(STUDY, arguments) == 0
    rows = frame(Rows(tmp_path / "elbo_gap" / "digits-quick" / "rows.csv", Study(STUDY).key))
    logit, plain = rows["value"]
    # A Gaussian in logits is another model, and worse at pixels that are nearly constant; in other units it would be
    # off by 64 log 17 = 181 nats and by the logit's derivative.
    assert abs(logit - plain) < 60
    table = (tmp_path / "elbo_gap" / "digits-quick" / "table.txt").read_text()
    assert f"Bits per dimension: full Gaussian {-plain / (64 * np.log(2)):.3f}" in table


def test_binary_pixels_are_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from studies.data.raw import Raw

    binary = Raw("mnist-binary", "image", np.tile([[0, 1], [1, 0]], (20, 1)).astype(np.uint8), levels=2)
    monkeypatch.setattr("studies.data.load._raw", lambda *arguments: binary)
    assert main(STUDY, ["--data", "mnist-binary", "--output", str(tmp_path)]) == 2
    assert "Take --dequantise all, or studies.mnist" in capsys.readouterr().err


def test_published_numbers_stand_beside_ours_of_the_same_kind() -> None:
    ours = pd.DataFrame({"model": ["gaussian", "maf"], "value": [-7.75, 0.1], "standard_error": [0.01, 0.02]})
    assert published_table("digits", ours, LABELS) is None
    found = published_table("power", ours, LABELS)
    assert found is not None
    console = Console(file=io.StringIO(), width=150, record=True)
    console.print(found)
    text = console.export_text()
    assert "-7.74" in text
    assert "full Gaussian: -7.75 ± 0.02" in text
    assert text.count("MAF: 0.10 ± 0.04") == 2
    assert all(len(line.values) == len(SUITE) for line in TABLE)
    assert all(len(line.errors) in (0, len(SUITE)) for line in TABLE)
