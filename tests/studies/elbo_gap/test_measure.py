"""The main job, small: from the command line to rows, table, figure and manifest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from studies.elbo_gap.report import identities
from studies.elbo_gap.settings import AMORTISED, SAME, ModelName, Settings, tasks
from studies.elbo_gap.standings import LABELS
from studies.kit.rows import Rows
from studies.kit.run import compute, main
from studies.kit.study import Study
from studies.kit.tables import frame
from tests.places import ROOT
from tests.studies.running import Refused

STUDY = "studies.elbo_gap"
SMALL = ["--quick", "--data", "wine", "--steps", "20", "--draws", "100", "--components", "2", "--linear-latents", "3"]
CLOCK = ["seconds", "seconds_asking", "date"]
PAIR = ["--models", "gaussian", "lu-flow"]


def rows_in(folder: Path) -> pd.DataFrame:
    return frame(Rows(folder / "elbo_gap" / "wine-quick" / "rows.csv", Study(STUDY).key))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every model once, with almost no training, on a small data set."""
    folder = tmp_path_factory.mktemp("results")
    assert main(STUDY, [*SMALL, "--output", str(folder)]) == 0
    return folder


def test_every_row_says_what_kind_of_number_it_is(results: Path) -> None:
    rows = rows_in(results)
    models = rows[rows["versus"].isna()].set_index("model")
    assert set(models.index) == set(LABELS) == set(get_args(ModelName))
    assert models.loc["vae-16", "kind"] == "lower bound"
    assert "annealed" in models.loc["vae-16", "method"]
    assert models.drop("vae-16")["kind"].eq("exact").all()
    assert "quadrature" in models.loc["vae-2", "method"]
    assert models["measure"].eq("Lebesgue").all()
    assert models["gap"].isna()[["gaussian", "lu-flow", "coupling", "maf"]].all()
    for model in ("ppca", "mixture", "coupling-vae"):
        assert abs(models.loc[model, "gap"]) < 1e-4, model  # float32 rounding of log p of some ten nats
    for model in AMORTISED:
        row = models.loc[model]
        assert row["gap"] > 0
        assert row["gap_kind"] == row["kind"]
        assert row["weighted"] < row["value"] + 4 * np.hypot(
            row["weighted_monte_carlo_error"], row["monte_carlo_error"]
        )
        assert row["value"] - row["elbo"] == pytest.approx(row["gap"], abs=1e-9)
        assert 1 <= row["ess_least"] <= row["ess_median"] <= 100
    assert models.loc["linear-vae", "gap"] > -1e-4  # the same rounding
    assert models.loc["gaussian", "parameters"] == 13 + 13 * 14 // 2


def test_pairs_are_subtracted_point_by_point_with_the_right_kind(results: Path) -> None:
    rows = rows_in(results)
    pairs = rows[rows["versus"].notna()].set_index(["model", "versus"])
    pair = pairs.loc[("vae-16", "gaussian")]
    assert pair["kind"] == "lower bound"
    points = results / "elbo_gap" / "wine-quick" / "points"
    a, b = (np.load(next(points.glob(f"{model}-0-*")))["value"] for model in ("vae-16", "gaussian"))
    assert pair["value"] == pytest.approx((a - b).mean(), abs=1e-12)
    assert pair["standard_error"] == pytest.approx((a - b).std(ddof=1) / len(a) ** 0.5, abs=1e-12)
    unpaired = np.hypot(a.std(ddof=1), b.std(ddof=1)) / len(a) ** 0.5
    assert pair["standard_error"] < unpaired  # hard points are hard for both
    assert pairs.loc[("vae-16", "vae-2"), "kind"] == "lower bound"
    assert pairs.loc[("lu-flow", "gaussian"), "kind"] == "exact"
    # The same sums, in single precision: where memory is aligned otherwise a kernel may add them in another order.
    assert pairs.loc[("coupling-vae", "coupling"), "largest"] <= 4 * 2**-23 * 32  # four roundings of |log p| < 32


