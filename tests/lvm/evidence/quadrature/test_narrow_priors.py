"""Priors with modes that hide between the nodes: EXACT is said only where the error is as small as stated."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import ConditionalGaussian, Density, FixedScale, Kind, StandardNormal
from flows import Affine, Flow, real_nvp
from lvm import VAE, GaussianMixture
from lvm.evidence.quadrature import quadrature
from lvm.evidence.quadrature.integrand import Integrand
from tests.laws.transforms import randomise

Record = Callable[[str, float, float], None]
STANDARD_NORMAL_AT_0 = -0.5 * math.log(2 * math.pi)


class Nothing(nn.Module):
    """A decoder's network that ignores z, so that log p(x) is that of the noise."""

    def forward(self, z: Tensor) -> Tensor:
        return z.new_zeros(*z.shape[:-1], 1)


class Cauchy(Density):
    def __init__(self) -> None:
        super().__init__()
        self.features = 1
        self.centre = nn.Parameter(torch.zeros(1))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return (-math.log(math.pi) - (x - self.centre).square().log1p()).sum(-1)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        uniform = torch.rand(n, 1, generator=generator, dtype=self.centre.dtype)
        return self.centre + (math.pi * (uniform - 0.5)).tan()


class Secretive(Density):
    """A mixture of which only the first component is ever drawn."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.features = mixture.features
        self.mixture = mixture

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.mixture.log_prob(x)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.mixture.decoder.sample(n, context=self.mixture.prior.enumerate()[0], generator=generator)


def mixture(weights: list[float], means: list[list[float]], stds: list[float]) -> GaussianMixture:
    means_, stds_ = torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64)
    identity = torch.eye(means_.shape[1], dtype=torch.float64)
    covariances = stds_.square()[:, None, None] * identity
    return GaussianMixture.from_parameters(torch.tensor(weights, dtype=torch.float64), means_, covariances)


def vae_of(prior: Density, network: nn.Module, features: int, std: float) -> VAE:
    encoder = ConditionalGaussian(nn.Linear(features, 2 * prior.features), prior.features, features)
    decoder = ConditionalGaussian(network, features, prior.features, FixedScale(std))
    return VAE(prior, encoder, decoder).double()


def telling_nothing(prior: Density) -> VAE:
    return vae_of(prior, Nothing(), 1, 1.0)


MINOR_MODES = {
    "a thousandth of width 0.01": lambda: mixture([0.999, 0.001], [[0.0], [2.0]], [1.0, 0.01]),
    "a hundredth of width 1e-4": lambda: mixture([0.99, 0.01], [[0.0], [2.0]], [1.0, 1e-4]),
    "two dimensions": lambda: mixture([0.9, 0.1], [[0.0, 0.0], [1.0, 1.0]], [1.0, 0.003]),
    "behind a flow": lambda: Flow(
        mixture([0.998, 0.002], [[0.0], [1.5]], [1.0, 0.01]), Affine(torch.ones(1), 2 * torch.ones(1))
    ),
    "a Cauchy distribution": Cauchy,
}


@pytest.mark.parametrize("name", MINOR_MODES)
def test_minor_modes_of_the_prior_are_found(name: str, generator: Generator, record_measurement: Record) -> None:
    model = telling_nothing(MINOR_MODES[name]())
    claim = quadrature(model, torch.zeros(2, 1, dtype=torch.float64), tolerance=1e-8, generator=generator)
    assert claim.kind is Kind.EXACT
    error = float((claim.value - STANDARD_NORMAL_AT_0).abs().max())
    record_measurement("quadrature: minor modes of the prior", error, 1e-8)


@pytest.mark.parametrize("tolerance", [None, 1e-8])
def test_mass_that_nothing_shows_is_missed_by_the_prior_s_integral(
    tolerance: float | None, generator: Generator
) -> None:
    """No draw and no flank: only that the prior's integral is not 1 tells that something is missing."""
    model = telling_nothing(Secretive(mixture([0.999, 0.001], [[0.0], [2.0]], [1.0, 1e-8])))
    claim = quadrature(model, torch.zeros(2, 1, dtype=torch.float64), tolerance=tolerance, generator=generator)
    assert claim.kind is Kind.ESTIMATE
    assert "missed at 2 of 2 points" in claim.method
    assert claim.numerical_error is not None
    assert (claim.value - STANDARD_NORMAL_AT_0 < -9e-4).all()  # it is missed indeed
    assert ((claim.value - STANDARD_NORMAL_AT_0).abs() <= claim.numerical_error).all()


