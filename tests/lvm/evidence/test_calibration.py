"""Stated errors of importance sampling against what repetition shows, and the memory of many draws."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density import GaussianFamily, Kind
from density.families.scale import Scale, TriangularScale
from lvm import PPCA, VAE, LinearVAE
from lvm.evidence import gap, importance
from tests.equivalence.examples import randomise


class Narrowed(GaussianFamily):
    """PPCA's posterior with all standard deviations times s: weights of tail index 1 − s²."""

    def __init__(self, ppca: PPCA, s: float) -> None:
        super().__init__()
        self.ppca, self.s = ppca, s
        self.features, self.context_features = ppca.latent_features, ppca.features

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        mean, scale = self.ppca.encoder.at(context)
        return mean, TriangularScale(self.s * scale.dense())


def narrowed(s: float, generator: Generator) -> tuple[PPCA, VAE, Tensor]:
    ppca = PPCA(6, 1).double()
    randomise(ppca, generator, 0.7)
    return ppca, VAE(ppca.prior, Narrowed(ppca, s), ppca.decoder), ppca.sample(60, generator=generator)


@pytest.mark.parametrize("s", [0.85, 0.9, 0.95, 1.2])
def test_stated_error_is_the_spread_over_repeats(s: float, generator: Generator) -> None:
    """Tail index 1 − s² ≤ 0.28: the ratio of root-mean-square stated error and spread is 1 within 10 %."""
    _, model, x = narrowed(s, generator)
    claims = [importance(model, x, draws=400, generator=generator) for _ in range(200)]
    values = torch.stack([claim.value for claim in claims])
    stated = torch.stack([claim.monte_carlo_error for claim in claims if claim.monte_carlo_error is not None])
    ratio = stated.square().mean(0).sqrt() / values.std(0)
    assert 0.9 < float(ratio.mean()) < 1.1


@pytest.mark.parametrize("s", [0.7, 0.6, 0.55])
def test_calibration_beyond_is_reported(
    s: float, generator: Generator, record_measurement: Callable[[str, float, float], None]
) -> None:
    """Tail index 0.51, 0.64, 0.70: the variance is infinite from ½ on, and no promise is made; the ratio is printed."""
    _, model, x = narrowed(s, generator)
    claims = [importance(model, x, draws=400, generator=generator) for _ in range(200)]
    spread = torch.stack([claim.value for claim in claims]).std(0)
    stated = torch.stack([claim.monte_carlo_error for claim in claims if claim.monte_carlo_error is not None])
    ratio = float((stated.square().mean(0).sqrt() / spread).mean())
    record_measurement(
        f"importance: |stated error / spread − 1| at tail index {1 - s**2:.2f}", abs(ratio - 1), math.inf
    )


@pytest.mark.parametrize("kind", ["PPCA", "linear VAE"])
def test_importance_within_four_of_its_own_errors(kind: str, generator: Generator) -> None:
    """On at least 99 % of the points with k̂ < ½, as the issue of any standard error demands."""
    if kind == "PPCA":
        exact, model, _ = narrowed(0.9, generator)
    else:
        exact = model = LinearVAE(6, 2).double()
        randomise(model, generator, 0.4)
        model.set_optimal_encoder()
    x = exact.sample(1_000, generator=generator).detach()
    claim = importance(model, x, draws=4_000, generator=generator)
    assert claim.weights is not None
    assert claim.monte_carlo_error is not None
    good = claim.weights.pareto_k < 0.5
    assert good.double().mean() > 0.5
    z_score = ((claim.value - exact.log_prob(x).detach()) / claim.monte_carlo_error)[good]
    assert (z_score.abs() < 4).double().mean() >= 0.99


def test_unreliable_points_are_flagged_and_counted(generator: Generator) -> None:
    _, model, x = narrowed(0.3, generator)  # tail index 0.91
    claim = importance(model, x, draws=4_000, generator=generator)
    assert claim.weights is not None
    assert claim.unreliable > 30
    assert "of them unreliable" in repr(claim)
    assert claim.mean == pytest.approx(float(claim.value.mean()))  # counted, not left out
    report = gap(model, x, draws=1_000, generator=generator)
    assert f"by their weights, at {report.log_density.unreliable} of {len(x)} points" in repr(report)
    _, good, x = narrowed(0.95, generator)
    assert importance(good, x, draws=4_000, generator=generator).unreliable == 0
    assert "by their weights" not in repr(gap(good, x, draws=4_000, generator=generator))