def test_a_difference_beyond_its_tolerance_fails_the_check(results: Path) -> None:
    rows = rows_in(results)
    assert [check.passed for check in identities(rows, SAME)] == [True, True]
    broken = rows.assign(value=rows["value"].where(rows["versus"] != "gaussian", 0.02))
    assert [check.passed for check in identities(broken, SAME)] == [False, True]
    broken = rows.assign(value=rows["value"].where(rows["versus"] != "coupling", np.nan))
    assert [check.passed for check in identities(broken, SAME)] == [True, False]


def test_a_failed_check_is_said_clearly_and_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("studies.elbo_gap.report.TOLERANCES", {"float32": -1.0})
    assert main(STUDY, [*SMALL, *PAIR, "--output", str(tmp_path)]) == 1
    assert "FAILED: LU-linear flow = full Gaussian" in capsys.readouterr().out
    assert "FAILED" in (tmp_path / "elbo_gap" / "wine-quick" / "table.txt").read_text()


def test_table_figure_and_manifest_are_written(results: Path) -> None:
    folder = results / "elbo_gap" / "wine-quick"
    table = (folder / "table.txt").read_text()
    assert all(label in table for label in LABELS.values())
    assert "≥ " in table
    assert "passed: coupling flow as a VAE = coupling flow" in table
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "figure.svg").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["data"] == "wine"
    assert manifest["data"]["train_rows"] + manifest["data"]["test_rows"] == 178
    assert manifest["versions"]["torch"].startswith("2.")
    assert manifest["settings"]["draws"] == 100
    assert manifest["device"] == "cpu"


def test_same_seed_same_numbers_whatever_else_is_fitted(results: Path, tmp_path: Path) -> None:
    some = ["--models", "vae-2", "mixture", "coupling"]
    assert main(STUDY, [*SMALL, *some, "--output", str(tmp_path)]) == 0
    every, again = rows_in(results), rows_in(tmp_path)
    again = again[again["versus"].isna()].set_index("model").drop(columns=CLOCK)
    every = every[every["versus"].isna()].set_index("model").loc[again.index, again.columns]
    pd.testing.assert_frame_equal(every, again, check_exact=True, check_dtype=False)


def test_another_seed_gives_other_numbers_and_the_table_their_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(STUDY, [*SMALL, *PAIR, "--seeds", "0", "1", "--output", str(tmp_path)]) == 0
    values = rows_in(tmp_path).query("model == 'gaussian'")["value"]
    assert values.nunique() == 2
    out = capsys.readouterr().out
    assert "sd over" in out
    assert "means over seeds 0, 1" in out


WITHOUT_MEASURING = """
import sys
from studies.kit.run import main
status = main("studies.elbo_gap", sys.argv[1:])
assert "studies.elbo_gap.measure" not in sys.modules
raise SystemExit(status)
"""


@pytest.mark.parametrize("option", [["--replot"], []], ids=["replot", "rerun"])
def test_what_is_finished_is_drawn_without_measuring_or_touching_rows(results: Path, option: list[str]) -> None:
    folder = results / "elbo_gap" / "wine-quick"
    kept = ("rows.csv", "manifest.json")
    before = {name: (folder / name).read_bytes() for name in kept}
    figure, table = (folder / "figure.png").read_bytes(), (folder / "table.txt").read_text()
    (folder / "figure.png").unlink()
    command = [sys.executable, "-W", "error", "-c", WITHOUT_MEASURING, *SMALL, *option, "--output", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "figure.png").read_bytes() == figure
    assert (folder / "table.txt").read_text() == table
    assert {name: (folder / name).read_bytes() for name in kept} == before


def test_one_lost_row_is_computed_again_and_no_other(results: Path, tmp_path: Path) -> None:
    assert main(STUDY, [*SMALL, *PAIR, "--output", str(tmp_path)]) == 0
    path = tmp_path / "elbo_gap" / "wine-quick" / "rows.csv"
    whole = rows_in(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.split(",")[5] == "lu-flow" or line.split(",")[6]))
    dropped = len(lines) - len(path.read_text().splitlines())
    assert dropped == 1, lines[0]
    assert main(STUDY, [*SMALL, *PAIR, "--output", str(tmp_path)]) == 0
    again = rows_in(tmp_path)
    order = ["model", "versus"]
    numbers = whole.columns.difference(CLOCK).tolist()
    pd.testing.assert_frame_equal(
        whole.sort_values(order, ignore_index=True)[numbers],
        again.sort_values(order, ignore_index=True)[numbers],
        check_dtype=False,
    )
    assert len(path.read_text().splitlines()) == len(lines)


