"""Quadrature against closed forms and against scipy's adaptive cubature, with modes that an encoder would miss."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import cubature
from torch import Generator, Tensor, nn

from density import (
    Bernoulli,
    ConditionalBernoulli,
    ConditionalGaussian,
    Density,
    FixedScale,
    Kind,
    NetworkScale,
    StandardNormal,
)
from density.numerical import LEAST, LOOSER, Numerical
from flows import linear_flow
from lvm import PPCA, VAE, GaussianMixture, LinearVAE
from lvm.evidence.quadrature import quadrature
from lvm.evidence.quadrature.integrand import Integrand
from tests.equivalence.examples import randomise

Record = Callable[[str, float, float], None]


def vae_of(decoder: nn.Module, latents: int, features: int, std: float) -> VAE:
    encoder = ConditionalGaussian(nn.Linear(features, 2 * latents), latents, features, NetworkScale())
    return VAE(
        StandardNormal(latents), encoder, ConditionalGaussian(decoder, features, latents, FixedScale(std))
    ).double()


def random_decoder(
    latents: int, features: int, activation: nn.Module, generator: Generator, spread: float
) -> nn.Module:
    network = nn.Sequential(nn.Linear(latents, 12), activation, nn.Linear(12, features)).double()
    randomise(network, generator, spread)
    return network


class Fold(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.square()


def by_scipy(model: VAE, x: Tensor, reach: float = 9.0) -> Tensor:
    """log p(x) by scipy's cubature, scaled by the largest value of a coarse grid so that tolerances are relative."""
    latents = model.prior.features
    found = []
    for row in x:
        axes = [torch.linspace(-reach, reach, {1: 4001, 2: 401, 3: 61}[latents], dtype=torch.float64)] * latents
        coarse = model.log_joint(row, torch.cartesian_prod(*axes).reshape(-1, latents)).max().detach()

        def integrand(z: np.ndarray, row: Tensor = row, top: Tensor = coarse) -> np.ndarray:
            with torch.no_grad():
                return (model.log_joint(row, torch.as_tensor(z)) - top).exp().numpy()

        ends = np.full(latents, reach)
        result = cubature(integrand, -ends, ends, rtol=1e-10, atol=1e-14, max_subdivisions=200_000)
        found.append(coarse + math.log(float(result.estimate)))
    return torch.stack(found)


def by_trapezoids(model: VAE, x: Tensor, reach: float = 6.0, step: float = 0.005) -> Tensor:
    """log p(x) by the trapezoid rule, which converges faster than any power of the step for smooth peaks."""
    axis = torch.arange(-reach, reach, step, dtype=torch.float64)
    found = []
    with torch.no_grad():
        for row in x:
            if model.prior.features == 1:
                strips = [model.log_joint(row, axis.unsqueeze(-1))]
            else:
                strips = [
                    model.log_joint(row, torch.cartesian_prod(part, axis)).logsumexp(0, keepdim=True)
                    for part in axis.split(200)
                ]
            found.append(torch.cat(strips).logsumexp(0) + model.prior.features * math.log(step))
    return torch.stack(found)


@pytest.mark.parametrize("latents", [1, 2, 3])
def test_linear_models(latents: int, generator: Generator, record_measurement: Record) -> None:
    for model in (PPCA(5, latents).double(), LinearVAE(5, latents).double()):
        randomise(model, generator, 0.7)
        x = 2 * torch.randn({1: 30, 2: 30, 3: 6}[latents], 5, generator=generator, dtype=torch.float64)
        claim = quadrature(model, x, generator=generator)
        assert claim.kind is Kind.EXACT
        error = float((claim.value - model.log_prob(x).detach()).abs().max())
        record_measurement("quadrature: PPCA and linear VAE, nats", error, 1e-8)


@pytest.mark.parametrize("std", [0.3, 0.05])
@pytest.mark.parametrize("latents", [1, 2])
def test_smooth_decoders(latents: int, std: float, generator: Generator, record_measurement: Record) -> None:
    model = vae_of(random_decoder(latents, 3, nn.Tanh(), generator, 1.0), latents, 3, std)
    x = model.sample(3, generator=generator).detach()
    claim = quadrature(model, x, generator=generator)
    assert claim.kind is Kind.EXACT
    # scipy's first box sees no peak of width 0.05 in [−9, 9]; a fine trapezoid rule does, and is as exact.
    expected = by_scipy(model, x) if std > 0.1 else by_trapezoids(model, x[: 3 - latents])
    record_measurement(
        "quadrature: smooth decoders, nats", float((claim.value[: len(expected)] - expected).abs().max()), 1e-7
    )


