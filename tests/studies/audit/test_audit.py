"""`audit`: tables of bits, what is added up and against what truth, what is proven; and that it runs."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch

from density import log_density as claims
from lvm.evidence import Bits, importance
from studies.audit.bit_tables import bit_table
from studies.audit.measure import Fitted, added_up, bounded, fitted, with_factor
from studies.audit.report import checks, selected, table
from studies.audit.settings import Key, Method, Settings, tasks
from studies.audit.standings import sums, widths
from studies.data.binary import debd
from studies.kit.compute import gauss_hermite
from studies.kit.errors import InputError
from studies.kit.study import Check
from tests.studies.running import Refused, run

STUDY = "studies.audit"
BITS = 5
DETERMINISTIC: dict[Method, int] = {"exact": 0, "quadrature": 0, "compiled": 9}  # and their nodes
SMALL = Settings(bits=BITS, rows=200, epochs=5, hidden=(4,), components=2, passes=2, repeats=2, simulated=100)
TINY = ["--quick", "--bits", "4", "--rows", "100", "--epochs", "2", "--hidden", "4", "--components", "2", "--draws"]
TINY += ["5", "--work", "5", "10", "--passes", "2", "--repeats", "2", "--annealing-steps", "2"]


def key(method: Method | Literal["interval"], draws: int) -> Key:
    return Key("questions", "", 0, "interval" if method == "interval" else "sum", method, draws)


@pytest.fixture(scope="module")
def models() -> Fitted:
    return fitted(SMALL, bit_table("questions", 0, None, bits=BITS, rows=200), 0)


def log_p(models: Fitted, x: torch.Tensor) -> torch.Tensor:
    """Of the VAE, by another rule than the library's."""
    z, mass = gauss_hermite(2, 40, x)
    log_given = models.vae.decoder.log_prob(x.unsqueeze(1), z.expand(len(x), *z.shape))
    return (log_given + mass.log()).logsumexp(1).detach()


def test_questions_follow_the_seed() -> None:
    first, again, other = (bit_table("questions", seed, None) for seed in (0, 0, 1))
    assert first.train.shape == first.test.shape == (2000, 10)
    assert (first.train == again.train).all()
    assert first.hash == again.hash != other.hash
    correlations = np.corrcoef(first.train.T)[np.triu_indices(10, 1)]
    assert np.abs(correlations).mean() > 0.1, "the questions hang together"
    assert np.abs(first.train.mean(0) - first.test.mean(0)).max() < 5 * math.sqrt(0.5 / 2000)