def test_missing_mass_is_weighed_by_the_likelihood(generator: Generator) -> None:
    """A point that only the hidden component explains: what is missing is most of its density."""
    decoder = nn.Linear(1, 1).double()
    with torch.no_grad():
        decoder.weight.fill_(1.0)
        decoder.bias.zero_()
    model = vae_of(Secretive(mixture([0.9999, 0.0001], [[0.0], [5.0]], [1.0, 1e-8])), decoder, 1, 0.1)
    claim = quadrature(model, torch.full((1, 1), 5.0, dtype=torch.float64), generator=generator)
    assert claim.kind is Kind.ESTIMATE
    assert claim.numerical_error is not None
    assert claim.numerical_error > 1


def random_case(seed: int, latents: int, linear: bool) -> tuple[VAE, Tensor, Tensor]:
    """A VAE on 2-6 components of weights and widths from 1e-4 to 1, five points, and log p(x) in closed form."""
    generator = Generator().manual_seed(seed)

    def magnitudes(*shape: int) -> Tensor:
        return 10 ** (-4 * torch.rand(*shape, generator=generator, dtype=torch.float64))

    components = int(torch.randint(2, 7, (1,), generator=generator))
    weights = magnitudes(components)
    weights = weights / weights.sum()
    means = 2 * torch.randn(components, latents, generator=generator, dtype=torch.float64)
    stds = magnitudes(components, latents if seed % 2 else 1).expand(components, latents)
    covariances = torch.diag_embed(stds.square())
    prior = GaussianMixture.from_parameters(weights, means, covariances)
    if not linear:
        model = telling_nothing(prior)
        x = model.sample(5, generator=generator).detach()
        return model, x, model.decoder.log_prob(x, torch.zeros(5, latents, dtype=torch.float64)).detach()
    network = nn.Linear(latents, 2).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model = vae_of(prior, network, 2, 0.03 * 30 ** float(torch.rand(1, generator=generator)))
    x = model.sample(5, generator=generator).detach()
    weight, bias = network.weight.detach(), network.bias.detach()
    assert isinstance(model.decoder, ConditionalGaussian)
    noise = model.decoder.at(means[:1])[1].dense()[0].square()
    marginal = GaussianMixture.from_parameters(
        weights, means @ weight.mT + bias, weight @ covariances @ weight.mT + noise
    )
    return model, x, marginal.log_prob(x).detach()


def share_of_exact(seeds: range, latents: int, linear: bool) -> float:
    """Of random cases; in all of these the error must be at most ten times the stated one."""
    exact = 0
    for seed in seeds:
        model, x, expected = random_case(seed, latents, linear)
        claim = quadrature(model, x, generator=Generator().manual_seed(seed))
        assert claim.numerical_error is not None
        if claim.kind is Kind.EXACT:
            exact += 1
            assert ((claim.value - expected).abs() <= 10 * claim.numerical_error + 1e-12).all(), seed
    return exact / len(seeds)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize(("latents", "count"), [(1, 10), (2, 2)])
def test_exact_is_said_of_small_errors(latents: int, count: int, linear: bool) -> None:
    assert share_of_exact(range(count), latents, linear) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("latents", [1, 2])
def test_exact_is_said_of_small_errors_200_times(latents: int, linear: bool, record_measurement: Record) -> None:
    share = share_of_exact(range(200), latents, linear)
    record_measurement(f"quadrature: mixtures as prior that are no EXACT, {latents}-D", 1 - share, 0.1)


def test_flows_as_priors_cost_little_more_than_gaussians(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, record_measurement: Record
) -> None:
    """Against ∫ p(u) p(x|g(u)) du over the flow's base, on a grid; and by the number of places that are looked at."""
    prior = real_nvp(2, layers=2, hidden=(8,), base=StandardNormal)
    model = randomise(vae_of(prior, nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 3)), 3, 0.3), generator, 0.4)
    x = model.sample(8, generator=generator).detach()
    places, at = [0], Integrand.at

    def counted(self: Integrand, point: Tensor, z: Tensor) -> Tensor:
        places[0] += len(z)
        return at(self, point, z)

    monkeypatch.setattr(Integrand, "at", counted)
    claim = quadrature(model, x, generator=generator)
    assert claim.kind is Kind.EXACT
    assert claim.method.startswith("2-dimensional adaptive quadrature to 0.001 nats")
    assert claim.numerical_error is not None
    axis = torch.arange(-6.5, 6.5, 0.05, dtype=torch.float64)
    base = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        weights = -0.5 * base.square().sum(1) - math.log(2 * math.pi) + 2 * math.log(0.05)
        z = prior.transform.inverse(base)[0]
        expected = torch.stack([(weights + model.decoder.log_prob(row, z)).logsumexp(0) for row in x])
    error = (claim.value - expected).abs()
    assert (error <= claim.numerical_error).all()
    record_measurement("quadrature: flows as priors, nats", float(error.max()), 1e-3)
    record_measurement("quadrature: places a point, with a flow as prior", places[0] / 8, 40_000)
