"""The variational autoencoder: its probabilities against enumeration and quadrature, its fit, hostile data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from density import (
    Bernoulli,
    ConditionalBernoulli,
    ConditionalGaussian,
    FixedScale,
    GlobalScale,
    Kind,
    Measure,
    NetworkScale,
    PerFeatureScale,
    Rescaled,
    ScaleModel,
    Standardisation,
    StandardNormal,
    Training,
    mlp,
)
from flows import linear_flow, real_nvp
from lvm import VAE, GaussianMixture
from lvm.vae.gradients import AnalyticKL
from tests.laws.density_case import grid
from tests.laws.transforms import randomise

SHORT = Training(epochs=5, batch_size=32, learning_rate=1e-2)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def curve(generator: Generator, n: int = 300) -> Tensor:
    """Points near a parabola in 3-D: one latent explains them."""
    t = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return torch.cat([t, t**2, -t], 1) + 0.1 * noise


def latent_grid(latent: int = 1) -> tuple[Tensor, float]:
    edge = torch.full((latent,), 9.0, dtype=torch.float64)
    return grid(-edge, edge, 2001)


@pytest.fixture
def bernoulli(generator: Generator) -> VAE:
    return randomise(VAE.bernoulli(3, 1, hidden=(8,)), generator, 0.5)


def test_probabilities_of_all_bit_vectors_sum_to_one(bernoulli: VAE) -> None:
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    z, cell = latent_grid()
    p = bernoulli.log_joint(x, z.unsqueeze(1)).exp().sum(0) * cell
    assert p.sum().item() == pytest.approx(1, abs=1e-10)
    assert p.min() > 0
    draws = bernoulli.sample(20_000, generator=seeded())
    counts = (draws.unsqueeze(1) == x).all(-1).sum(0)
    assert counts.sum() == 20_000
    chi_square = ((counts - 20_000 * p).square() / (20_000 * p)).sum().item()
    assert chi_square < 7 + 6 * math.sqrt(14)  # seven degrees of freedom


def test_samples_of_a_gaussian_decoder_have_its_moments(generator: Generator) -> None:
    """E x = E_z μ(z) and E xxᵀ = E_z [μμᵀ + diag σ²], the expectation over z by quadrature."""
    decoder = ConditionalGaussian(mlp(1, 6, (8,), nn.Tanh), 3, 1, NetworkScale(1.0))
    encoder = ConditionalGaussian(nn.Linear(3, 2), 1, 3, NetworkScale())
    model = randomise(VAE(StandardNormal(1), encoder, decoder), generator, 0.5)
    z, cell = latent_grid()
    weight = model.prior.log_prob(z).exp() * cell
    raw = decoder.network(z)
    mean, std = raw[:, :3], torch.exp(torch.tanh(raw[:, 3:]))
    first = weight @ mean
    second = (weight[:, None, None] * (mean.unsqueeze(2) * mean.unsqueeze(1) + torch.diag_embed(std**2))).sum(0)
    n = 40_000
    x = model.sample(n, generator=seeded()).detach()
    assert ((x.mean(0) - first).abs() < 5 * x.std(0) / math.sqrt(n)).all()
    products = x.unsqueeze(2) * x.unsqueeze(1)
    assert ((products.mean(0) - second).abs() < 5 * products.std(0) / math.sqrt(n)).all()


def test_models_of_bits_and_of_numbers_are_not_compared(bernoulli: VAE) -> None:
    x = torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64)
    bits = bernoulli.log_density(x, draws=10)
    numbers = VAE.gaussian(3, 1, hidden=(4,)).double().log_density(x, draws=10)
    assert bits.measure is bernoulli.measure is Measure.COUNTING
    assert numbers.measure is Measure.LEBESGUE
    with pytest.raises(ValueError, match="different units"):
        bits - numbers


@pytest.mark.parametrize(
    ("scale", "standardise"),
    [
        (FixedScale(0.5), True),
        (GlobalScale(), True),
        (PerFeatureScale(3), False),
        (NetworkScale(3.0), True),
        (None, True),
    ],
)
def test_fit_raises_the_bound_on_new_data(scale: ScaleModel | None, standardise: bool, generator: Generator) -> None:
    x = curve(generator).float()
    model = VAE.gaussian(3, 1, hidden=(16,), scale=deepcopy(scale), standardise=standardise)
    before = model.log_density(x[200:], draws=100, generator=seeded()).mean
    history = model.fit(x[:200], Training(epochs=15, batch_size=32, learning_rate=1e-2), generator=seeded())
    after = model.log_density(x[200:], draws=100, generator=seeded())
    assert after.kind is Kind.LOWER
    assert after.mean > before + 0.3
    assert history.objective[-1] > history.objective[0]
    assert len(history.validation) == len(history.objective)


def test_fit_finds_what_there_is_to_find(generator: Generator) -> None:
    """One latent and its noise: the bound comes within 0.6 nats of the truth, by quadrature over t.

    With a network's σ that starts at 1 some fits never use the latent, and end 2.5 nats below.
    """
    x = curve(generator, 1500)
    model = VAE.gaussian(3, 1, hidden=(32,))
    model.fit(x[:1200], Training(epochs=60, batch_size=64, learning_rate=5e-3), generator=seeded())
    test = x[1200:]
    t, cell = latent_grid()
    centre = torch.cat([t, t**2, -t], 1).unsqueeze(1)
    log_normal = -0.5 * ((test - centre) / 0.1).square().sum(-1) - 3 * math.log(0.1) - 1.5 * math.log(2 * math.pi)
    truth = (log_normal - 0.5 * t.square() - 0.5 * math.log(2 * math.pi)).logsumexp(0) + math.log(cell)
    bound = model.log_density(test, draws=500, generator=seeded())
    assert -0.6 < bound.mean - truth.mean().item() < 0.1


def test_fit_of_bits(generator: Generator) -> None:
    parity = (torch.rand(400, 1, generator=generator) > 0.5).float()
    flips = (torch.rand(400, 6, generator=generator) < 0.1).float()
    x = (parity - flips).abs()  # six noisy copies of one bit
    model = VAE.bernoulli(6, 1, hidden=(16,))
    model.fit(x[:300], Training(epochs=40, batch_size=32, learning_rate=1e-2), generator=seeded())
    bound = model.log_density(x[300:], draws=500, generator=seeded()).mean
    # log ½ − 6 h(0.1) = −2.64 is the truth, −6 log 2 = −4.16 what independent bits reach.
    assert -3.0 < bound < -2.3


@pytest.mark.parametrize(("unit", "shift"), [(1e-8, 0.0), (1e8, 0.0), (3.0, 1e4)])
def test_units_only_shift_log_density(unit: float, shift: float, generator: Generator) -> None:
    """Standardised, the same seed makes the same model: log p(ax + b) = log p(x) − D log a."""
    x = curve(generator, 100)
    values = []
    for data in (x, shift + unit * x):
        torch.manual_seed(0)
        model = VAE.gaussian(3, 2, hidden=(8,))
        model.fit(data, SHORT, generator=seeded())
        values.append(model.log_density(data, draws=20, generator=seeded(1)).value)
    # The shift leaves data 1e-12 of its digits, which training amplifies.
    torch.testing.assert_close(values[1] + 3 * math.log(unit), values[0], rtol=1e-6, atol=1e-6)


def test_without_standardisation_the_model_is_of_x_itself() -> None:
    model = VAE.gaussian(3, 2, standardise=False)
    assert isinstance(model.decoder, ConditionalGaussian)
    standardised = VAE.gaussian(3, 2)
    assert isinstance(standardised.decoder, Rescaled)


def test_encode_decode_reconstruct(generator: Generator) -> None:
    x = curve(generator, 50)
    model = VAE.gaussian(3, 2, hidden=(8,))
    model.fit(x, SHORT, generator=seeded())
    decoder = model.decoder
    assert isinstance(decoder, Rescaled)
    for batch in ((), (50,), (5, 10)):
        rows = x[:1].squeeze(0) if batch == () else x.reshape(*batch, 3)
        z = model.encode(rows)
        assert z.shape == (*batch, 2)
        assert model.decode(z).shape == (*batch, 3)
        assert model.reconstruct(rows).equal(model.decode(model.encode(rows)))
    draws = model.encoder.sample(4000, context=x, generator=generator)
    error = draws.std(0) / math.sqrt(4000)
    assert ((draws.mean(0) - model.encode(x)).abs() < 5 * error).all()
    z = model.encode(x[:4])
    draws = decoder.sample(4000, context=z, generator=generator)
    error = draws.std(0) / math.sqrt(4000)
    assert ((draws.mean(0) - model.decode(z)).abs() < 5 * error).all()


def test_decode_of_bits_is_their_probability(bernoulli: VAE) -> None:
    z = torch.tensor([[0.3], [-1.0]], dtype=torch.float64)
    x = bernoulli.decoder.sample(4000, context=z, generator=seeded())
    p = bernoulli.decode(z)
    assert ((x.mean(0) - p).abs() < 5 * (p * (1 - p) / 4000).sqrt()).all()


def test_encode_and_decode_refuse_what_they_cannot() -> None:
    model = VAE.gaussian(3, 2, hidden=(4,))
    for call in (model.encode, model.reconstruct):
        with pytest.raises(ValueError, match=r"VAE expects x of shape \[\*batch, 3\]; got \[5, 2\]"):
            call(torch.zeros(5, 2))
        with pytest.raises(TypeError, match="floating point"):
            call(torch.zeros(5, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"VAE.decode expects x of shape \[\*batch, 2\]; got \[5, 3\]"):
        model.decode(torch.zeros(5, 3))
    by_flow = VAE(StandardNormal(2), real_nvp(2, 2, (4,), 3), model.decoder)
    with pytest.raises(TypeError, match=r"Flow has no expectation in closed form; average draws, sample\(n, context"):
        by_flow.encode(torch.zeros(5, 3))
    to_flow = VAE(StandardNormal(2), model.encoder, real_nvp(3, 2, (4,), 2))
    with pytest.raises(TypeError, match=r"Flow has no expectation in closed form; average draws, sample\(n, context"):
        to_flow.decode(torch.zeros(5, 2))


@pytest.mark.parametrize("prior", [lambda: linear_flow(2), lambda: real_nvp(2, 2, (4,)), lambda: GaussianMixture(2, 3)])
def test_a_prior_of_any_kind_is_trained(prior: Callable[[], nn.Module], generator: Generator) -> None:
    x = curve(generator, 100)
    model = VAE.gaussian(3, 2, hidden=(8,), prior=prior())  # type: ignore[arg-type]
    before = [p.detach().clone().double() for p in model.prior.parameters()]
    model.fit(x, SHORT, generator=seeded())
    assert any((p - b).abs().max() > 1e-3 for p, b in zip(model.prior.parameters(), before, strict=True))


def test_custom_networks(generator: Generator) -> None:
    """Any module that maps the right widths: here one that looks at pixels as an image."""

    class Image(nn.Module):
        def __init__(self, outputs: int) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Unflatten(-1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.Flatten(-3), nn.Linear(8, outputs)
            )

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.net(x)
            return result

    model = VAE(
        StandardNormal(2),
        ConditionalGaussian(Image(4), 2, 16, NetworkScale()),
        ConditionalBernoulli(nn.Linear(2, 16), 16, 2),
    )
    x = (torch.rand(50, 16, generator=generator) > 0.5).float()
    history = model.fit(x, SHORT, generator=seeded())
    assert math.isfinite(history.objective[-1])
    assert model.log_density(x, draws=10).value.shape == (50,)


def test_kl_weight(generator: Generator) -> None:
    """β scales the KL term and nothing else; a large β closes the channel."""
    x = curve(generator, 100)
    rates = {}
    for weight in (0.0, 1.0, 100.0):
        torch.manual_seed(0)
        model = VAE.gaussian(3, 1, hidden=(8,), scale=FixedScale(0.3)).double()
        training = Training(epochs=100, batch_size=None, learning_rate=3e-2, validation=0)
        history = model.fit(x, training, estimator=AnalyticKL(kl_weight=weight), generator=seeded())
        terms = model.elbo_terms(x, draws=200, generator=seeded())
        rates[weight] = terms.kl.mean().item()
        bound = (terms.reconstruction - weight * terms.kl).mean().item()
        assert history.objective[-1] == pytest.approx(bound, rel=0.1)
    assert rates[0.0] > rates[1.0] + 0.5 > rates[100.0] + 1
    assert rates[100.0] < 0.01


def test_more_draws_are_the_same_bound_with_less_noise(generator: Generator) -> None:
    x = curve(generator, 50)
    model = VAE.gaussian(3, 1, hidden=(8,)).double()
    few, many = (
        torch.stack([model.elbo(x, draws=draws, generator=generator) for _ in range(200)]).detach() for draws in (1, 16)
    )
    error = few.std(0) / math.sqrt(200)
    assert ((few.mean(0) - many.mean(0)).abs() < 5 * error).all()
    # A sixteenth of the variance, known to √(2/200) = 10 % a point and better over fifty.
    assert (few.var(0).mean() / many.var(0).mean()).item() == pytest.approx(16, rel=0.25)


def test_generation_needs_no_encoder(generator: Generator) -> None:
    model = VAE.gaussian(3, 1, hidden=(8,))
    model.fit(curve(generator, 50), SHORT, generator=seeded())
    expected = model.sample(7, generator=seeded())
    del model.encoder
    assert model.sample(7, generator=seeded()).equal(expected)


def test_the_same_seed_gives_the_same_model(generator: Generator) -> None:
    x = curve(generator, 100)

    def fitted(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = VAE.gaussian(3, 1, hidden=(8,))
        before = torch.get_rng_state()
        model.fit(x, SHORT, generator=seeded(seed))
        assert torch.get_rng_state().equal(before)
        return model.state_dict()

    first, again, other = fitted(0), fitted(0), fitted(1)
    assert all(first[name].equal(again[name]) for name in first)
    assert not all(first[name].equal(other[name]) for name in first)


def test_fit_moves_to_the_data_and_leaves_it_alone(generator: Generator) -> None:
    for dtype in (torch.float64, torch.float32):
        x = curve(generator, 30).to(dtype)
        copy = x.clone()
        model = VAE.gaussian(3, 1, hidden=(4,))
        model.fit(x, SHORT, generator=seeded())
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert x.equal(copy)


@pytest.mark.parametrize("latent", [2, 3])
def test_only_what_concerns_x_is_standardised(latent: int, generator: Generator) -> None:
    """A rescaled density over the latent keeps its own units, also where it has as many features as x."""
    prior = Rescaled(StandardNormal(latent))
    prior.standardise.scale.fill_(3.0)
    model = VAE.gaussian(3, latent, hidden=(4,), prior=prior)
    model.fit(curve(generator, 50), SHORT, generator=seeded())
    assert prior.standardise.scale.tolist() == [3.0] * latent
    assert not prior.standardise.matched
    decoder = model.decoder
    assert isinstance(decoder, Rescaled)
    assert decoder.standardise.matched


def test_what_is_about_a_latent_as_wide_as_x_is_not_standardised(generator: Generator) -> None:
    """A rescaled encoder is in units of z, and so is the input of the decoder's network."""
    encoder = Rescaled(ConditionalGaussian(nn.Sequential(Standardisation(3), nn.Linear(3, 6)), 3, 3))
    network = nn.Sequential(Standardisation(3), nn.Linear(3, 6))
    model = VAE(StandardNormal(3), encoder, Rescaled(ConditionalGaussian(network, 3, 3)))
    model.fit(50 * torch.randn(40, 3, generator=generator) + 7, SHORT, generator=seeded())
    matched = {name: bool(value) for name, value in model.state_dict().items() if name.endswith("matched")}
    assert matched == {
        "encoder.standardise.matched": False,
        "encoder.density.network.0.matched": True,
        "decoder.standardise.matched": True,
        "decoder.density.network.0.matched": False,
    }


def test_priors_over_bits_fit_no_gaussian_latent() -> None:
    with pytest.raises(ValueError, match="the 2 features of the latent; got"):
        VAE.gaussian(3, 2, prior=Bernoulli(3))
