"""The theorem in numbers: each measurement against an oracle, and checks that fail when the numbers are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import torch

from bridge import FlowVAE
from flows import Flow
from studies import equivalence
from studies import equivalence_ask as ask
from studies.equivalence import FlowName, Settings, checks, slopes
from studies.kit.rows import Rows
from studies.kit.tables import frame

KEY = ("flow", "part", "sigma", "study", "data", "data_hash", "seed", "settings_hash")
SMALL = Settings(points=16, steps=3, layers=2, hidden=(8,))
ARGUMENTS = ["--quick", "--points", "16", "--steps", "3", "--layers", "2", "--hidden", "8"]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("results")
    assert equivalence.main([*ARGUMENTS, "--output", str(folder)]) == 0
    assert (folder / "equivalence" / "random-quick" / "figure.png").exists()
    return frame(Rows(folder / "equivalence" / "random-quick" / "rows.csv", KEY))


@pytest.mark.parametrize("name", get_args(FlowName))
def test_the_decoders_elbo_is_that_of_the_encoders_jacobian(name: FlowName) -> None:
    """log|det ∂g/∂z| = −log|det ∂f/∂x|, the other Jacobian by another route; rounding of 1e-15 through 2 layers."""
    flow, x = ask.random_flow(SMALL, name, 0), ask.points(SMALL, 0)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: flow.transform.forward(row)[0]))(x)
    z = flow.transform.forward(x)[0]
    expected = flow.base.log_prob(z) + torch.linalg.slogdet(jacobian).logabsdet
    assert (ask.elbo_from_the_decoder(FlowVAE(flow), x) - expected).abs().max() < 1e-12
    identity = torch.eye(x.shape[1], dtype=torch.float64)
    assert (jacobian - identity).abs().amax((1, 2)).min() > 0.05  # not measured at an identity


def test_the_limit_of_a_linear_flow_is_known() -> None:
    """log w = log N(f + σJε; 0, I) + log|det J|, whose mean is log p(x) − σ² ‖J‖² / 2, Frobenius."""
    flow = ask.random_flow(SMALL, "linear", 0)
    matrix = torch.func.jacrev(lambda x: flow.transform.forward(x)[0])(torch.zeros(3, dtype=torch.float64))
    row = ask.limit(SMALL, "linear", 0.1, 0)
    # Differences of log-weights of size 10 divided by 0.01: 1e-13.
    assert row["relaxed_error"] == pytest.approx(0.005 * matrix.square().sum().item(), rel=1e-10)


def test_hermite_rules_integrate_polynomials() -> None:
    places, masses = ask.hermite(3, torch.zeros(1, dtype=torch.float64))
    assert masses @ places[:, 0].pow(8) == pytest.approx(105, rel=1e-12)  # 7!!
    assert masses @ (places[:, 0] * places[:, 1]).square() == pytest.approx(1, rel=1e-12)


def test_a_small_run_confirms_the_theorem(results: pd.DataFrame) -> None:
    assert set(results["part"]) == {"theorem", "path", "limit"}
    assert all(check.passed for check in checks(results))
    assert slopes(results, "relaxed_error").between(1.99, 2.01).all()


def test_a_wrong_log_determinant_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Flow.log_prob
    monkeypatch.setattr(Flow, "log_prob", lambda self, x: right(self, x) + 1e-9 * x[..., 0].square())
    row = ask.theorem(SMALL, "coupling", 0)
    assert row["value_error"] > equivalence.VALUE
    assert row["gradient_error"] < equivalence.GRADIENT  # the addition holds no parameter


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


@pytest.mark.parametrize("arguments", [["--points", "1"], ["--flows", "maf", "maf"], ["--sigmas", "0.1"]])
def test_bad_requests_are_one_clear_error(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert equivalence.main([*arguments, "--output", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
