"""Gradient estimators: references against finite differences and quadrature; checks that can fail."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from lvm.vae.gradient_quality import gradient_quality
from studies.gradient_estimators.measure import ESTIMATORS, exact_gradient, model_and_points, quality
from studies.gradient_estimators.report import checks, powers
from studies.gradient_estimators.settings import PLAIN, WEIGHTED, Settings
from tests.studies.running import Refused, run

STUDY = "studies.gradient_estimators"
SMALL = Settings(repeats=2000, features=3, latents=1, points=1)
ARGUMENTS = ["--quick", "--repeats", "200", "--draws", "16", "64", "--steps", "400"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    status, rows = run(STUDY, ARGUMENTS, tmp_path_factory.mktemp("results"))
    assert status == 0
    return rows


def test_at_offset_0_the_encoder_is_the_posterior_and_moves_away_in_proportion() -> None:
    posterior, x = model_and_points(Settings(), 0.0, 0)
    assert (posterior.log_prob(x) - posterior.elbo_closed_form(x)).abs().max() < 1e-12
    near, same = model_and_points(Settings(), 0.01, 0)
    far, _ = model_and_points(Settings(), 0.1, 0)
    assert same.equal(x)
    weights = [torch.cat([p.flatten() for p in model.encoder.parameters()]) for model in (posterior, near, far)]
    moved = [weight - weights[0] for weight in weights[1:]]
    assert (moved[1] - 10 * moved[0]).abs().max() < 1e-12
    assert moved[0].abs().min() > 1e-5


def test_the_exact_gradient_is_that_of_finite_differences() -> None:
    model, x = model_and_points(Settings(), 0.3, 0)
    found = exact_gradient(model, model.elbo_closed_form(x).mean())
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
    model, x = model_and_points(settings, offset, 0)
    nodes, masses = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(60))
    masses = masses / masses.sum()
    mean, scale = model.encoder.at(x)
    z = mean + scale.color(nodes.reshape(-1, 1, 1).expand(-1, 1, 1))
    log_w = (model.log_joint(x, z) - model.encoder.log_prob(z, x)).squeeze(-1)
    both = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    return exact_gradient(model, masses @ both @ masses)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_estimators_have_the_mean_that_quadrature_says(name: str) -> None:
    """And the one that leaves the score out does not."""
    exact = weighted_gradient(SMALL, 0.3)
    model, x = model_and_points(SMALL, 0.3, 0)
    generator = torch.Generator().manual_seed(1)
    found = gradient_quality(
        ESTIMATORS[name](2), model, x, repeats=20_000, reference=exact, generator=generator, progress=False
    )
    noisy = found.variance > 1e-20
    worst = found.deviation[noisy].abs().max().item()
    assert (worst > 10) if name == "sticking, weighted" else (worst < 4.5)


def test_the_row_of_an_estimator_holds_what_gradient_quality_found() -> None:
    row = quality(SMALL, "reparametrised", 3, 0.1, 0)
    model, x = model_and_points(SMALL, 0.1, 0)
    exact = exact_gradient(model, model.elbo_closed_form(x).mean())
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
    for name in WEIGHTED:
        assert powers(pd.DataFrame(rows), 0.01, name, "phi").tolist() == pytest.approx([-0.5], abs=1e-12)
        assert powers(pd.DataFrame(rows), 0.01, name, "theta").tolist() == pytest.approx([0.5], abs=1e-12)


def test_a_small_run_confirms_every_claim(results: pd.DataFrame) -> None:
    assert set(results.loc[results["part"] == "quality", "estimator"]) == {*PLAIN, *WEIGHTED}
    assert not any(check.failed for check in checks(results))
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
    assert sum(check.failed for check in checks(bad)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "1"], "--repeats must be at least 2"),
        (["--points", "0"], "--points must be at least 1"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--draws", "0", "4"], "--draws expects different integers from 1 up; got 0 4"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
