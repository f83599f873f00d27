"""Draws from the prior: the models' numbers against closed forms, the estimators against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator

from studies.kit.seeds import derived_seed
from studies.kit.study import Study
from studies.naive_monte_carlo.measure import divergences, estimate, random_model
from studies.naive_monte_carlo.report import ENOUGH, checks, draws_needed, power, selected, shortfall_at_kl
from studies.naive_monte_carlo.settings import Settings
from studies.report.committed import results as committed_results
from tests.studies.running import Refused, run

STUDY = "studies.naive_monte_carlo"
SMALL = Settings(features=5, points=300)
ARGUMENTS = ["--quick", "--points", "40", "--latents", "2", "4", "6", "--draws", "2", "8", "32", "128", "512"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return run(STUDY, ARGUMENTS, tmp_path_factory.mktemp("results"))[1]


@pytest.mark.parametrize("latents", [1, 2, 4])
def test_the_model_is_what_its_docstring_says(latents: int) -> None:
    model = random_model(SMALL, latents, 3)
    weight = model.decoder.weight.detach()
    expected = SMALL.signal**2 * torch.eye(latents, dtype=torch.float64)
    for first in range(0, latents - 1, 2):
        expected[first, first + 1] = expected[first + 1, first] = SMALL.signal**2 * SMALL.correlation
    assert (weight.mT @ weight - expected).abs().max() < 1e-12
    x = model.sample(20, generator=Generator().manual_seed(0)).detach()
    covariance = (weight @ weight.mT + torch.eye(5, dtype=torch.float64)).numpy()
    oracle = multivariate_normal(np.zeros(5), covariance).logpdf(x.numpy())
    assert np.abs(model.log_prob(x).detach().numpy() - oracle).max() < 1e-12


def test_divergences_have_the_means_of_the_docstring() -> None:
    """E KL(posterior ‖ prior) is the mutual information; the encoder's gap is the same at every x."""
    model = random_model(SMALL, 2, 0)
    x = model.sample(20_000, generator=Generator().manual_seed(1)).detach()
    found = {name: value.detach() for name, value in divergences(model, x).items()}
    r = SMALL.correlation * SMALL.signal**2 / (1 + SMALL.signal**2)
    information = math.log(1 + SMALL.signal**2) + 0.5 * math.log(1 - r**2)
    of = found["kl_posterior_prior"]
    assert of.mean().item() == pytest.approx(information, abs=4.5 * of.std().item() / 20_000**0.5)
    gap = (model.log_prob(x) - model.elbo_closed_form(x)).detach()
    assert (gap + 0.5 * math.log(1 - r**2)).abs().max() < 1e-11
    # KL(prior ‖ posterior) is what is missing when q is the prior: E_prior log p(x|z) by a rule exact for squares.
    nodes, masses = np.polynomial.hermite_e.hermegauss(3)
    z = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2)
    weights = torch.from_numpy(np.outer(masses, masses).ravel() / masses.sum() ** 2)
    few = x[:50]
    average = weights @ model.decoder.log_prob(few, z.unsqueeze(1).expand(-1, 50, -1))
    assert (model.log_prob(few) - average - found["kl_prior_posterior"][:50]).abs().max() < 1e-11


def test_two_draws_of_the_prior_miss_what_quadrature_says() -> None:
    """E log ½(p(x|z₁) + p(x|z₂)) over two standard normal draws, by a sum over a grid."""
    row = estimate(SMALL, 1, "prior", 2, 0)
    model = random_model(SMALL, 1, 0)
    x = model.sample(SMALL.points, generator=Generator().manual_seed(derived_seed(0, "points", "1"))).detach()
    grid = torch.linspace(-8, 8, 161, dtype=torch.float64)
    mass = torch.exp(-0.5 * grid.square()) * (grid[1] - grid[0]) / math.sqrt(2 * math.pi)
    log_likelihood = model.decoder.log_prob(x, grid.reshape(-1, 1, 1).expand(-1, len(x), -1)).detach()
    both = torch.logaddexp(log_likelihood.unsqueeze(0), log_likelihood.unsqueeze(1)) - math.log(2)
    expected = model.log_prob(x).detach() - torch.einsum("i,j,ijn->n", mass, mass, both)
    # Means over the same points; the draws' part of the spread is less than all of it.
    assert row["shortfall"] == pytest.approx(expected.mean().item(), abs=4.5 * float(row["shortfall_se"]))
    assert expected.mean() > 5 * float(row["shortfall_se"])  # and so it is not 0