@pytest.mark.slow
def test_smooth_decoders_with_three_latents(generator: Generator, record_measurement: Record) -> None:
    model = vae_of(random_decoder(3, 4, nn.Tanh(), generator, 0.7), 3, 4, 0.5)
    x = model.sample(1, generator=generator).detach()
    claim = quadrature(model, x, generator=generator)
    error = float((claim.value - by_scipy(model, x, reach=6.0)).abs().max())
    record_measurement("quadrature: smooth decoder, 3 latents, nats", error, 1e-7)


@pytest.mark.parametrize("latents", [1, 2])
def test_every_mode_is_found(latents: int, generator: Generator, record_measurement: Record) -> None:
    """z ↦ z²: 2ᵈ modes of equal mass, however narrow; an encoder that looks at one of them is no help and no harm."""
    for std in (0.3, 0.01, 1e-3):
        model = vae_of(Fold(), latents, latents, std)
        with torch.no_grad():
            model.encoder.network.weight.zero_()
            model.encoder.network.bias.copy_(torch.cat([torch.ones(latents), torch.full((latents,), -3.0)]))
        x = torch.tensor([[1.0] * latents, [3.0] * latents], dtype=torch.float64)
        claim = quadrature(model, x, generator=generator)
        one = vae_of(Fold(), 1, 1, std)
        # Features and latents are independent pairs: the sum of one-dimensional integrals, by a fine trapezoid rule.
        grid = torch.linspace(-9, 9, 2_000_001, dtype=torch.float64).unsqueeze(-1)
        log_joint = torch.stack([one.log_joint(row[:1], grid) for row in x], 1).detach()
        expected = latents * (log_joint.logsumexp(0) + math.log(18 / 2_000_000))
        record_measurement("quadrature: folded decoders, nats", float((claim.value - expected).abs().max()), 1e-7)


def test_kinks_are_covered_by_the_error_estimate(generator: Generator) -> None:
    model = vae_of(random_decoder(2, 3, nn.ReLU(), generator, 1.0), 2, 3, 0.2)
    x = model.sample(4, generator=generator).detach()
    claim = quadrature(model, x, tolerance=1e-4, generator=generator)
    fine = quadrature(model, x, tolerance=1e-7, max_evaluations=20_000_000, generator=generator)
    assert claim.numerical_error is not None
    assert fine.numerical_error is not None
    assert ((claim.value - fine.value).abs() <= claim.numerical_error + fine.numerical_error).all()


def test_kinks_are_exact_to_1e_3_and_smooth_points_to_1e_8(generator: Generator) -> None:
    """Without a tolerance, digits that would take ten times as long each are left; with one, it is what counts."""
    model = vae_of(random_decoder(2, 3, nn.ReLU(), generator, 1.0), 2, 3, 0.2)
    x = model.sample(3, generator=generator).detach()
    claim = quadrature(model, x, generator=generator)
    assert claim.kind is Kind.EXACT
    assert claim.method == "2-dimensional adaptive quadrature to 0.001 nats, but for lone spikes between its nodes"
    fine = quadrature(model, x, tolerance=1e-8, generator=generator)
    assert fine.kind is Kind.ESTIMATE
    assert claim.numerical_error is not None
    assert fine.numerical_error is not None
    assert (claim.numerical_error <= 1e-3).all()
    assert (fine.numerical_error < claim.numerical_error).all()
    assert ((claim.value - fine.value).abs() <= claim.numerical_error + fine.numerical_error).all()
    smooth = vae_of(random_decoder(2, 3, nn.Tanh(), generator, 1.0), 2, 3, 0.2)
    assert "2-dimensional adaptive quadrature to 1e-08 nats" in quadrature(smooth, x, generator=generator).method


def test_discrete_latents_are_summed(generator: Generator) -> None:
    model = GaussianMixture(3, 4).double()
    randomise(model, generator, 0.7)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    claim = quadrature(model, x)
    assert claim.kind is Kind.EXACT
    torch.testing.assert_close(claim.value, model.log_prob(x).detach(), rtol=1e-13, atol=1e-13)