def test_bias_estimate(generator: Generator) -> None:
    """E log p̂ − log p against its second-order estimate, −½ · variance; a wide q, so that the bias can be seen."""
    ppca, model, x = narrowed(2.0, generator)
    claims = [importance(model, x, draws=30, generator=generator) for _ in range(1_000)]
    log_p = ppca.log_prob(x).detach()
    bias = torch.stack([claim.value for claim in claims]).mean(0) - log_p
    stated = torch.stack([claim.weights.bias for claim in claims if claim.weights is not None]).mean(0)
    # −½ Var(w)/K with Var(w) = s²/√(2s² − 1) − 1: −0.0085. The mean of 60,000 values has a standard error of 0.0005.
    theory = -0.5 * (4 / math.sqrt(7) - 1) / 30
    assert float(bias.mean()) == pytest.approx(theory, rel=0.25)
    assert float(stated.mean()) == pytest.approx(theory, rel=0.1)


def test_smoothed_value_is_an_estimate(generator: Generator) -> None:
    ppca, model, x = narrowed(0.6, generator)
    log_p = ppca.log_prob(x).detach()
    raw = importance(model, x, draws=2_000, generator=generator)
    claim = importance(model, x, draws=2_000, smooth=True, generator=generator)
    assert raw.kind is Kind.LOWER
    assert claim.kind is Kind.ESTIMATE
    assert "Pareto-smoothed" in claim.method
    assert (claim.value - log_p).abs().median() < 0.1


@pytest.mark.slow
def test_a_million_draws_fit_into_two_gigabytes(generator: Generator) -> None:
    ppca, model, x = narrowed(0.9, generator)
    claim = importance(model, x[:8], draws=10**6, generator=generator)
    assert (claim.value - ppca.log_prob(x[:8]).detach()).abs().max() < 0.01
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 2 * 2**30
    assert math.isfinite(claim.mean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("std", [1.0, 0.1, 0.01, 1e-3])
def test_exact_posteriors_are_reliable(std: float, dtype: torch.dtype, generator: Generator) -> None:
    """Their weights differ by rounding, more so where x − Wz cancels and σ is small: no tail is made of that."""
    for features, latents, shift in ((3, 1, 0.0), (8, 3, 30.0), (40, 10, 1e3)):
        model = PPCA(features, latents).double()
        randomise(model, generator, 1.0)
        with torch.no_grad():
            model.decoder.log_std.fill_(math.log(std))
            model.decoder.mean.fill_(shift)
        x = model.sample(45, generator=generator).detach().to(dtype)
        claim = importance(model.to(dtype), x, draws=1_000, generator=generator)
        assert claim.weights is not None
        assert claim.weights.pareto_k.max() < 0.5
        assert claim.unreliable == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_linear_vae_with_orthogonal_columns_is_reliable(dtype: torch.dtype, generator: Generator) -> None:
    model = LinearVAE(6, 2).double()
    randomise(model, generator, 0.7)
    with torch.no_grad():
        model.decoder.weight.copy_(torch.linalg.qr(model.decoder.weight).Q * torch.tensor([2.0, 0.5]))
    model.set_optimal_encoder()
    x = model.sample(200, generator=generator).detach().to(dtype)
    report = gap(model.to(dtype), x, draws=1_000, log_density=None, generator=generator)
    assert report.difference.value.abs().max() < 1e-4
    claim = importance(model, x, draws=1_000, generator=generator)
    assert claim.weights is not None
    assert claim.weights.pareto_k.isneginf().all()


def test_one_draw_is_not_reliable(generator: Generator) -> None:
    ppca, _, x = narrowed(0.9, generator)
    claim = importance(ppca, x, draws=1, generator=generator)
    assert claim.monte_carlo_error is not None
    assert claim.monte_carlo_error.isnan().all()
    assert claim.unreliable == len(x)
    assert importance(ppca, x, draws=2, generator=generator).unreliable == 0  # the exact posterior


def test_a_draw_that_dominates_is_not_reliable(generator: Generator) -> None:
    """Light tails by k̂, but one draw in some of the averages has more than 1/K + 1/50 of the weight."""
    _, model, x = narrowed(0.6, generator)
    claim = importance(model, x, draws=400, generator=generator)
    weights = claim.weights
    assert weights is not None
    assert weights.dominance is not None
    light = weights.pareto_k <= weights.threshold
    assert weights.reliable.equal(light & (weights.dominance <= 0.02))
    assert 0 < int((light & ~weights.reliable).sum()) < int(light.sum())
    largest = weights.dominance + 1 / 400
    size = weights.effective_sample_size
    assert (largest >= 1 / size - 1e-12).all()  # Σ w̃² ≤ max w̃
    assert (largest.square() <= 1 / size + 1e-12).all()  # (max w̃)² ≤ Σ w̃²