def test_nltcs_is_unpacked_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (7, 12), np.uint8)
    buffer = io.BytesIO()
    packed = {f"nltcs_{part}": np.packbits(rows[of], axis=1) for part, of in
              (("train", slice(0, 4)), ("valid", slice(4, 5)), ("test", slice(5, 7)))}  # fmt: skip
    np.savez(buffer, **packed, nltcs_features=np.int64(12))
    (tmp_path / "debd_binary.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="cut, altered or another file"):
        bit_table("nltcs", 0, tmp_path)
    monkeypatch.setattr(debd, "DIGEST", hashlib.sha256(buffer.getvalue()).hexdigest())
    found = bit_table("nltcs", 0, tmp_path)
    assert (found.train == rows[:4]).all()
    assert (found.test == rows[5:]).all()
    monkeypatch.delenv("ELBOGAP_DATA", raising=False)
    with pytest.raises(InputError, match="'nltcs' is read from a directory"):
        bit_table("nltcs", 0, None)


def test_the_truth_is_that_of_another_rule(models: Fitted) -> None:
    torch.testing.assert_close(models.truth.value, log_p(models, models.test), rtol=0, atol=1e-7)
    assert models.truth.kind is claims.Kind.EXACT


def test_more_latents_have_an_estimate_for_truth() -> None:
    settings = Settings(bits=3, rows=30, epochs=1, hidden=(4,), components=2, latents=3, truth_draws=20)
    found = fitted(settings, bit_table("questions", 0, None, bits=3, rows=30), 0).about
    assert found["truth_kind"] == "lower bound"
    assert float(str(found["truth_error"])) > 0
    assert not any(task.key.method == "quadrature" for task in tasks(settings))


def test_the_mistake_is_a_factor(models: Fitted) -> None:
    wrong, right = (
        method(models.vae, models.test, draws=10, generator=torch.Generator().manual_seed(3))
        for method in (with_factor, importance)
    )
    torch.testing.assert_close(wrong.value.exp(), right.value.exp() * 10 / 9)


def test_what_is_exact_sums_to_one_and_another_model_has_a_bias(models: Fitted) -> None:
    rows = {name: added_up(SMALL, models, key(name, draws)) for name, draws in DETERMINISTIC.items()}
    for row in rows.values():
        assert row["total"] == pytest.approx(1, abs=1e-9)
        assert (row["total_error"], row["departure"], row["states"]) == (0, 0, 2**BITS)
    assert "bias" not in rows["exact"]
    assert "bias" not in rows["quadrature"]
    assert rows["compiled"]["model"] == "FiniteMixture"
    bias = float(str(rows["compiled"]["value"])) - log_p(models, models.test).mean().item()
    assert rows["compiled"]["bias"] == pytest.approx(bias, abs=1e-7)
    assert rows["compiled"]["stated_bias"] is None


@pytest.mark.parametrize("method", ["prior", "importance", "annealing", "factor", "average"])
def test_sums_of_draws_are_where_their_expectations_are(models: Fitted, method: Method) -> None:
    row = added_up(SMALL, models, key(method, 20))
    total, error = (float(str(row[name])) for name in ("total", "total_error"))
    expected = {"factor": 20 / 19}.get(method, 1.0)
    if method == "average":
        z, mass = gauss_hermite(2, 40, models.test)
        x = Bits(BITS).points(models.test)
        average = models.vae.decoder.log_prob(x.unsqueeze(1), z.expand(len(x), *z.shape)).detach() @ mass
        # E exp of an average is above exp of its mean, by Jensen's inequality.
        assert average.exp().sum().item() - 4 * error < total < 1
    else:
        assert total == pytest.approx(expected, abs=4 * error)
    bias = float(str(row["value"])) - models.truth.mean
    assert row["bias"] == pytest.approx(bias, abs=1e-12)
    assert (row["stated_bias"] is None) is (method == "average")
    assert float(str(row["claims"])) > 2**BITS


def test_intervals_are_of_the_test_rows(models: Fitted) -> None:
    row = bounded(SMALL, models, key("interval", 20))
    assert (row["simulated"], row["repeats"]) == (2000, 2)
    low, high = float(str(row["low"])), float(str(row["high"]))
    assert low < models.truth.mean < high
    assert row["width"] == pytest.approx(high - low)
    assert row["contained"] == 2


def made_up(seeds: int = 1) -> pd.DataFrame:
    """Rows of a study in which all is as it should be."""
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        about = {"part": "sum", "seed": seed, "total_error": 0.01, "reliable": 1, "bias_error": 0.01}
        rows += [
            {**about, "method": "exact", "draws": 0, "total": 1.0, "total_error": 0.0, "departure": 0.0},
            {**about, "method": "compiled", "draws": 10, "total": 1.0, "total_error": 0.0, "departure": 0.0,
             "bias": -1.0, "bias_error": 0.0},
            {**about, "method": "importance", "draws": 10, "total": 1.02, "departure": 2.0 * (-1) ** seed, "bias": -0.2,
             "stated_bias": -0.1},
            {**about, "method": "importance", "draws": 100, "total": 1.0, "departure": 0.0, "bias": -0.02,
             "stated_bias": -0.03},
            {**about, "method": "average", "draws": 10, "total": 0.5, "departure": -50.0, "bias": -3.0},
            {**about, "method": "factor", "draws": 10, "total": 1.1, "departure": 10.0, "bias": 0.1},
        ]  # fmt: skip
        for draws, width in ((10, 0.2), (100, 0.02)):
            rows.append({
                "part": "interval", "method": "interval", "draws": draws, "seed": seed, "low": -4 - width / 2,
                "high": -4 + width / 2, "simulated": 100 * draws, "confidence": 0.95, "contained": 5, "repeats": 5,
                "interval_seconds": 1.0,
            })  # fmt: skip
    about = {"data": "questions", "features": 5, "test_rows": 100, "truth": -4.0, "truth_error": 0.0}
    return pd.DataFrame(rows).assign(**about, truth_kind="exact", truth_method="quadrature")


def of(rows: pd.DataFrame, method: str, draws: int) -> pd.Series:
    return (rows["method"] == method) & (rows["draws"] == draws)


def undecided_or_failed(rows: pd.DataFrame) -> list[Check]:
    return [check for check in checks(rows) if not check.passed]


@pytest.mark.parametrize(
    ("method", "draws", "changed", "words", "passed"),
    [
        ("exact", 0, {"total": 1.001}, "exact sums to 1", False),
        ("importance", 100, {"departure": -4.5}, "unbiased estimators sum to 1", False),
        ("importance", 100, {"departure": -4.5, "reliable": 0}, "that error is uncertain", None),
        ("importance", 100, {"stated_bias": 0.03}, "biased as it states", None),
        ("importance", 10, {"bias": -0.03}, "does not show in the sum", None),
        ("average", 10, {"departure": -2.0}, "loose bound", None),
        ("factor", 10, {"departure": 2.9}, "convicted at K = 10", None),
        ("interval", 100, {"contained": 1}, "hold the truth (6 of 10)", False),
        ("interval", 100, {"low": -5.0}, "narrower", False),
    ],
)
def test_claims_are_decided_by_the_numbers(
    method: str, draws: int, changed: dict[str, float], words: str, passed: bool | None
) -> None:
    rows = made_up()
    assert undecided_or_failed(rows) == []
    rows.loc[of(rows, method, draws), list(changed)] = list(changed.values())
    (check,) = undecided_or_failed(rows)
    assert words in check.claim
    assert check.passed is passed


def test_seeds_are_averaged_and_the_worst_departure_counts() -> None:
    rows = made_up(seeds=2)
    rows.loc[of(rows, "importance", 10) & (rows["seed"] == 1), "departure"] = -3.0
    found = next(each for each in sums(rows) if (each.method, each.draws) == ("importance", 10))
    assert found.total_error == pytest.approx(0.01 / math.sqrt(2))
    assert found.departure == -3.0
    narrow = widths(rows)[-1]
    assert (narrow.low, narrow.high) == (pytest.approx(-0.01), pytest.approx(0.01))
    assert (narrow.contained, narrow.tried) == (10, 10)
    assert "The sum does not see that log p̂ is biased: importance weights, K = 10, -0.2000 nats" in said(rows)


def said(rows: pd.DataFrame) -> str:
    return str(table(rows).renderables[-1])


def test_what_is_shown_is_what_was_asked_for() -> None:
    rows = selected(Settings(methods=("exact", "factor"), work=(10,)), made_up())
    assert rows[["method", "draws"]].to_numpy().tolist() == [["exact", 0], ["factor", 10], ["interval", 10]]
    without = made_up()
    assert len(table(without[without["part"] == "sum"]).renderables) == 2


def test_presets_change_what_was_not_chosen() -> None:
    nltcs = Settings(data="nltcs", epochs=3).quickened()
    assert (nltcs.latents, nltcs.epochs, nltcs.dtype) == (4, 3, "float32")
    assert "annealing" not in nltcs.methods
    small = Settings(data="nltcs", quick=True).quickened()
    assert (small.latents, small.passes, small.draws, small.work) == (4, 2, (10,), (10, 100))
    assert Settings().quickened() == Settings()
    asked = {(task.key.method, task.key.draws) for task in tasks(SMALL)}
    assert ("annealing", 100) in asked
    assert ("annealing", 1000) not in asked


def test_the_whole_study_runs(tmp_path: Path) -> None:
    status, rows = run(STUDY, TINY, tmp_path)
    assert status in (0, 1)
    of_sums = rows[rows["part"] == "sum"].set_index("method")
    assert set(of_sums.index) == set(Settings().methods)
    assert of_sums.loc[["exact", "quadrature", "compiled"], "total"].to_numpy() == pytest.approx(1, abs=1e-9)
    assert rows[rows["part"] == "interval"]["width"].gt(0).sum() == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "digits"],
        ["--draws", "1"],
        ["--confidence", "1"],
        ["--methods", "exact", "exact"],
        ["--bits", "30"],
        ["--data", "nltcs", "--rows", "100"],
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, ["--quick", *arguments])
