"""`binary_tables`: its tables, what is fitted and paired with what, what is proven; and that it runs."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from lvm.evidence import Bits
from lvm.vae.model import VAE
from significance import Kind, Verdict
from studies.binary_tables.measure import described, fitted
from studies.binary_tables.models import Fits, log_p_of
from studies.binary_tables.published import PUBLISHED, published
from studies.binary_tables.report import checks, figure, selected, table
from studies.binary_tables.settings import MODELS, Settings, tasks
from studies.binary_tables.source import Answers, binary_table
from studies.binary_tables.standings import judged, standings
from studies.data.binary import debd
from studies.kit.errors import InputError
from studies.kit.study import Finding
from tests.studies.running import Refused, run

STUDY = "studies.binary_tables"
SMALL = Settings(
    components=(1, 3), iterations=5, latents=2, hidden=(4,), steps=20, iwae_draws=2, nodes=8, compiled_nodes=16,
    draws=5, simulated=200,
)  # fmt: skip
TINY = ["--quick", "--components", "2", "--iterations", "3", "--latents", "2", "--hidden", "4", "--steps", "10"]
TINY += ["--iwae-draws", "2", "--nodes", "8", "--compiled-nodes", "16", "--draws", "4", "--simulated", "100"]


@pytest.fixture(scope="module")
def fits() -> Fits:
    return Fits(SMALL, binary_table("answers", 0, None, rows=(300, 100, 200)), 0)


def test_answers_follow_the_seed() -> None:
    first, again, other = (binary_table("answers", seed, None) for seed in (0, 0, 1))
    assert (first.split.train == again.split.train).all()
    assert first.hash == again.hash != other.hash
    assert first.truth is not None


def test_the_truth_is_that_of_normal_numbers(fits: Fits) -> None:
    """Its masses sum to 1, and a column's are those of a normal number with the variance of traits and noise."""
    truth = fits.table.truth
    assert truth is not None
    few = Answers(truth.loadings[:, :4], truth.ease[:4])
    x = Bits(4).points(torch.empty(0, dtype=torch.float64))
    p = log_p_of(few, x).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    yes = norm.cdf(few.ease / np.sqrt(1 + (few.loadings**2).sum(0)))
    assert (p @ x).numpy() == pytest.approx(yes, abs=1e-5)
    rows = np.concatenate([fits.table.split.train, fits.table.split.valid, fits.table.split.test])[:, :4]
    assert np.abs(rows.mean(0) - yes).max() < 5 * math.sqrt(0.25 / len(rows))


def test_tables_are_unpacked_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (7, 12), np.uint8)
    buffer = io.BytesIO()
    parts = {"train": slice(0, 4), "valid": slice(4, 5), "test": slice(5, 7)}
    packed = {f"dna_{part}": np.packbits(rows[of], axis=1) for part, of in parts.items()}
    np.savez(buffer, **packed, dna_features=np.int64(12))
    (tmp_path / "debd_binary.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="cut, altered or another file"):
        binary_table("dna", 0, tmp_path)
    monkeypatch.setattr(debd, "DIGEST", hashlib.sha256(buffer.getvalue()).hexdigest())
    found = binary_table("dna", 0, tmp_path)
    for part, of in parts.items():
        assert (getattr(found.split, part) == rows[of]).all()
    assert found.truth is None
    monkeypatch.delenv("ELBOGAP_DATA", raising=False)
    with pytest.raises(InputError, match="'plants' is read from a directory"):
        binary_table("plants", 0, None)


def test_all_decoders_start_alike(fits: Fits) -> None:
    one, other = fits.fresh(), fits.fresh()
    assert isinstance(one, VAE)
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert first.equal(second)


def test_the_validation_rows_choose_the_mixture(fits: Fits) -> None:
    train, valid, test = fits.rows
    chosen = fits.mixture
    assert chosen.course.size == 3, "one component knows no dependence"
    assert chosen.claim.mean == pytest.approx(chosen.model.log_density(test).mean)
    assert chosen.course.valid == pytest.approx(chosen.model.log_density(valid).mean)
    assert len(train) == 300


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_of_their_models_and_paired(model: Any, fits: Fits) -> None:  # noqa: ANN401
    row, claim = described(fits, model), fitted(fits, model).claim
    exact = model in ("mixture", "compiled", "through")
    assert row["kind"] == (Kind.EXACT if exact else Kind.LOWER).value
    assert row["log_p"] == pytest.approx(claim.mean)
    assert ("low" in row) is not exact
    if not exact:
        assert float(str(row["low"])) < float(str(row["high"]))
        assert claim.mean - 4 * claim.mean_monte_carlo_error < float(str(row["high"]))
    expected = {"over_mixture": (fits.mixture, model != "mixture"), "over_twin": (fits.compiled, model == "through"),
                "over_bound": (fits.by_elbo, model == "compiled")}  # fmt: skip
    for column, (other, there) in expected.items():
        assert (column in row) is there
        if there:
            difference = claim.value.double() - other.claim.value.double()
            assert row[column] == pytest.approx(difference.mean().item())
            assert row[f"{column}_error"] == pytest.approx(difference.std().item() / math.sqrt(len(difference)))


def test_the_twins_have_the_same_nodes_and_other_decoders(fits: Fits) -> None:
    one, other = fits.compiled.model, fits.through.model
    assert len(one.weights) == len(other.weights) == 16  # type: ignore[arg-type, union-attr]
    assert not one.decoder.numbers.equal(other.decoder.numbers)  # type: ignore[union-attr, operator]


def made_up() -> pd.DataFrame:
    """Rows of a study in which all is as it should be."""
    rows: list[dict[str, Any]] = []
    for name in ("nltcs", "dna"):
        about = {"data": name, "seed": 0, "features": 16, "test_rows": 1000, "log_p_error": 0.05, "size": 2000,
                 "monte_carlo_error": 0.001}  # fmt: skip
        for place, model in enumerate(MODELS):
            exact = model in ("mixture", "compiled", "through")
            row = {**about, "model": model, "kind": (Kind.EXACT if exact else Kind.LOWER).value, "log_p": -6.0 - place}
            row |= {} if model == "mixture" else {"over_mixture": -0.1 * place, "over_mixture_error": 0.01}
            row |= {"over_twin": 0.2, "over_twin_error": 0.01} if model == "through" else {}
            if not exact:
                row |= {"low": row["log_p"] - 0.01, "high": row["log_p"] + 0.01, "confidence": 0.95}
            rows.append(row | {"over_truth": -0.1, "over_truth_error": 0.01})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("name", "model", "changed", "words", "passed"),
    [
        ("dna", "through", {"over_twin": -0.1}, "dna: trained as a mixture", False),
        ("dna", "through", {"over_twin": 0.01}, "dna: trained as a mixture", None),
        ("nltcs", "mixture", {"log_p": -6.04}, "some model at -6.03 or more", False),
        ("dna", "ELBO", {"over_truth": 0.05}, "above what made up the table", False),
        ("nltcs", "flow", {"high": -20.0}, "the upper ends of their intervals (7 of 8)", False),
    ],
)
def test_claims_are_decided_by_the_numbers(
    name: str, model: str, changed: dict[str, float], words: str, passed: bool | None
) -> None:
    rows = made_up()
    assert [check for check in checks(rows) if not check.passed] == []
    rows.loc[(rows["data"] == name) & (rows["model"] == model), list(changed)] = list(changed.values())
    (check,) = [check for check in checks(rows) if not check.passed]
    assert words in check.claim
    assert check.passed is passed
    assert check.failed is not isinstance(check, Finding)


