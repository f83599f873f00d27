"""`images`: what its columns are, which flows are of one size, what is proven and what refused; and that it runs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bridge import UniformDequantisation, layered
from density import DiagonalGaussian, Kind, LogDensity, Measure
from lvm import VAE
from studies.images.grey_images import GreyImages, grey_images
from studies.images.measure import compare, dequantised_claim, in_unit_box
from studies.images.models import MODELS, matched_width, multi_scale_flow, vector_flow
from studies.images.report import checks, table
from studies.images.settings import DENSITIES, Settings, tasks
from studies.images.standings import pairs, standings
from studies.kit.compute import parameter_count
from studies.kit.study import Check
from tests.studies.running import Refused, run

STUDY = "studies.images"
SMALL = Settings(flow_channels=(8, 8), flow_steps=2, vector_layers=2)
TINY = ["--quick", "--small-steps", "4", "--flow-channels", "4", "--flow-steps", "1", "--channels", "4", "--latents"]
TINY += ["3", "--draws", "5", "--simulated", "4", "--train-rows", "300", "--test-rows", "30", "--wide", "4"]
TINY += ["--vector-layers", "2", "--components", "2"]


@pytest.fixture(scope="module")
def digits() -> GreyImages:
    return grey_images("digits", 0, None)


def test_the_vector_flow_has_the_nearest_number_of_parameters(digits: GreyImages) -> None:
    wanted = parameter_count(multi_scale_flow(digits, SMALL))
    width = matched_width(digits, SMALL)
    off = [abs(parameter_count(vector_flow(digits, SMALL, near)) - wanted) for near in (width - 1, width, width + 1)]
    assert off[1] == min(off)
    assert off[1] < 0.1 * wanted


def test_naive_bits_of_a_density_are_off_by_the_logarithm_of_the_levels(digits: GreyImages) -> None:
    claim = LogDensity(torch.zeros(4), Kind.EXACT, "made up")
    naive = in_unit_box(claim, digits).bits_per_dimension(64)
    torch.testing.assert_close(naive.value, torch.full((4,), -math.log2(17)))
    assert naive.mean == pytest.approx(claim.bits_per_dimension(64, levels=17).mean - 2 * math.log2(17))


def test_all_densities_see_the_same_noise_and_masses_have_none() -> None:
    x, same = torch.arange(6.0).reshape(3, 2), lambda: torch.Generator().manual_seed(0)
    claims = [
        dequantised_claim(layered(DiagonalGaussian(2), UniformDequantisation(2, levels)), x, same())
        for levels in (None, 17)
    ]
    assert claims[0] is not None
    assert claims[1] is not None
    assert (claims[0].kind, claims[0].measure) == (Kind.EXACT, Measure.LEBESGUE)
    assert (claims[0] - claims[1]).value.abs().max() == 0
    assert dequantised_claim(VAE.bernoulli(2, 1), x, same()) is None
    assert dequantised_claim(VAE.bernoulli(2, 2), x, same()) is None


def test_two_densities_are_compared_exactly_and_two_bounds_are_refused(tmp_path: Path) -> None:
    numbers = {name: np.random.default_rng(seed).normal(size=50) for seed, name in enumerate(("a", "b", "naive"))}
    nothing = np.empty(0)
    np.savez(tmp_path / "a.npz", value=numbers["a"], density=numbers["a"], naive=numbers["naive"])
    np.savez(tmp_path / "b.npz", value=numbers["b"], density=numbers["b"], naive=numbers["b"])
    np.savez(tmp_path / "c.npz", value=numbers["b"], density=nothing, naive=numbers["b"])
    row = compare(tmp_path / "a.npz", tmp_path / "b.npz")
    difference = numbers["a"] - numbers["b"]
    assert row["value"] == pytest.approx(difference.mean(), abs=1e-12)
    assert row["standard_error"] == pytest.approx(difference.std(ddof=1) / math.sqrt(50))
    assert (row["kind"], row["test_rows"]) == ("exact", 50)
    for first, second in (("a", "c"), ("c", "a"), ("c", "c")):
        row = compare(tmp_path / f"{first}.npz", tmp_path / f"{second}.npz")
        assert "value" not in row
        assert str(row["refused"]).startswith("the difference of two lower bounds is neither a bound nor an estimate")
        assert "naive" in row


def made_up(difference: float = 9.0, seeds: int = 1) -> pd.DataFrame:
    """Rows of two densities and a mass."""
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        for model, bits in (("nvp", 2.1), ("glow", 2.0), ("vae", 2.2)):
            numbers = {"bits": bits + 0.01 * seed, "bits_error": 0.03, "elbo_bits": bits + 0.1, "elbo_bits_error": 0.03}
            numbers |= {"naive_bits": bits - (4 if model != "vae" else -0.1), "naive_bits_error": 0.03}
            numbers |= {"density_bits": bits + 0.1 if model != "vae" else math.nan, "width_bits": 0.05}
            numbers |= {"width_error": 0.01, "parameters": 1000, "cpu_seconds": 1.0}
            rows.append({"model": model, "seed": seed, "kind": "upper bound", "measure": "counting", **numbers})
        value = {"value": difference + 0.1 * seed, "standard_error": 0.5}
        rows.append({"model": "glow", "versus": "nvp", "seed": seed, **value})
        rows.append({"model": "vae", "versus": "glow", "seed": seed, "refused": "two lower bounds"})
    about = {"data": "digits", "train_rows": 100, "test_rows": 50, "features": 64, "levels": 17, "points": "none"}
    return pd.DataFrame(rows).assign(**about)


def test_seeds_are_averaged_and_decided_together() -> None:
    rows = made_up(seeds=3)
    best = standings(rows, "digits")[0]
    assert (best.model, best.bits) == ("glow", pytest.approx(2.01))
    assert best.bits_error == pytest.approx(0.03)  # as the verdicts have it
    (pair,) = pairs(rows, "digits")
    assert pair.decision.fitted.mean == pytest.approx(9.1)
    assert pair.decision.verdict.value == pair.decision.verdict_anew.value == "better"


def test_claims_are_decided_by_the_numbers() -> None:
    def failed(rows: pd.DataFrame) -> list[Check]:
        return [check for check in checks(rows) if not check.passed]

    assert failed(made_up()) == []
    (behind,) = failed(made_up(difference=1.9))  # 3.8 errors
    assert behind.passed is None
    rows = made_up()
    rows.loc[rows["model"] == "vae", "elbo_bits"] = 2.1
    assert "at most the ELBO's bits" in failed(rows)[0].claim
    rows = made_up()
    rows.loc[0, "width_bits"] = -0.04
    assert "no lower bound is above" in failed(rows)[0].claim


def test_sets_with_other_numbers_of_seeds_do_not_mix() -> None:
    both = pd.concat([made_up(seeds=3), made_up().assign(data="mnist")], ignore_index=True)
    assert standings(both, "mnist")[0].bits_error == pytest.approx(0.03)
    assert standings(both, "digits")[0].bits_error == pytest.approx(0.03)  # as the verdicts have it
    assert table(both).renderables


def test_what_two_bounds_leave_open_is_said() -> None:
    (words,) = [str(part) for part in table(made_up()).renderables[-1:]]
    assert "Of VAE (2.200) and multi-scale Glow (2.000) nothing is proven: two lower bounds on masses" in words
    assert "every density before every mass" in words


def test_presets_change_what_was_not_chosen() -> None:
    gpu = Settings(preset="gpu", batch_size=50).quickened()
    assert (gpu.device, gpu.batch_size, gpu.sets, gpu.train_rows) == ("cuda", 50, ("mnist",), 0)
    assert gpu.flow_levels == 3
    assert Settings().quickened() == Settings()
    assert Settings(quick=True).quickened().sets == ("digits",)
    assert set(MODELS) == set(Settings().models) > set(DENSITIES)


def test_every_two_models_are_paired_once() -> None:
    chosen = replace(SMALL, sets=("digits",), models=("gaussian", "vae", "glow"))
    keys = [(task.key.model, task.key.versus) for task in tasks(chosen)]
    assert keys == [
        ("gaussian", ""), ("vae", ""), ("glow", ""), ("vae", "gaussian"), ("glow", "gaussian"), ("glow", "vae"),
    ]  # fmt: skip


def test_the_whole_study_runs(tmp_path: Path) -> None:
    models = ["gaussian", "glow", "vae"]
    status, rows = run(STUDY, [*TINY, "--models", *models], tmp_path)
    assert status == 0
    alone = rows[rows["versus"].isna()].set_index("model")
    assert list(alone.index) == models
    assert alone["kind"].eq("upper bound").all()
    assert alone["measure"].eq("counting").all()
    assert alone["density_bits"].notna().tolist() == [True, True, False]
    assert (alone["bits"] > 0).all()
    pair = rows[rows["versus"].notna()]
    assert pair["refused"].notna().tolist() == [False, True, True]
    assert pair["value"].notna().tolist() == [True, False, False]
    with np.load(alone.loc["vae", "points"]) as arrays:
        assert arrays["samples"].shape == arrays["reconstructed"].shape == arrays["originals"].shape == (8, 8, 8)
        assert 0 <= arrays["reconstructed"].min() <= arrays["reconstructed"].max() <= 1
        bits = -arrays["value"].mean() / (64 * math.log(2))
    assert alone.loc["vae", "bits"] == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize("arguments", [["--data", "digits"], ["--models", "vae", "vae"], ["--draws", "1"], ["--sets"]])
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str]) -> None:
    refused(STUDY, ["--quick", *arguments])
