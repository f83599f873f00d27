"""Continuous transforms against flows that are known, and what their claims say of their errors."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import FlowVAE
from density import ConditionalGaussian, Density, FixedScale, Kind, StandardNormal, load, save
from flows import Chain, ContinuousTransform, Flow, Hutchinson, Inverse, UnsolvedODE, continuous_flow
from lvm import VAE
from lvm.evidence import Linear as LinearSchedule
from lvm.evidence import Pilot, annealed, gap, importance
from tests.flows.continuous.velocities import (
    Linear,
    gaussian_flow,
    gaussian_log_prob,
    network_flow,
)

MATRIX = torch.tensor([[0.3, 1.0, -0.2], [-0.4, 0.1, 0.6], [0.5, -0.7, 0.2]], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def test_a_linear_velocity_is_a_matrix_exponential() -> None:
    """The signs of both directions, too: the trace is not 0."""
    transform, x = ContinuousTransform(Linear(MATRIX), 3), normal(5, 3)
    z, log_det = transform.forward(x)
    torch.testing.assert_close(z, x @ torch.matrix_exp(MATRIX).T, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_det, MATRIX.trace().expand(5), rtol=0, atol=1e-8)
    back, log_det = transform.inverse(x)
    torch.testing.assert_close(back, x @ torch.matrix_exp(-MATRIX).T, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_det, -MATRIX.trace().expand(5), rtol=0, atol=1e-8)


@pytest.mark.parametrize("features", [4, 32])
def test_a_gaussian_is_known_to_the_tolerance_by_default(features: int) -> None:
    std = torch.logspace(-1, 1, features, dtype=torch.float64)
    x = std * normal(20, features)
    claim = gaussian_flow(std).log_density(x)
    assert claim.kind is Kind.EXACT
    assert claim.method == "change of variables, solved to 1e-06 nats"
    error = (claim.value - gaussian_log_prob(x, std)).abs()
    assert claim.numerical_error is not None
    assert (error <= claim.numerical_error).all()
    assert error.max() < 1e-6


def test_in_float32_rounding_is_stated() -> None:
    std = torch.logspace(-1, 1, 4)
    x = std * normal(20, 4).float()
    claim = gaussian_flow(std).log_density(x)
    assert claim.numerical_error is not None
    assert ((claim.value - gaussian_log_prob(x.double(), std.double())).abs() <= claim.numerical_error).all()
    assert claim.numerical_error.max() < 1e-2


@pytest.mark.parametrize("features", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_stated_error_covers_the_truth(features: int) -> None:
    """At three tolerances, at 99 of 100 points; an error that exceeds the tolerance makes an estimate."""
    x = 2 * normal(1000, features)
    with torch.no_grad():
        truth = network_flow(features, 1e-9, scale=0.7).log_prob(x)
    for tolerance in (1e-2, 1e-4, 1e-6):
        claim = network_flow(features, tolerance, scale=0.7).log_density(x)
        assert claim.numerical_error is not None
        covered = (claim.value - truth).abs() <= claim.numerical_error
        assert covered.double().mean() >= 0.99, tolerance
        assert claim.kind is (Kind.EXACT if claim.numerical_error.max() <= tolerance + 1e-12 else Kind.ESTIMATE)


@pytest.mark.parametrize(("features", "nodes"), [(1, 400), pytest.param(2, 60, marks=pytest.mark.slow)])
def test_the_density_is_normalised_within_the_stated_error(features: int, nodes: int) -> None:
    """By the trapezoidal rule, whose error falls exponentially for smooth densities that vanish at the ends."""
    axis = torch.linspace(-9, 9, nodes, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * features).reshape(-1, features)
    claim = network_flow(features, 1e-6).log_density(points)
    cell, density = (axis[1] - axis[0]) ** features, claim.value.exp()
    assert claim.numerical_error is not None
    stated = float((density * claim.numerical_error).sum() * cell)
    quadrature = 1e-6 if features == 2 else 1e-10
    assert abs(float(density.sum() * cell) - 1) <= stated + quadrature


@pytest.mark.parametrize("width", [0.01, 0.005])
def test_a_burst_of_the_velocity_is_not_stepped_over(width: float) -> None:
    """v = x b(t), where b is a normal density about t = ½: z = x e, and a log-determinant of 1."""

    class Burst(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x * (-(((t - 0.5) / width) ** 2)).exp() / (width * math.sqrt(math.pi))

    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    claim = Flow(StandardNormal(1).double(), ContinuousTransform(Burst(), 1)).log_density(x)
    truth = StandardNormal(1).double().log_prob(x * math.e) + 1
    assert claim.numerical_error is not None
    assert ((claim.value - truth).abs() <= claim.numerical_error).all()
    assert claim.numerical_error.max() < 1e-5


def test_hutchinson_states_the_spread_of_its_repeats() -> None:
    """One point many times is as many repeats, with probes of their own; the variance is known in closed form."""
    rows, trace = 400, Hutchinson(2, repeats=8)
    flow = Flow(StandardNormal(3).double(), ContinuousTransform(Linear(MATRIX), 3, trace=trace))
    claim = flow.log_density(normal(1, 3).expand(rows, -1), generator=Generator().manual_seed(0))
    assert claim.kind is Kind.ESTIMATE
    assert claim.monte_carlo_error is not None
    symmetric = MATRIX + MATRIX.T
    known = math.sqrt(0.5 * float(symmetric.square().sum() - symmetric.diagonal().square().sum()) / (2 * trace.repeats))
    stated, spread = float(claim.monte_carlo_error.square().mean().sqrt()), float(claim.value.std())
    assert claim.numerical_error is not None
    assert claim.numerical_error.max() < 1e-6, "the looser solution has the same probes"
    assert abs(stated / known - 1) < 0.1
    assert abs(spread / known - 1) < 0.1
    exact = Flow(flow.base, ContinuousTransform(Linear(MATRIX), 3)).log_density(normal(1, 3)).mean
    assert abs(claim.mean - exact) < 4 * known / math.sqrt(rows)


def test_a_claim_draws_from_its_generator(tmp_path: Path) -> None:
    flow = gaussian_flow(torch.tensor([0.5, 2.0], dtype=torch.float64), trace=Hutchinson(2, repeats=2))
    flow.transform.velocity = Linear(MATRIX[:2, :2])
    x = normal(3, 2)
    before = torch.get_rng_state()
    claims = [flow.log_density(x, generator=Generator().manual_seed(seed)).value for seed in (0, 0, 1)]
    assert torch.get_rng_state().equal(before)
    assert claims[0].equal(claims[1])
    assert not claims[0].equal(claims[2])
    save(continuous_flow(2, (4,), trace=Hutchinson(2, repeats=2)), tmp_path / "flow.pt")
    assert isinstance(loaded := load(tmp_path / "flow.pt"), Flow)
    assert loaded.transform.parts[-1].trace == Hutchinson(2, repeats=2)


def test_noisy_weights_are_refused() -> None:
    flow = gaussian_flow(torch.ones(2, dtype=torch.float64), trace=Hutchinson())
    with pytest.raises(TypeError, match=r"FlowVAE holds a ContinuousTransform that estimates.*Give it an ExactTrace"):
        importance(FlowVAE(flow), normal(3, 2))


def vae_on(prior: Density) -> VAE:
    """A VAE of one latent, for each prior the same."""
    torch.manual_seed(1)
    encoder = ConditionalGaussian(nn.Linear(2, 1), 1, 2, FixedScale(1.0))
    return VAE(prior, encoder, ConditionalGaussian(nn.Linear(1, 2), 2, 1, FixedScale(1.0))).double()


def test_claims_by_weights_have_the_error_of_the_solver() -> None:
    """A prior that moves from a normal density to the same one against that, with the same draws."""
    x, std = normal(3, 2), torch.ones(1, dtype=torch.float64)
    solved, known = (
        importance(vae_on(prior), x, draws=8, generator=Generator().manual_seed(0))
        for prior in (gaussian_flow(std, 1e-1), StandardNormal(1))
    )
    assert solved.kind is Kind.LOWER
    assert solved.method == "importance-weighted bound, 8 draws, solved to 0.1 nats"
    assert known.numerical_error is None
    assert solved.numerical_error is not None
    assert 0 < solved.numerical_error.max() < 1e-1
    assert ((solved.value - known.value).abs() <= solved.numerical_error).all()


@pytest.mark.slow
def test_every_claim_by_weights_has_it_and_beyond_the_tolerance_nothing_is_a_bound() -> None:
    x, model, generator = normal(3, 2), vae_on(network_flow(1, 1e-1)), Generator().manual_seed(0)
    quick = Pilot(2, 1, 2)
    for claim in (
        gap(model, x, draws=2, generator=generator).log_density,
        annealed(model, x, steps=1, chains=2, leapfrog=1, pilot=quick, schedule=LinearSchedule(), generator=generator),
    ):
        assert claim.kind is Kind.LOWER
        assert claim.method.endswith("solved to 0.1 nats")
        assert claim.numerical_error is not None
    hard = importance(vae_on(network_flow(1, 1e-7, scale=0.7)), x, draws=8, generator=generator)
    assert hard.kind is Kind.ESTIMATE
    assert hard.method.endswith("not solved to 1e-07 nats")


def test_one_hard_row_among_many_is_solved_too() -> None:
    """Steps by a mean over rows would be as large as the many take them."""
    x = torch.full((3000, 1), -9.0, dtype=torch.float64)
    x[0] = 3.0
    with torch.no_grad():
        rough, fine = (ContinuousTransform(Rapids(), 1, tolerance=tolerance).forward(x) for tolerance in (1e-4, 1e-9))
    assert (rough[1] - fine[1]).abs().max() < 1e-5


def test_neighbours_matter_within_the_stated_error() -> None:
    flow, x = network_flow(2, 1e-4), 2 * normal(6, 2)
    together = flow.log_density(x)
    for rows in (*x[:2].split(1), *x.split(3)):
        alone = flow.log_density(rows)
        assert alone.numerical_error is not None
        assert together.numerical_error is not None
        where = (x[:, None] == rows).all(-1).any(1)
        allowed = alone.numerical_error + together.numerical_error[where]
        assert ((alone.value - together.value[where]).abs() <= allowed).all()


def test_a_claim_about_a_composition_has_the_error_of_all_its_parts() -> None:
    parts = [network_flow(2, 1e-3, seed).transform for seed in (0, 1)]
    flow = Flow(StandardNormal(2).double(), Chain(parts[0], Inverse(parts[1])))
    tight = [network_flow(2, 1e-8, seed).transform for seed in (0, 1)]
    x = normal(10, 2)
    with torch.no_grad():
        truth = Flow(flow.base, Chain(tight[0], Inverse(tight[1]))).log_prob(x)
    claim, same = flow.log_density(x), FlowVAE(flow).log_density(x)
    assert "solved to 0.002 nats" in claim.method
    assert claim.numerical_error is not None
    assert same.numerical_error is not None
    assert ((claim.value - truth).abs() <= claim.numerical_error).all()
    assert same.numerical_error.equal(claim.numerical_error)


def test_samples_are_where_the_inverse_leads_and_ask_for_no_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = network_flow(2, 1e-6).transform
    flow = Flow(StandardNormal(2).double(), Chain(Inverse(Inverse(transform))))
    z = flow.base.sample(4, generator=Generator().manual_seed(0))
    expected = flow.transform.inverse(z)[0]
    monkeypatch.setattr(transform, "trace", None)
    x = flow.sample(4, generator=Generator().manual_seed(0))
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


def test_a_row_that_is_nan_is_no_trouble_of_the_others() -> None:
    flow, x = network_flow(2, 1e-6), normal(3, 2)
    x[1, 0] = math.nan
    value = flow.log_prob(x)
    assert value.isfinite().tolist() == [True, False, True]


class Rapids(nn.Module):
    """Waves around 3, and rest elsewhere."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 3 * torch.exp(-(x - 3).square()) * torch.sin(10 * (x + t))


class Explosive(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x.square().exp()


def test_what_cannot_be_solved_is_an_error() -> None:
    with pytest.raises(UnsolvedODE, match="could not be solved from t = 0 to 1"):
        ContinuousTransform(Explosive(), 1).forward(torch.full((2, 1), 3.0, dtype=torch.float64))


def test_a_velocity_of_another_shape_is_an_error() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x.sum(1)

    with pytest.raises(ValueError, match=r"ContinuousTransform expects its network to return \[n, 2\].*got \[3\]"):
        ContinuousTransform(Sum(), 2).forward(torch.zeros(3, 2))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="takes a trace"):
        ContinuousTransform(nn.Identity(), 2, trace=1)  # type: ignore[arg-type]
    for tolerance in (0.0, 1.0, math.nan, "small"):
        with pytest.raises(ValueError, match="tolerance must be a number of nats"):
            ContinuousTransform(nn.Identity(), 2, tolerance=tolerance)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 repeats or more"):
        Hutchinson(repeats=1)


def test_without_the_solver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ModuleNotFoundError, match="pip install torchdiffeq"):
        continuous_flow(2).log_prob(torch.zeros(1, 2))
