"""Gradient estimators: references against finite differences and quadrature; checks that can fail."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from studies import gradient_estimators
from studies import gradient_estimators_ask as ask
from studies.gradient_estimators import PLAIN, WEIGHTED, Settings, checks, slopes
from studies.kit.rows import Rows
from studies.kit.tables import frame

KEY = ("part", "estimator", "draws", "offset", "study", "data", "data_hash", "seed", "settings_hash")
SMALL = Settings(repeats=2000, features=3, latents=1, points=1)
ARGUMENTS = ["--quick", "--repeats", "200", "--draws", "16", "64", "--steps", "400"]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("results")
    assert gradient_estimators.main([*ARGUMENTS, "--output", str(folder)]) == 0
    assert (folder / "gradient_estimators" / "linear-quick" / "figure.png").exists()
    return frame(Rows(folder / "gradient_estimators" / "linear-quick" / "rows.csv", KEY))


def test_at_offset_0_the_encoder_is_the_posterior_and_moves_away_in_proportion() -> None:
    posterior, x = ask.model_and_points(Settings(), 0.0, 0)
    assert (posterior.log_prob(x) - posterior.elbo_closed_form(x)).abs().max() < 1e-12
    near, same = ask.model_and_points(Settings(), 0.01, 0)
    far, _ = ask.model_and_points(Settings(), 0.1, 0)
    assert same.equal(x)
    weights = [torch.cat([p.flatten() for p in model.encoder.parameters()]) for model in (posterior, near, far)]
    moved = [weight - weights[0] for weight in weights[1:]]
    assert (moved[1] - 10 * moved[0]).abs().max() < 1e-12
    assert moved[0].abs().min() > 1e-5


def test_the_exact_gradient_is_that_of_finite_differences() -> None:
    model, x = ask.model_and_points(Settings(), 0.3, 0)
    found = ask.exact_gradient(model, model.elbo_closed_form(x).mean())
    position = 0
    for parameter in model.parameters():
        flat = parameter.data.reshape(-1)
        for index in range(flat.numel()):
            kept, values = flat[index].item(), []
            for step in (1e-5, -1e-5):
                flat[index] = kept + step
                values.append(model.elbo_closed_form(x).mean().item())
            flat[index] = kept
            # Truncation 1e-10 times third derivatives of up to some hundred; rounding 1e-14 / 1e-5.
            assert (values[0] - values[1]) / 2e-5 == pytest.approx(found[position].item(), abs=1e-6)
            position += 1
    assert position == found.numel()


def weighted_gradient(settings: Settings, offset: float) -> Tensor:
    """Of E log ½(w₁ + w₂), the weighted bound of two draws of one latent, by 60 × 60 Gauss-Hermite nodes."""
    model, x = ask.model_and_points(settings, offset, 0)
    nodes, masses = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(60))
    masses = masses / masses.sum()
    mean, scale = model.encoder.at(x)
    z = mean + scale.color(nodes.reshape(-1, 1, 1).expand(-1, 1, 1))
    log_w = (model.log_joint(x, z) - model.encoder.log_prob(z, x)).squeeze(-1)
    both = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    return ask.exact_gradient(model, masses @ both @ masses)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_estimators_have_the_mean_that_quadrature_says(name: str) -> None:
    """And the one that leaves the score out does not."""
    exact = weighted_gradient(SMALL, 0.3)
    model, x = ask.model_and_points(SMALL, 0.3, 0)
    generator = torch.Generator().manual_seed(1)
    found = ask.gradient_quality(
        ask.ESTIMATORS[name](2), model, x, repeats=20_000, reference=exact, generator=generator, progress=False
    )
    noisy = found.variance > 1e-20
    worst = found.deviation[noisy].abs().max().item()
    assert (worst > 10) if name == "sticking, weighted" else (worst < 4.5)


def test_the_row_of_an_estimator_holds_what_gradient_quality_found() -> None:
    row = ask.quality(SMALL, "reparametrised", 3, 0.1, 0)
    model, x = ask.model_and_points(SMALL, 0.1, 0)
    exact = ask.exact_gradient(model, model.elbo_closed_form(x).mean())
    theta = sum(parameter.numel() for parameter in model.decoder.parameters())
    signals = math.hypot(float(row["phi_signal"]), float(row["theta_signal"]))
    assert signals == pytest.approx(exact.norm().item(), rel=1e-12)
    own = torch.cat(
        [p.flatten() for p in torch.autograd.grad(model.elbo_closed_form(x).mean(), model.decoder.parameters())]
    )
    assert own.numel() == theta
    assert row["theta_signal"] == pytest.approx(own.norm().item(), rel=1e-12)
    assert float(row["phi_bias"]) < 4 * float(row["phi_bias_se"])


def test_powers_are_read_off_the_rows() -> None:
    rows = [
        {"part": "quality", "estimator": name, "offset": 0.01, "seed": 0, "draws": draws}
        | {"phi_snr": 3 * draws**-0.5, "theta_snr": 2 * draws**0.5}
        for name in WEIGHTED
        for draws in (1, 16, 64, 256)
    ]
    found = slopes(pd.DataFrame(rows), 0.01).set_index(["estimator", "part"])["slope"]
    assert found.xs("phi", level="part").to_numpy() == pytest.approx(-0.5, abs=1e-12)
    assert found.xs("theta", level="part").to_numpy() == pytest.approx(0.5, abs=1e-12)


def test_a_small_run_confirms_every_claim(results: pd.DataFrame) -> None:
    quality = results[results["part"] == "quality"]
    assert set(quality["estimator"]) == {*PLAIN, *WEIGHTED}
    assert all(check.passed for check in checks(results))
    assert results["phi_variance"].dropna().ge(0).all()


@pytest.mark.parametrize(
    ("estimator", "column", "value"),
    [
        ("score function", "phi_bias", 1e4),
        ("reparametrised", "theta_bias", 1e4),
        ("wrong", "phi_bias", 0.0),
        ("wrong", "phi_from_kl_alone", 1e-3),
        ("sticking, weighted", "phi_bias", 0.0),
        ("leave-one-out", "phi_variance", 1.0),
        ("importance weighted", "phi_snr", 1.0),
        ("sticking the landing", "last_gap", 1.0),
        ("wrong", "last_gap", 0.0),
    ],
)
def test_a_wrong_number_is_a_failed_check(results: pd.DataFrame, estimator: str, column: str, value: float) -> None:
    of = (results["estimator"] == estimator) & results[column].notna()
    bad = results.assign(**{column: results[column].mask(of, value)})
    assert sum(not check.passed for check in checks(bad)) == 1


@pytest.mark.parametrize("arguments", [["--repeats", "1"], ["--points", "0"], ["--steps", "0"]])
def test_bad_requests_are_one_clear_error(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gradient_estimators.main([*arguments, "--output", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
