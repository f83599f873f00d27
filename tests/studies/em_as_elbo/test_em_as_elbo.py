"""EM half step by half step: the bound against oracles, the race against itself, checks that can fail."""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator

from lvm import PPCA, GaussianMixture
from studies.em_as_elbo import measure
from studies.em_as_elbo.report import arrivals, checks, selected
from studies.em_as_elbo.settings import Method, Problem, Settings
from studies.kit.study import Study
from studies.kit.tables import series
from studies.report.committed import results as committed_results
from tests.studies.running import Refused, run

STUDY = "studies.em_as_elbo"
SMALL = Settings(rows=60, half_steps=3, passes=20)
ARGUMENTS = ["--quick", "--seeds", "0", "--rows", "100", "--passes", "100"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return run(STUDY, ARGUMENTS, tmp_path_factory.mktemp("results"))[1]


def two_mixtures() -> tuple[GaussianMixture, GaussianMixture, torch.Tensor]:
    old, x = measure.problem(SMALL, "overlapping", 0)
    new, _ = measure.problem(SMALL, "overlapping", 1)
    assert isinstance(old, GaussianMixture)
    assert isinstance(new, GaussianMixture)
    return old, new, x


def test_the_mixtures_bound_is_the_sum_over_components() -> None:
    """Σ_k r_k (log π_k + log N(x; μ_k, Σ_k) − log r_k), by scipy, with the old model's r."""
    old, new, x = two_mixtures()

    def log_joint(model: GaussianMixture) -> np.ndarray:
        parts = zip(*(t.detach().numpy() for t in (model.weights, model.means, model.covariances)), strict=True)
        return np.stack([math.log(w) + multivariate_normal(m, c).logpdf(x.numpy()) for w, m, c in parts])

    log_r = log_joint(old) - np.logaddexp.reduce(log_joint(old))
    expected = (np.exp(log_r) * (log_joint(new) - log_r)).sum(0).mean()
    assert measure.bound(new, old, x).item() == pytest.approx(expected, abs=1e-12)
    assert measure.bound(new, new, x).item() - expected > 1e-3  # another q is another bound


def test_the_bound_of_ppca_is_what_sampling_finds() -> None:
    old, x = measure.problem(SMALL, "noisy", 0)
    new, _ = measure.problem(SMALL, "noisy", 1)
    assert isinstance(new, PPCA)
    with torch.no_grad():
        z, log_q = old.encoder.sample_with_log_prob(4000, context=x, generator=Generator().manual_seed(0))
        means = (new.log_joint(x, z) - log_q).mean(1)
    error = means.std().item() / 4000**0.5
    assert measure.bound(new, old, x).item() == pytest.approx(means.mean().item(), abs=4.5 * error)
    assert measure.bound(old, old, x).item() == pytest.approx(old.log_prob(x).mean().item(), abs=1e-11)


@pytest.mark.parametrize("method", ["EM", "Adam", "L-BFGS"])
def test_all_methods_start_alike_and_say_what_they_reached(method: Method) -> None:
    model, x = measure.problem(SMALL, "noisy", 2)
    row = measure.race(SMALL, "noisy", method, 2)
    values = [float(value) for value in str(row["values"]).split()]
    assert values[0] == pytest.approx(model.log_prob(x).mean().item(), abs=1e-9)  # 12 digits are kept
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.1
    if method == "EM":
        for _ in range(SMALL.passes):
            model.em_step(x)
        assert row["best"] == pytest.approx(model.log_prob(x).mean().item(), abs=1e-10)


@pytest.mark.parametrize("name", ["overlapping", "noisy"])
def test_the_m_step_ends_where_no_other_parameters_have_a_higher_bound(name: Problem) -> None:
    old, x = measure.problem(SMALL, name, 0)
    new = deepcopy(old)
    new.em_step(x)
    highest = measure.bound(new, old, x).item()
    assert series(str(measure.half_steps(SMALL, name, 0)["after_m"]))[0] == pytest.approx(highest, abs=1e-9)
    generator = Generator().manual_seed(0)
    for _ in range(10):
        step = [1e-3 * torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in new.parameters()]
        for sign in (1, -1):
            other = deepcopy(new)
            with torch.no_grad():
                for parameter, part in zip(other.parameters(), step, strict=True):
                    parameter.add_(sign * part)
            assert measure.bound(other, old, x).item() < highest  # by some 1e-6, its curvature; a slope would be 1e-5


def made() -> pd.DataFrame:
    """Two methods that halve and quarter what is missing with each pass."""
    passes = np.arange(31)
    rows = []
    for method, factor in (("EM", 0.5), ("L-BFGS", 0.25)):
        values = [-(factor ** int(n)) for n in passes]
        row = {"problem": "noisy", "seed": 0, "method": method, "best": max(values)}
        row |= {name: " ".join(map(str, of)) for name, of in (("values", values), ("passes", passes))}
        rows.append(row | {"clock": " ".join(str(0.1 * n) for n in passes)})
    return pd.DataFrame(rows)


def test_arrivals_are_read_off_the_curves() -> None:
    found = arrivals(made()).set_index("method")
    # 2⁻¹⁴ and 4⁻⁷ are the first below 1e-4; the best is −4⁻³⁰.
    assert found["passes"].to_dict() == {"EM": 14, "L-BFGS": 7}
    assert found["seconds"].to_dict() == pytest.approx({"EM": 1.4, "L-BFGS": 0.7})
    assert math.isinf(arrivals(made().assign(values="-1 -0.5"))["passes"].iloc[0])


def test_a_small_run_confirms_coordinate_ascent(results: pd.DataFrame) -> None:
    found = checks(results)
    assert len(found) == 29
    assert all(check.passed for check in found if "end alike" not in check.claim)  # so few passes are not enough
    assert results["method"].value_counts()["half steps"] == 4


@pytest.mark.parametrize(
    ("column", "value"),
    [("touching", 1e-6), ("raised", -1e-6), ("fallen", 1e-6), ("gap_is_kl", 1e-6), ("first_gap", 0.0)],
)
def test_a_wrong_half_step_is_a_failed_check(results: pd.DataFrame, column: str, value: float) -> None:
    bad = results.assign(**{column: results[column].where(results[column].isna(), value)})
    before = sum(not check.passed for check in checks(results))
    assert sum(not check.passed for check in checks(bad)) == before + 4


def test_a_posterior_that_is_not_renewed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An E-step left out: with the first posterior for good, the bound no longer touches."""
    first, right = {}, measure.bound

    def stale(model: measure.Model, q: measure.Model, x: torch.Tensor) -> torch.Tensor:
        return right(model, first.setdefault("q", q), x)

    monkeypatch.setattr(measure, "bound", stale)
    row = measure.half_steps(SMALL, "overlapping", 0)
    assert float(row["touching"]) > 1e-4
    assert float(row["gap_is_kl"]) > 1e-4


def test_a_run_shows_the_problems_that_it_asks_for() -> None:
    (committed,) = committed_results(Study(STUDY))
    assert set(selected(Settings(problems=("noisy",)), committed.rows)["problem"]) == {"noisy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "10"], "--rows must be at least 50"),
        (["--problems", "noisy", "noisy"], "--problems expects different problems"),
        (["--learning-rate", "0"], "--learning-rate must be positive"),
        (["--seeds", "1", "1"], "--seeds expects different integers"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