def test_the_average_misses_the_divergence_at_any_number_of_draws() -> None:
    for draws in (2, 500):
        row = estimate(SMALL, 3, "average", draws, 1)
        assert abs(float(row["excess"])) < 4.5 * float(row["excess_se"])
        assert row["kind"] == "lower bound"
    assert abs(float(estimate(SMALL, 3, "prior", 500, 1)["shortfall"])) < 0.1 * float(row["shortfall"])


def made(factor: float, error: float = 1e-3) -> pd.DataFrame:
    """Rows of estimators that miss exp(KL) / K to some power: 0.5 nats at K = 2 exp(factor · KL)."""
    rows = []
    for latents, divergence in ((1, 1.0), (2, 2.0), (3, 3.0)):
        for draws in (2, 8, 32, 128, 512, 2048):
            short = ENOUGH + math.log(2) + factor * divergence - math.log(draws)
            known = {"kl_posterior_prior": divergence, "kl_posterior_encoder": 0.1}
            rows.append({"latents": latents, "method": "prior", "draws": draws, "seed": 0, "shortfall": short} | known)
    return pd.DataFrame(rows).assign(shortfall_se=error)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_draws_needed_and_their_power_are_read_off_the_rows(factor: float) -> None:
    rows = made(factor)
    needed = draws_needed(rows, "prior")
    assert needed["log_draws"].to_numpy() == pytest.approx(math.log(2) + factor * needed["kl"].to_numpy(), abs=1e-12)
    assert needed["error"].to_numpy() == pytest.approx(1e-3, rel=1e-9)  # the slope in log K is 1
    assert power(needed)[0] == pytest.approx(factor, abs=1e-12)
    expected = [ENOUGH + math.log(2) + (factor - 1) * kl for kl in needed["kl"]]
    assert shortfall_at_kl(rows).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_small_run_keeps_its_claims_and_wrong_numbers_fail_them(results: pd.DataFrame) -> None:
    found = checks(results)
    assert all(check.passed for check in found if "c within" not in check.claim)  # 40 points leave it too uncertain
    average = results["method"] == "average"
    bad = [
        results.assign(excess=results["excess"].mask(average, 1.0)),
        results.assign(shortfall=results["shortfall"].mask(~average, -1.0)),
        results.assign(shortfall=results["shortfall"].mask(results["method"] == "encoder", 0.3)),
        results.assign(kl_posterior_prior=results["kl_posterior_prior"] / 2),
    ]
    failed = [{check.claim[:20] for check in checks(rows) if not check.passed} for rows in bad]
    assert all(failed)
    assert len(set(map(frozenset, failed))) == 4


def test_a_run_shows_the_latents_and_draws_that_it_asks_for() -> None:
    (committed,) = committed_results(Study(STUDY))
    rows = selected(Settings(latents=(1, 4), draws=(2, 8192)), committed.rows)
    assert set(zip(rows["latents"], rows["draws"], strict=True)) == {(1, 2), (1, 8192), (4, 2), (4, 8192)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draws", "1"], "--draws expects different integers from 2 up; got 1"),
        (["--latents", "40"], "--features must be at least the largest of --latents; got 32"),
        (["--correlation", "1"], "--correlation must be in [0, 1); got 1.0"),
        (["--signal", "0"], "--signal must be positive"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
