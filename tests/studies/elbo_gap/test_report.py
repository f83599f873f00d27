"""What is printed of `elbo_gap`: 80 columns hold every number, and words say what numbers they are."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from studies.elbo_gap.report import causes, few_columns, figure, table, weighted_bounds
from studies.elbo_gap.standings import MARKS, standings
from studies.elbo_gap.verdicts import pairs
from studies.kit.study import Study
from studies.kit.tables import with_error
from studies.report.committed import results
from tests.studies.running import run

STUDY = "studies.elbo_gap"
TINY = ["--quick", "--steps", "20", "--draws", "50", "--elbo-draws", "50", "--annealing-steps", "5"]
FEW = [*TINY, "--simulated", "5", "--local-steps", "5", "--models", "gaussian", "ppca", "linear-vae", "vae-2", "vae-16"]


def digits() -> pd.DataFrame:
    return results(Study(STUDY))[0].rows


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Rows of one's own five columns."""
    folder = tmp_path_factory.mktemp("own")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 5)) @ generator.normal(size=(5, 5))
    np.savetxt(folder / "mine.csv", x, delimiter=",", header="a,b,c,d,e", comments="")
    status, rows = run(STUDY, [*FEW, "--data", str(folder / "mine.csv")], folder)
    assert status == 0
    return rows


def large(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows, as if every number were a hundred times larger."""
    counts = ("features", "parameters", "test_rows", "train_rows", "levels", "latents")
    numbers = [name for name in map(str, rows.select_dtypes("float")) if name not in counts]
    return rows.assign(**{name: 100 * rows[name] for name in numbers})


@pytest.mark.parametrize("scale", [lambda rows: rows, large], ids=["as it is", "large"])
@pytest.mark.parametrize("which", ["digits", "one seed", "own"])
def test_80_columns_hold_every_number_of_every_row(request: pytest.FixtureRequest, which: str, scale: object) -> None:
    rows = request.getfixturevalue("own") if which == "own" else digits()
    rows = rows[rows["seed"] == 0] if which == "one seed" else rows
    assert callable(scale)
    rows = scale(rows)
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(table(rows))
    text = console.export_text()
    assert "…" not in text
    lines = [line.split("  ") for line in text.splitlines()]  # columns are two blanks apart
    cells = [{cell.strip() for cell in line} for line in lines]
    several = rows["seed"].nunique() > 1
    for row in standings(rows):
        first = row.label.split()[0]
        kind = "exact" if row.kind == "exact" else "bound"
        where = [line for line, found in zip(lines, cells, strict=True) if {row.value_text, kind} <= found]
        assert any(line[0].startswith(first) for line in where), row.label
        assert any({row.value_text, row.elbo_text, row.gap_text, kind} <= found for found in cells), row.label
        cost = {f"{row.parameters:,.0f}", f"{row.seconds:.1f}", *([f"{row.seed_deviation:.2f}"] if several else [])}
        assert any(cost <= found for found in cells), row.label
    compared = [pair for pair in pairs(rows) if pair.model.startswith("vae")]
    assert compared
    for pair in compared:
        assert pair.naive is not None
        naive, honest = (with_error(each.mean, each.error) for each in (pair.naive, pair.fitted))
        honest = f"{MARKS.get(pair.fitted.kind.value, '')}{honest}"
        assert any({naive, honest} <= found for found in cells), pair


def test_few_columns_and_what_they_do_to_latents_are_said(own: pd.DataFrame) -> None:
    assert few_columns(own) == [
        "PPCA and linear VAE: 4 latents, the most that data of 5 columns allows; enough for any full Gaussian."
    ]
    assert few_columns(own[own["model"] != "linear-vae"])[0].startswith("PPCA: 4 latents")
    assert few_columns(own.assign(features=6)) == []
    assert few_columns(own.drop(columns="latents")) == []  # rows from before there was such a column


@pytest.mark.parametrize(
    ("kind", "weighted", "words"),
    [
        ("exact", -10.5, "gives only ≥ -10.500 ± 0.010 by its own account, 0.5 below the exact value in the table."),
        (
            "exact",
            -10.011,
            "gives ≥ -10.011 ± 0.010 by its own account, within its error of the exact value in the table.",
        ),
        ("exact", -9.99, "0.01 more than the exact value in the table: it is a bound only in expectation."),
        (
            "exact",
            -9.9,
            "0.1 more than the exact value in the table: it is a bound only in expectation, and its ± is not to ",
        ),
        ("lower bound", -9.9, "0.1 more than the lower bound in the table: it is a bound only in expectation."),
        (
            "lower bound",
            -10.5,
            "gives only ≥ -10.500 ± 0.010 by its own account, 0.5 below the lower bound in the table.",
        ),
    ],
)
def test_importance_weighting_gives_only_a_bound_where_it_is_below(kind: str, weighted: float, words: str) -> None:
    row = {"model": "vae-2", "versus": None, "unit": "row", "kind": kind, "value": -10.0, "monte_carlo_error": 0.0}
    row |= {"weighted": weighted, "weighted_monte_carlo_error": 0.01, "weighted_draws": 5000, "ess_median": 40.0}
    (line,) = weighted_bounds(pd.DataFrame([row | {"ess_least": 1.2, "unreliable": 0.25}]))
    assert words in line
    assert line.startswith("VAE, 2 latents: importance weighting with 5,000 draws of the encoder gives ")
    assert "least 1.2; Pareto k flags 25% of rows." in line


def test_causes_have_two_digits_of_their_error() -> None:
    row = {"model": "vae-2", "versus": None, "kind": "exact", "value": -10.0, "unconverged": 0.0}
    row |= {"approximation": 0.01234, "approximation_error": 0.00123, "amortisation": 1.5, "amortisation_error": 0.25}
    (line,) = causes(pd.DataFrame([row]))
    assert "costs 0.0123 ± 0.0012 (approximation)" in line
    assert "1.50 ± 0.25 (amortisation)" in line


@pytest.mark.parametrize(("gap", "error"), [(0.131, 0.011), (0.00141, 0.00013), (123.45, 9.87), (1234.5, 123.4)])
def test_numbers_beside_bars_stay_inside_the_figure(gap: float, error: float) -> None:
    rows = digits()
    rows = rows[rows["seed"] == 0]
    rows = rows[rows["model"].isin(["vae-16", "ppca"]) & rows["versus"].isna()]
    bound = rows["model"].eq("vae-16")
    chosen = {"gap": gap, "gap_standard_error": error, "gap_monte_carlo_error": 0.0}
    drawn = figure(rows.assign(**{name: rows[name].where(~bound, value) for name, value in chosen.items()}))
    FigureCanvasAgg(drawn).draw()
    right = drawn.axes[1]
    edge = right.get_window_extent().x1
    assert {text.get_text() for text in right.texts} >= {f"≥ {with_error(gap, error)}"}
    for text in right.texts:
        assert text.get_window_extent().x1 <= edge, text.get_text()