def test_what_is_below_the_mixture_only_as_a_bound_is_open() -> None:
    """Of the exact ones a difference is known; a bound below the mixture's says nothing, and one above it does."""
    rows = made_up()
    rows.loc[rows["model"] == "IWAE", "over_mixture"] = 0.3
    found = {model: each.verdict for (name, model), each in judged(rows, "over_mixture").items() if name == "dna"}
    assert found["compiled"] is found["through"] is Verdict.SECOND
    assert found["ELBO"] is found["flow"] is Verdict.OPEN
    assert found["IWAE"] is Verdict.FIRST


def test_seeds_are_averaged_with_their_errors() -> None:
    rows = pd.concat([made_up(), made_up().assign(seed=1)], ignore_index=True)
    rows.loc[rows["seed"] == 1, "log_p"] -= 1
    (first, *_), _ = standings(rows).values()
    assert first.over_truth is not None
    assert first.over_truth.error == pytest.approx(0.01)
    assert first.log_p.mean == pytest.approx(-6.5)
    assert first.log_p.error == pytest.approx(0.05)


def test_tables_and_figures_have_all_there_is() -> None:
    rows = made_up()
    assert len(table(rows).renderables) == 3
    drawn = figure(rows)
    assert [axes.get_title("left") for axes in drawn.axes] == ["nltcs", "dna"]
    assert len(selected(Settings(models=("mixture", "flow")), rows)) == 4


def test_numbers_of_others_say_where_they_were_seen() -> None:
    assert all(each.seen.split()[0] in ("read", "recalled") and each.source for each in PUBLISHED)
    assert [each.method for each, _ in published("nltcs")] == ["LearnSPN", "ID-SPN", "RAT-SPN", "CM-TPM"]
    assert list(published("answers")) == []


def test_real_tables_have_settings_of_their_own() -> None:
    real = Settings(data="nltcs", steps=7).quickened()
    assert (real.latents, real.steps, real.hidden) == (8, 7, (128, 128))
    assert Settings(data="nltcs", quick=True).quickened().hidden == (16,)
    asked = [(task.key.model, task.key.data) for task in tasks(Settings())]
    assert asked == [(model, "answers") for model in MODELS]


def test_the_whole_study_runs(tmp_path: Path) -> None:
    models = ["mixture", "compiled", "through", "flow"]
    status, rows = run(STUDY, [*TINY, "--models", *models], tmp_path)
    assert status in (0, 1)
    assert list(rows["model"]) == models


@pytest.mark.parametrize(
    "arguments", [["--data", "digits"], ["--models", "flow", "flow"], ["--latents", "1"], ["--confidence", "1"]]
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, ["--quick", *arguments])
