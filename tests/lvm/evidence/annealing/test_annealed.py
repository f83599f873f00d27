"""Annealed importance sampling against linear models, quadrature, and itself run backwards."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density import Claim, Kind, LogDensity, PerFeatureScale, Training
from density.data import blocks
from density.importance.bound import importance
from density.weight_diagnostics import WeightDiagnostics
from lvm.evidence.annealing.bounds import (
    Adaptive,
    FromEncoder,
    FromPrior,
    Linear,
    Pilot,
    Sandwich,
    Sigmoid,
    annealed,
    sandwich,
)
from lvm.evidence.annealing.chains import Start
from lvm.evidence.annealing.schedules import Schedule
from lvm.mixture.model import GaussianMixture
from lvm.ppca.model import PPCA
from lvm.vae.linear import LinearVAE
from lvm.vae.model import VAE
from tests.equivalence.examples import randomise

Record = Callable[[str, float, float], None]


def linear_vae(generator: Generator, features: int = 6, latents: int = 3) -> LinearVAE:
    """Signal to noise of about 3, correlated posteriors, and the best diagonal encoder: loose by ~ 0.3 nats."""
    model = LinearVAE(features, latents).double()
    randomise(model, generator, 0.5)
    with torch.no_grad():
        model.decoder.log_std.fill_(-1.0)
    model.set_optimal_encoder()
    return model


QUICK = Pilot(chains=4, transitions=2, temperatures=12)


def nonlinear_vae(generator: Generator, features: int = 3) -> VAE:
    """Skewed posteriors, and an encoder that is wide and slightly wrong, so that even its plain weights are light."""
    scale = PerFeatureScale(features)
    model = VAE.gaussian(features, 1, hidden=(16,), scale=scale, standardise=False).double()
    randomise(model, generator, 0.4)
    with torch.no_grad():
        last = model.encoder.network[-1]
        last.weight.mul_(0.1)
        last.bias.copy_(torch.tensor([0.2, 0.0]))
    return model


def quadrature(model: VAE, x: Tensor) -> Tensor:
    """log p(x) of a model with one latent, by the trapezoidal rule on ± 12 standard deviations of the prior."""
    z = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    with torch.no_grad():
        return model.log_joint(x.unsqueeze(1), z.unsqueeze(-1)).logsumexp(1) + math.log(24 / 24_000)


def error_of(claim: Claim) -> Tensor:
    assert claim.monte_carlo_error is not None
    return claim.monte_carlo_error


def weights_of(claim: LogDensity) -> WeightDiagnostics:
    assert claim.weights is not None
    return claim.weights


def within(claim_value: Tensor, error: Tensor, exact: Tensor, sigmas: float = 4) -> float:
    return ((claim_value - exact).abs() <= sigmas * error).double().mean().item()


@pytest.mark.parametrize("schedule", [Linear(), Sigmoid(rad=4), Adaptive()])
@pytest.mark.parametrize("start", [FromEncoder(), FromPrior()])
def test_linear_vae_within_its_own_errors(schedule: Schedule, start: Start, generator: Generator) -> None:
    model = linear_vae(generator)
    x = model.sample(200, generator=generator).detach()
    exact = model.log_prob(x).detach()
    claim = annealed(model, x, steps=150, start=start, schedule=schedule, generator=generator)
    assert claim.kind is Kind.LOWER
    assert claim.value.dtype == torch.float64
    good = weights_of(claim).reliable
    assert good.double().mean() > (0.98 if isinstance(start, FromEncoder) else 0.4)
    # All points: to choose those whose weights look light would choose those that missed the heavy ones.
    assert within(claim.value, error_of(claim), exact) >= 0.99
    assert error_of(claim).mean() < 0.25
    assert claim.unreliable == int((weights_of(claim).effective_sample_size < 8).sum())
    assert LogDensity.concatenate([claim, claim]).unreliable == 2 * claim.unreliable


def test_ppca_from_the_prior(generator: Generator) -> None:
    model = PPCA(6, 3).double()
    randomise(model, generator, 0.5)
    x = model.sample(200, generator=generator).detach()
    exact = model.log_prob(x).detach()
    claim = annealed(model, x, steps=300, start=FromPrior(), generator=generator)
    good = weights_of(claim).reliable
    assert good.double().mean() > 0.6
    assert within(claim.value, error_of(claim), exact) >= 0.99
    assert (claim.value - exact).abs().mean() < 0.15


def test_at_the_posterior_every_weight_is_log_p(generator: Generator, record_measurement: Record) -> None:
    model = PPCA(6, 3).double()
    randomise(model, generator, 0.5)
    x = 3 * torch.randn(30, 6, generator=generator, dtype=torch.float64)  # not the model's own data
    claim = annealed(model, x, steps=10, generator=generator)
    exact = model.log_prob(x).detach()
    record_measurement("annealed from the posterior: log p", float((claim.value - exact).abs().max()), 1e-10)
    assert error_of(claim).max() < 1e-7
    assert claim.unreliable == 0
    for dtype in (torch.float64, torch.float32):
        claim = annealed(model.to(dtype), x.to(dtype), steps=4, chains=32, generator=generator)
        assert weights_of(claim).pareto_k.isneginf().all()  # although the weights are summed in float64


@pytest.mark.parametrize("start", [FromEncoder(), FromPrior()])
@pytest.mark.parametrize("steps", [1, 4])
def test_weights_are_unbiased(start: Start, steps: int, generator: Generator) -> None:
    """E w = p(x), with so few steps that the chains lag far behind the path: exactness does not rest on mixing."""
    model = nonlinear_vae(generator)
    x = model.sample(4, generator=generator).detach()
    exact = quadrature(model, x)
    claim = annealed(
        model, x, steps=steps, chains=15_000, start=start, schedule=Linear(), pilot=QUICK, generator=generator
    )
    assert weights_of(claim).effective_sample_size.min() > 500  # else the error below cannot be trusted
    ratio, error = (claim.value - exact).exp(), error_of(claim)
    assert ((ratio - 1).abs() < 4.5 * error).all()
    assert error.max() < 0.05


def test_adapting_does_not_bias(generator: Generator) -> None:
    """Every repeat has a pilot of two chains, and few chains of its own; the mean of w over repeats is still p(x)."""
    model = nonlinear_vae(generator)
    x = model.sample(1, generator=generator).detach()
    pilot = Pilot(chains=2, transitions=1, temperatures=6)
    claim = annealed(model, x.expand(10_000, -1), steps=3, chains=2, leapfrog=2, pilot=pilot, generator=generator)
    ratio = (claim.value - quadrature(model, x)).exp()
    assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(10_000)
    assert ratio.std() < 3


def test_a_bound_in_both_directions(generator: Generator) -> None:
    """exp of (lower − log p), and of (log p − upper), have mean 1; so overshoot by b is rarer than e⁻ᵇ (Markov)."""
    model = linear_vae(generator)
    result = sandwich(model, 2000, steps=4, chains=2, start=FromPrior(), pilot=QUICK, generator=generator)
    exact = model.log_prob(result.x).detach()
    over = torch.stack([result.lower.value - exact, exact - result.upper.value])
    for overshoot in over:
        for b in (0.0, 1.0, 2.0, 3.0):
            allowed = math.exp(-b)
            assert (overshoot > b).double().mean() <= allowed + 4 * math.sqrt(allowed * (1 - allowed) / 2000)
    result = sandwich(model, 2000, steps=20, chains=4, pilot=QUICK, generator=generator)
    exact = model.log_prob(result.x).detach()
    for overshoot in (result.lower.value - exact, exact - result.upper.value):
        ratio = overshoot.exp()
        assert abs(ratio.mean() - 1) < 4.5 * ratio.std() / math.sqrt(2000)
        assert 1e-3 < ratio.std() < 1


def test_more_steps_tighten_the_sandwich(generator: Generator) -> None:
    model = linear_vae(generator)
    results = [sandwich(model, 100, steps=t, chains=4, start=FromPrior(), generator=generator) for t in (3, 100)]
    few, many = (result.mean_width for result in results)
    assert few > 1.0
    assert many < 0.2 * few
    for result in results:
        exact = model.log_prob(result.x).detach()
        assert (result.lower.value - exact).mean() < 4 * (result.lower.value - exact).std() / 10
        assert (exact - result.upper.value).mean() < 4 * (exact - result.upper.value).std() / 10


def test_the_certificate(generator: Generator) -> None:
    result = sandwich(linear_vae(generator), 20, steps=10, generator=generator)
    assert isinstance(result, Sandwich)
    assert (result.lower.kind, result.upper.kind, result.width.kind) == (Kind.LOWER, Kind.UPPER, Kind.UPPER)
    torch.testing.assert_close(result.width.value, result.upper.value - result.lower.value)
    assert result.standard_error == pytest.approx(float(result.width.value.std()) / math.sqrt(20))
    text = repr(result)
    assert "20 points simulated from the model" in text
    assert f"{result.mean_width:.4f}" in text
    assert "on other data there is no upper bound" in text
    assert weights_of(result.upper).bias.min() >= 0  # upwards, where that of the lower bound is downwards
    assert weights_of(result.lower).bias.max() <= 0


def test_stated_errors_are_calibrated(generator: Generator, record_measurement: Record) -> None:
    """Spread over 200 repeats of 50 points against the stated error; 32 chains, so the ratio itself is good to 3 %."""
    model = linear_vae(generator, 4, 2)
    x = model.sample(50, generator=generator).detach()
    claim = annealed(model, x.repeat(200, 1), steps=8, chains=32, leapfrog=2, pilot=QUICK, generator=generator)
    stated = error_of(claim).view(200, 50).square().mean(0).sqrt()
    spread = claim.value.view(200, 50).std(0)
    assert spread.min() > 0.005
    record_measurement("annealed: stated error / spread − 1", float(((stated / spread).mean() - 1).abs()), 0.1)


def test_a_badly_mismatched_encoder(generator: Generator) -> None:
    """q shifted by eight of its deviations and three times too narrow: importance fails, annealing does not."""
    model = linear_vae(generator)
    with torch.no_grad():
        model.encoder.bias.add_(8 * model.encoder.log_std.exp())
        model.encoder.log_std.sub_(math.log(3))
    x = model.sample(100, generator=generator).detach()
    exact = model.log_prob(x).detach()
    weighted = importance(model, x, draws=16 * 200 * 3, generator=generator)
    claim = annealed(model, x, steps=200, generator=generator)
    assert (exact - weighted.value).mean() > 3
    assert (claim.value - exact).abs().mean() < 0.3
    assert (claim.value - exact).max() < math.log(100) + 5  # Markov, over all points
    lost = annealed(model, x, steps=2, generator=generator)
    assert lost.unreliable > 80  # and with too few steps the claim says so
    assert (lost.value < exact + 1).all()


def test_float32_agrees_with_float64(generator: Generator) -> None:
    model = linear_vae(generator)
    x = model.sample(50, generator=generator).detach()
    exact = model.log_prob(x).detach()
    claim = annealed(model.float(), x.float(), steps=100, generator=generator)
    assert claim.value.dtype == torch.float64
    assert within(claim.value, error_of(claim) + 1e-4, exact) >= 0.98  # 1 of 50


def test_blocks_do_not_matter(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_vae(generator)
    x = model.sample(23, generator=generator).detach()
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 5 * 16)
    result = sandwich(model, 23, steps=60, generator=generator)
    claim = annealed(model, x, steps=60, generator=generator)
    for lower, at in ((claim, x), (result.lower, result.x)):
        assert within(lower.value, error_of(lower), model.log_prob(at).detach(), 5) == 1
    assert (result.upper.value - model.log_prob(result.x)).abs().max() < 0.5
    methods = f"{claim.method} {result.lower.method} {result.upper.method}"
    rates = [int(rate) for rate in re.findall(r"(\d+)% accepted", methods)]
    assert [50 < rate <= 100 for rate in rates] == [True] * 3, "a mean over blocks, and not their sum"


def test_one_call_for_all_points_and_chains(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_vae(generator)
    x = model.sample(9, generator=generator).detach()
    shapes: list[tuple[int, ...]] = []
    log_joint = LinearVAE.log_joint

    def spy(self: LinearVAE, x: Tensor, z: Tensor) -> Tensor:
        shapes.append((*x.shape, *z.shape))
        return log_joint(self, x, z)

    monkeypatch.setattr(LinearVAE, "log_joint", spy)
    annealed(model, x, steps=5, chains=7, leapfrog=2, pilot=Pilot(chains=3), generator=generator)
    assert set(shapes) == {(9, 6, 3, 9, 3), (9, 6, 7, 9, 3)}  # the pilot's three chains and the seven, never fewer
    assert shapes.count((9, 6, 7, 9, 3)) == 1 + 4 * 2  # the start, and two gradients in each of four transitions


def test_leaves_everything_as_it_was(generator: Generator) -> None:
    model = linear_vae(generator)
    x = model.sample(5, generator=generator).detach()
    kept, state = x.clone(), torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    claim = annealed(model, x, steps=3, generator=Generator().manual_seed(1))
    again = annealed(model, x, steps=3, generator=Generator().manual_seed(1))
    result = sandwich(model, 4, steps=3, generator=Generator().manual_seed(1))
    assert torch.equal(claim.value, again.value)
    assert torch.equal(x, kept)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(tensor.requires_grad for tensor in (claim.value, result.upper.value, result.x))


class Broken(LinearVAE):
    """log p(x, z) is not a number, or infinite, at the fourth point of its data."""

    value = math.nan

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        bad = (x == 7).all(-1)
        return torch.where(bad, torch.tensor(self.value, dtype=z.dtype), super().log_joint(x, z))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_joint_is_located(value: float, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Broken(6, 3).double()
    model.value = value
    x = torch.zeros(6, 6, dtype=torch.float64)
    x[3] = 7
    for rows in (2**16, 2 * 16):  # the point's number does not depend on the blocks
        monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
        with pytest.raises(ValueError, match=rf"log p\(x, z\) is {value} at point 3, chain 0"):
            annealed(model, x, steps=3, generator=generator)


def test_a_zero_joint_is_a_zero_weight(generator: Generator) -> None:
    model = Broken(6, 3).double()
    model.value = -math.inf
    x = torch.zeros(4, 6, dtype=torch.float64)
    x[3] = 7
    claim = annealed(model, x, steps=3, generator=generator)
    assert claim.value[3] == -math.inf
    assert claim.value[:3].isfinite().all()


def test_models_that_cannot_be_annealed(generator: Generator) -> None:
    x = torch.zeros(4, 3, dtype=torch.float64)
    mixture = GaussianMixture(3, 2).double()
    for start in (FromEncoder(), FromPrior()):
        with pytest.raises(TypeError, match="continuous latent; that of GaussianMixture is discrete"):
            annealed(mixture, x, start=start, generator=generator)
    with pytest.raises(TypeError, match="continuous latent"):
        sandwich(mixture, 4, generator=generator)
    with pytest.raises(TypeError, match=r"needs a model with log_joint\(x, z\), such as a VAE; Linear has none"):
        annealed(torch.nn.Linear(3, 3), x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be a positive int; got 0"),
        ({"leapfrog": 0}, "leapfrog must be a positive int; got 0"),
        ({"chains": 0}, "chains must be a positive int; got 0"),
        ({"chains": 1}, "at least 2 chains"),
    ],
)
def test_bad_budgets_are_refused(settings: dict[str, int], message: str, generator: Generator) -> None:
    model = linear_vae(generator)
    with pytest.raises(ValueError, match=message):
        annealed(model, torch.zeros(2, 6, dtype=torch.float64), **settings)
    with pytest.raises(ValueError, match=message):
        sandwich(model, 2, **settings)


def test_bad_data_is_refused(generator: Generator) -> None:
    model = linear_vae(generator)
    with pytest.raises(ValueError, match="n must be a positive int"):
        sandwich(model, 0)
    x = torch.zeros(2, 6, dtype=torch.float64)
    x[1, 2] = math.nan
    with pytest.raises(ValueError, match="row 1, column 2 is nan"):
        annealed(model, x)
    binary = VAE.bernoulli(5, 2, hidden=(4,)).double()
    with pytest.raises(ValueError, match="distribution over"):
        annealed(binary, torch.full((2, 5), 0.5, dtype=torch.float64))


def test_binary_data(generator: Generator) -> None:
    """Every one of the 2⁴ masses, which sum to one."""
    model = VAE.bernoulli(4, 1, hidden=(8,)).double()
    randomise(model, generator, 0.7)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    claim = annealed(model, x, steps=200, start=FromPrior(), generator=generator)
    assert claim.measure is model.measure
    error = (claim.value.exp() * error_of(claim)).square().sum().sqrt()
    assert abs(claim.value.exp().sum() - 1) < 4 * error < 0.1


@pytest.mark.slow
def test_bar_linear_sandwich(generator: Generator, record_measurement: Record) -> None:
    model = linear_vae(generator, 20, 10)
    result = sandwich(model, 200, generator=generator)
    exact = model.log_prob(result.x).detach()
    for low, high in ((result.lower.value, exact), (exact, result.upper.value)):
        excess = low - high
        assert excess.mean() <= 4 * excess.std() / math.sqrt(200)
        for b in (0.5, 1.0, 2.0):
            assert (excess > b).double().mean() <= math.exp(-b) + 4 * math.sqrt(math.exp(-b) / 200)
    assert within(result.lower.value, error_of(result.lower), exact) >= 0.99
    record_measurement("sandwich, 10-latent linear VAE: width", result.mean_width, 0.05)


@pytest.mark.slow
def test_bar_digits_sandwich(generator: Generator, record_measurement: Record) -> None:
    from sklearn.datasets import load_digits

    pixels = torch.tensor(load_digits().data)
    x = ((pixels + torch.rand(pixels.shape, generator=generator, dtype=torch.float64)) / 17).float()
    model = VAE.gaussian(64, 10, hidden=(64,))
    model.fit(x, Training(epochs=60, progress=False), generator=generator)
    model.double()
    result = sandwich(model, 200, generator=generator)
    assert result.mean_width >= -4 * result.standard_error
    assert result.standard_error < 0.02
    record_measurement("sandwich, 10-latent VAE of digits: width", result.mean_width, 0.2)
    # An independent sampler lies in between: importance with 10⁴ draws, itself a lower bound.
    weighted = importance(model, result.x, draws=10_000, generator=generator)
    below = weighted.value - result.upper.value
    assert below.mean() <= 4 * below.std() / math.sqrt(200)