def test_an_unaffordable_tolerance_is_an_estimate(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each point is evaluated no more often than it may be, but for what lattices have beside their volume."""
    model = vae_of(random_decoder(2, 3, nn.ReLU(), generator, 2.0), 2, 3, 0.05)
    x = model.sample(3, generator=generator).detach()
    places, at = [], Integrand.at

    def noted(self: Integrand, point: Tensor, z: Tensor) -> Tensor:
        places.append(point.bincount(minlength=3))
        return at(self, point, z)

    monkeypatch.setattr(Integrand, "at", noted)
    for most in (12_000, 20_000, 100_000):
        places.clear()
        claim = quadrature(model, x, tolerance=1e-13, max_evaluations=most, generator=generator)
        assert claim.kind is Kind.ESTIMATE
        assert "missed at" in claim.method
        evaluations = torch.stack(places).sum(0) + 36 * 15**2
        assert (evaluations <= 1.02 * most).all()
        assert (evaluations > 0.7 * most).any()


def test_float32_models_are_integrated_in_float64(generator: Generator) -> None:
    model = VAE.gaussian(4, 2, hidden=(8,))
    x = torch.randn(5, 4, generator=generator)
    single = quadrature(model, x, generator=generator)
    double = quadrature(model.double(), x.double(), generator=generator)
    torch.testing.assert_close(single.value, double.value, rtol=0, atol=2e-8)
    assert single.kind is Kind.EXACT


OFF = 1e-5


class Solver(Numerical):
    def __init__(self, tolerance: float) -> None:
        super().__init__()
        self.tolerance = tolerance


class SolvedNormal(StandardNormal):
    """Off everywhere, as by a solver, and by more where that is looser."""

    def __init__(self, tolerance: float) -> None:
        super().__init__(1)
        self.solver = Solver(tolerance)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return super()._log_prob(x, context) + OFF * self.solver.looseness


class SolvedBits(Bernoulli):
    def __init__(self, tolerance: float) -> None:
        super().__init__(1)
        self.solver = Solver(tolerance)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return super()._log_prob(x, context) + OFF * self.solver.looseness


@pytest.mark.parametrize(("exact", "solved"), [(StandardNormal, SolvedNormal), (Bernoulli, SolvedBits)])
def test_the_error_of_a_solver_is_added(
    exact: Callable[[int], Density], solved: Callable[[float], Density], generator: Generator
) -> None:
    """To an integral's own, and to that of a sum, which has none."""
    normal = vae_of(random_decoder(1, 3, nn.Tanh(), generator, 1.0), 1, 3, 0.3)
    bits = ConditionalBernoulli(nn.Linear(3, 1), 1, 3)
    encoder = normal.encoder if exact is StandardNormal else bits
    x = normal.sample(4, generator=generator).detach()
    without = quadrature(VAE(exact(1), encoder, normal.decoder).double(), x, tolerance=1e-3, generator=generator)
    for tolerance, kind, words in ((1e-2, Kind.EXACT, "solved"), (1e-6, Kind.ESTIMATE, "not solved")):
        claim = quadrature(
            VAE(solved(tolerance), encoder, normal.decoder).double(), x, tolerance=1e-3, generator=generator
        )
        assert claim.kind is kind
        assert claim.method == f"{without.method}, {words} to {tolerance:.1g} nats"
        torch.testing.assert_close(claim.value, without.value + OFF, rtol=0, atol=1e-9)
        own = torch.zeros_like(x[:, 0]) if without.numerical_error is None else without.numerical_error
        assert without.numerical_error is None or own.max() > 1e-7
        expected = own + (LOOSER - 1) * OFF + LEAST * tolerance
        assert claim.numerical_error is not None
        torch.testing.assert_close(claim.numerical_error, expected, rtol=0, atol=1e-9)


def test_the_encoder_s_solver_is_none_of_its(generator: Generator) -> None:
    model = vae_of(random_decoder(1, 3, nn.Tanh(), generator, 1.0), 1, 3, 0.3)
    x = model.sample(2, generator=generator).detach()
    model.encoder.solver = Solver(1e-2)
    assert "solved" not in quadrature(model, x, generator=generator).method


def test_bad_input(generator: Generator) -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="at most 3"):
        quadrature(VAE.gaussian(3, 4), x)
    with pytest.raises(TypeError, match="log_joint"):
        quadrature(linear_flow(3), x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tolerance"):
        quadrature(VAE.gaussian(3, 1), x, tolerance=0.0)
    with pytest.raises(ValueError, match="is nan"):
        quadrature(VAE.gaussian(3, 1), torch.full((2, 3), math.nan))
    with pytest.raises(ValueError, match="max_evaluations"):
        quadrature(VAE.gaussian(3, 1), x, max_evaluations=0)