def test_float64_is_another_run_beside_the_first(tmp_path: Path) -> None:
    for dtype in ("float32", "float64"):
        assert main(STUDY, [*SMALL, *PAIR, "--dtype", dtype, "--output", str(tmp_path)]) == 0
    rows = rows_in(tmp_path)
    values = rows[rows["model"] == "gaussian"].set_index("dtype")["value"]
    assert set(values.index) == {"float32", "float64"}
    assert values["float32"] == pytest.approx(values["float64"], rel=1e-5)


def test_a_model_that_cannot_be_fitted_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "mine.npy", np.hstack([x, x[:, :1]]))  # a singular covariance
    arguments = ["--quick", "--data", str(tmp_path / "mine.npy"), "--linear-latents", "1", "--output", str(tmp_path)]
    assert main(STUDY, [*arguments, "--models", "gaussian", "ppca"]) == 1
    out = capsys.readouterr().out
    assert "not fitted: gaussian: Gaussian: the covariance of the data is singular" in out
    assert "PPCA" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digitz"], "no data called 'digitz'"),
        (["--data", "absent.csv"], "no file 'absent.csv'"),
        (["--device", "warp:3", "--models", "ppca"], "--device warp:3 cannot be used here"),
        (["--device", "cuda:77", "--models", "ppca"], "--device cuda:77 cannot be used here"),
        (["--seeds", "1", "1"], "--seeds expects different integers"),
        (["--seeds", "-1"], "--seeds expects different integers"),
        (["--seeds"], "--seeds expects different integers"),
        (["--models", "maf", "maf"], "--models expects different models"),
        (["--draws", "1"], "--draws must be at least 2"),
        (["--learning-rate", "nan"], "--learning-rate must be positive"),
        (["--steps", "0"], "--steps must be positive"),
        (["--vae-hidden", "0"], "--vae-hidden expects positive widths"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--ridge", "-1"], "--ridge must be 0 or positive"),
        (["--replot"], "no rows of these settings"),
    ],
)
def test_bad_requests_are_one_clear_error_and_write_nothing(
    refused: Refused, arguments: list[str], message: str
) -> None:
    assert message in refused(STUDY, arguments)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(STUDY, [*SMALL, *PAIR, "--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")  # of its data something may be said before


@pytest.mark.parametrize("arguments", [["--dtype", "float16"], ["--models", "gan"], ["--seeds", "one"], ["--quik"]])
def test_unknown_options_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(STUDY, arguments)
    captured = capsys.readouterr()
    assert arguments[-1].removeprefix("--") in captured.err + captured.out


def test_quick_leaves_what_the_user_chose() -> None:
    assert Settings(quick=True).quickened().draws == 500
    assert Settings(quick=True, draws=77).quickened().draws == 77
    assert Settings().quickened().draws == 5000


def test_the_settings_hash_names_what_changes_numbers_and_nothing_else() -> None:
    base = Settings()
    assert base.digest == Settings(seeds=(1, 2), output=Path("x"), models=("maf",), replot=True).digest
    others = [Settings(draws=7), Settings(dtype="float64"), Settings(maf_hidden=(7,))]
    assert len({base.digest, *(other.digest for other in others)}) == 4


def test_one_column_is_data_of_the_models_that_take_one(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("".join(f"{value}\n" for value in np.random.default_rng(0).normal(size=60)))
    out = {task.key.model for task in tasks(Settings(data=str(path))) if task.refused}
    assert out == {"ppca", "linear-vae", "coupling", "coupling-vae"}
    settings = Settings(data=str(path), models=("gaussian",))
    outcome = compute(Study("studies.elbo_gap"), replace(settings.quickened(), output=tmp_path), tmp_path)
    assert outcome.failures == ()
    assert len(frame(outcome.rows)) == 1
