"""The theorem in numbers: each measurement against an oracle, and checks that fail when the numbers are wrong."""

from __future__ import annotations

from typing import get_args

import pandas as pd
import pytest
import torch

from bridge import FlowVAE
from flows import Flow
from studies.equivalence.measure import elbo_from_the_decoder, flow_and_points, limit, theorem
from studies.equivalence.report import GRADIENT, VALUE, checks, selected, slopes
from studies.equivalence.settings import FlowName, Settings
from studies.kit.study import Study
from studies.report.committed import results as committed_results
from tests.studies.running import Refused, run

STUDY = "studies.equivalence"
SMALL = Settings(points=16, steps=3, layers=2, hidden=(8,))
ARGUMENTS = ["--quick", "--points", "16", "--steps", "3", "--layers", "2", "--hidden", "8"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    status, rows = run(STUDY, ARGUMENTS, tmp_path_factory.mktemp("results"))
    assert status == 0
    return rows


@pytest.mark.parametrize("name", get_args(FlowName))
def test_the_decoders_elbo_is_that_of_the_encoders_jacobian(name: FlowName) -> None:
    """log|det ∂g/∂z| = −log|det ∂f/∂x|, the other Jacobian by another route; rounding of 1e-15 through 2 layers."""
    flow, x = flow_and_points(SMALL, name, 0)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: flow.transform.forward(row)[0]))(x)
    z = flow.transform.forward(x)[0]
    expected = flow.base.log_prob(z) + torch.linalg.slogdet(jacobian).logabsdet
    assert (elbo_from_the_decoder(FlowVAE(flow), x) - expected).abs().max() < 1e-12
    identity = torch.eye(x.shape[1], dtype=torch.float64)
    assert (jacobian - identity).abs().amax((1, 2)).min() > 0.05  # not measured at an identity


def test_the_limit_of_a_linear_flow_is_known() -> None:
    """log w = log N(f + σJε; 0, I) + log|det J|, whose mean is log p(x) − σ² ‖J‖² / 2, Frobenius."""
    flow, x = flow_and_points(SMALL, "linear", 0)
    matrix = torch.func.jacrev(lambda x: flow.transform.forward(x)[0])(torch.zeros(3, dtype=torch.float64))
    row = limit(flow, x, 0.1)
    # Differences of log-weights of size 10 divided by 0.01: 1e-13.
    assert row["relaxed_error"] == pytest.approx(0.005 * matrix.square().sum().item(), rel=1e-10)


def test_a_small_run_confirms_the_theorem(results: pd.DataFrame) -> None:
    assert set(results["part"]) == {"theorem", "path", "limit"}
    assert all(check.passed for check in checks(results))
    assert slopes(results, "relaxed_error").between(1.99, 2.01).all()


def test_a_wrong_log_determinant_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Flow.log_prob
    monkeypatch.setattr(Flow, "log_prob", lambda self, x: right(self, x) + 1e-9 * x[..., 0].square())
    row = theorem(*flow_and_points(SMALL, "coupling", 0))
    assert row["value_error"] > VALUE
    assert row["gradient_error"] < GRADIENT  # the addition holds no parameter


@pytest.mark.parametrize(
    ("column", "value"),
    [("value_error", 1e-9), ("gradient_error", 1e-7), ("log_weight_spread", 1e-12), ("elbo", "1e-3 1e-3")],
)
def test_a_wrong_number_is_a_failed_check(results: pd.DataFrame, column: str, value: float | str) -> None:
    of = results["part"] == ("path" if column == "elbo" else "theorem")
    bad = results.assign(**{column: results[column].mask(of, value)})
    assert not all(check.passed for check in checks(bad))


def test_another_rate_is_a_failed_check(results: pd.DataFrame) -> None:
    for column in ("relaxed_error", "relaxed_gradient_error"):
        bad = results.assign(**{column: results[column] * results["sigma"] ** -0.1})
        failed = [check for check in checks(bad) if not check.passed]
        assert len(failed) == 5


def test_a_run_shows_the_flows_and_widths_that_it_asks_for() -> None:
    (committed,) = committed_results(Study(STUDY))
    rows = selected(Settings(flows=("maf", "iaf"), sigmas=(0.01, 0.1)), committed.rows)
    assert set(rows["flow"]) == {"maf", "iaf"}
    assert set(rows["part"]) == {"theorem", "path", "limit"}
    assert set(rows["sigma"].dropna()) == {0.01, 0.1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--points", "1"], "--points must be at least 2"),
        (["--flows", "maf", "maf"], "--flows expects different flows"),
        (["--sigmas", "0.1"], "--sigmas expects two or more different positive widths; got 0.1"),
        (["--sigmas", "0.1", "-1"], "--sigmas expects two or more different positive widths"),
        (["--width", "0"], "--width must be positive"),
    ],
)
def test_bad_requests_are_one_clear_error(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused(STUDY, arguments)
