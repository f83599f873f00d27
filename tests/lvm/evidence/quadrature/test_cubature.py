"""The parts of quadrature: rules, lattices, the search for mass in hard places, the worth of error estimates."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import fixed_quad
from torch import Generator, Tensor, nn

from density import (
    ConditionalGaussian,
    ConditionallyIndependent,
    Density,
    FixedScale,
    Independent,
    Kind,
    Poisson,
    StandardNormal,
)
from lvm import VAE, GaussianMixture, LinearVAE
from lvm.evidence.quadrature import quadrature
from lvm.evidence.quadrature.boxes import Boxes, pieces
from lvm.evidence.quadrature.clipped import Lattice
from lvm.evidence.quadrature.partition import Partition
from lvm.evidence.quadrature.region import Region
from lvm.evidence.quadrature.rows import log_sum_by, marked
from lvm.evidence.quadrature.rules import GaussKronrod
from tests.equivalence.examples import randomise

Record = Callable[[str, float, float], None]
CPU = torch.device("cpu")


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gauss_kronrod_is_exact_to_degree_23(d: int) -> None:
    rule = GaussKronrod(d, CPU)
    for degrees in itertools.product([0, 1, 10, 22, 23], repeat=d):
        powers = rule.nodes ** torch.tensor(degrees)
        exact = math.prod(0.0 if k % 2 else 2 / (k + 1) for k in degrees)
        assert abs(float(rule.weights @ powers.prod(1)) - exact) < 1e-13
    beyond = (rule.nodes[:, 0] ** 24) @ rule.weights
    assert abs(float(beyond) - 2 / 25 * 2 ** (d - 1)) > 1e-10  # it is Kronrod, and not a rule of more nodes
    grid = rule.grid(rule.nodes[:, d - 1])
    torch.testing.assert_close(grid[(0,) * (d - 1)], rule.axis)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_null_rules_vanish_on_degree_10_and_contain_kronrod_minus_gauss(d: int) -> None:
    rule = GaussKronrod(d, CPU)
    assert rule.null.shape[1] == rule.axis.numel() - 11  # all of them
    for j, degree in itertools.product(range(d), range(12)):
        size = (rule.null[j] @ rule.nodes[:, j] ** degree).norm()
        assert (size < 1e-14) if degree <= 10 else (size > 1e-6)
    wave = torch.cos(9 * rule.nodes[:, 0])
    gauss = fixed_quad(lambda t: np.cos(9 * t), -1, 1, n=7)[0] * 2 ** (d - 1)
    assert float((rule.null[0] @ wave).norm()) >= abs(float(rule.weights @ wave) - gauss)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_polynomials_through_the_nodes_are_themselves(d: int, generator: Generator) -> None:
    rule = GaussKronrod(d, CPU)
    places = 2 * torch.rand(20, d, generator=generator, dtype=torch.float64) - 1
    places[0] = rule.nodes[3]  # on a node
    weights = rule.interpolation(places)
    assert weights.shape == (20, rule.nodes.shape[0])
    for degrees in itertools.product([0, 1, 7, 14], repeat=d):
        powers = torch.tensor(degrees)
        error = weights @ (rule.nodes**powers).prod(1) - (places**powers).prod(1)
        assert error.abs().max() < 1e-12


@pytest.mark.parametrize("d", [1, 2, 3])
def test_places_know_the_equal_box_that_they_lie_in(d: int, generator: Generator) -> None:
    region = Region(torch.arange(1.0, d + 1).double(), torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)[:d])
    centre, half = region.divided()
    assert region.number_of_box(centre).tolist() == list(range(len(centre)))
    within = centre + half * (1.99 * torch.rand(centre.shape, generator=generator, dtype=torch.float64) - 0.995)
    assert region.number_of_box(within).tolist() == list(range(len(centre)))
    assert Partition.equal(region).divided(within).sum() == 0


def test_lattices_are_clipped_to_boxes_without_gap_or_overlap(generator: Generator) -> None:
    low = torch.tensor([[-1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    high = torch.tensor([[0.5, 1.0], [2.0, 1.0]], dtype=torch.float64)  # they touch at 0.5
    basis = torch.tensor([[0.13, 0.0], [-0.4, 0.2]], dtype=torch.float64)
    origin = torch.tensor([0.12, -0.33], dtype=torch.float64)
    lattice = Lattice.interlaced(low, high, origin.expand(2, 2), basis.expand(2, 2, 2))
    blocks = list(lattice.points(int(lattice.lines), int, 7))
    assert [len(box) for box, _ in blocks[:-1]] == [7] * (len(blocks) - 1)
    box, points = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    steps = torch.cartesian_prod(*[torch.arange(-60, 60, dtype=torch.float64)] * 2)
    for number, shift in ((0, 0.0), (1, 0.0), (2, 0.5), (3, 0.5)):
        everywhere = origin + (steps + shift) @ basis.mT
        inside = ((everywhere >= low[number % 2]) & (everywhere < high[number % 2])).all(1)
        found = points[box == number]
        assert found.shape[0] == int(inside.sum()) > 20
        nearest = (found.unsqueeze(1) - everywhere[inside]).norm(dim=2).amin(1)
        assert nearest.max() < 1e-12
        assert torch.pdist(found).min() > 0.05


@pytest.mark.parametrize("d", [1, 2, 3])
def test_boxes_are_halved_into_boxes_that_fill_them(d: int, generator: Generator) -> None:
    centre, half = (torch.rand(2**d, d, generator=generator, dtype=torch.float64) for _ in range(2))
    axes = torch.tensor(list(itertools.product([False, True], repeat=d)))
    children, there = Boxes(torch.arange(2**d), centre, half).halved(axes)
    children = children[marked(there, int(there.sum()))]
    assert children.point.bincount().tolist() == pieces(axes).tolist() == (2 ** axes.sum(1)).tolist()
    for number in range(2**d):
        own = children.point == number
        low, high = (children.centre + sign * children.half for sign in (-1, 1))
        torch.testing.assert_close((2 * children.half[own]).prod(1).sum(), (2 * half[number]).prod())
        torch.testing.assert_close(low[own].amin(0), centre[number] - half[number])
        torch.testing.assert_close(high[own].amax(0), centre[number] + half[number])
        assert len(children.centre[own].unique(dim=0)) == len(children.centre[own])


def test_log_sums_by_index() -> None:
    index = torch.tensor([2, 0, 2, 0])
    values = torch.tensor([1000.0, -math.inf, 1001.0, -math.inf], dtype=torch.float64)
    both = 1001 + math.log1p(math.exp(-1))
    assert log_sum_by(index, values, 3).tolist() == [-math.inf, -math.inf, pytest.approx(both)]


class Waves(nn.Module):
    """sin(Az + b) + Cz: many modes, and no two alike."""

    def __init__(self, latents: int, features: int, frequency: float, generator: Generator) -> None:
        super().__init__()
        self.a, self.c = (torch.randn(latents, features, generator=generator, dtype=torch.float64) for _ in range(2))
        self.b = 6 * torch.rand(features, generator=generator, dtype=torch.float64)
        self.frequency = frequency

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(self.frequency * z @ self.a + self.b) + 0.3 * z @ self.c


def vae_of(network: nn.Module, latents: int, features: int, std: float, prior: Density | None = None) -> VAE:
    encoder = ConditionalGaussian(nn.Linear(features, 2 * latents), latents, features)
    decoder = ConditionalGaussian(network, features, latents, FixedScale(std))
    return VAE(StandardNormal(latents) if prior is None else prior, encoder, decoder).double()


def on_a_grid(model: VAE, x: Tensor, reach: float, step: float) -> Tensor:
    """log p(x) by the trapezoidal rule on all of a cube: no adaptation that could miss anything."""
    d = model.prior.features
    ticks = torch.arange(-reach, reach, step, dtype=torch.float64)
    plane = torch.cartesian_prod(*[ticks] * min(d, 2)).reshape(-1, min(d, 2))
    total = x.new_full((x.shape[0],), -math.inf)
    for first in ticks if d == 3 else [None]:
        places = plane if first is None else torch.cat([first.expand(plane.shape[0], 1), plane], 1)
        for z in places.split(2**15):
            with torch.no_grad():
                total = torch.logaddexp(total, model.log_joint(x.unsqueeze(1), z).logsumexp(1))
    return total + d * math.log(step)


@pytest.mark.parametrize(
    ("latents", "frequency", "std", "step"), [(1, 3.0, 0.03, 1e-3), (1, 1.0, 0.3, 1e-2), (2, 3.0, 0.1, 0.01)]
)
def test_multimodal_decoders(
    latents: int, frequency: float, std: float, step: float, generator: Generator, record_measurement: Record
) -> None:
    model = vae_of(Waves(latents, latents + 1, frequency, generator), latents, latents + 1, std)
    x = model.sample({1: 100, 2: 12}[latents], generator=generator).detach()
    expected = on_a_grid(model, x, 9.0, step)
    for tolerance in (1e-3, 1e-8):
        claim = quadrature(model, x, tolerance=tolerance, generator=generator)
        assert claim.kind is Kind.EXACT
        assert claim.numerical_error is not None
        error = (claim.value - expected).abs()
        # Far below the tolerance the mass outside the boxes is only roughly known: hence the thousandth.
        assert (error <= claim.numerical_error + 1e-3 * tolerance).all()
        record_measurement(f"quadrature: many modes, {latents}-D at {tolerance:g}", float(error.max()), tolerance)


@pytest.mark.slow
def test_multimodal_decoder_with_three_latents(generator: Generator, record_measurement: Record) -> None:
    model = vae_of(Waves(3, 4, 1.0, generator), 3, 4, 0.4)
    x = model.sample(2, generator=generator).detach()
    claim = quadrature(model, x, tolerance=1e-7, generator=generator)
    assert claim.kind is Kind.EXACT
    error = float((claim.value - on_a_grid(model, x, 7.5, 0.06)).abs().max())
    record_measurement("quadrature: many modes, 3-D", error, 1e-7)


def relu_decoder(generator: Generator) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 2)).double()
    randomise(network, generator, 2.0)
    return network


def between_kinks(model: VAE, network: nn.Sequential, x: Tensor) -> Tensor:
    """log p(x) by Gauss-Legendre between all kinks of a one-latent ReLU decoder, where its log-joint is a parabola."""
    hidden = network[0]
    assert isinstance(hidden, nn.Linear)
    kinks = (-hidden.bias / hidden.weight[:, 0]).detach()
    ends = torch.cat([kinks, torch.linspace(-12, 12, 4001, dtype=torch.float64)]).sort().values
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(20))
    half = (ends.diff() / 2).unsqueeze(1)
    z = ((ends[1:] + ends[:-1]).unsqueeze(1) / 2 + half * nodes).reshape(-1, 1)
    with torch.no_grad():
        return (model.log_joint(x.unsqueeze(1), z) + (half * weights).log().reshape(-1)).logsumexp(1)


def test_error_estimates_cover_kinks(generator: Generator, record_measurement: Record) -> None:
    missed = total = 0
    for std in (0.3, 0.05):
        network = relu_decoder(generator)
        model = vae_of(network, 1, 2, std)
        x = model.sample(100, generator=generator).detach()
        expected = between_kinks(model, network, x)
        for tolerance in (1e-3, 1e-5, 1e-8):
            claim = quadrature(model, x, tolerance=tolerance, generator=generator)
            assert claim.numerical_error is not None
            error = (claim.value - expected).abs()
            missed += int((error > claim.numerical_error).sum())
            total += x.shape[0]
            assert (error <= 3 * claim.numerical_error + 1e-2 * tolerance).all()
    record_measurement("quadrature: share of ReLU errors above their estimate", missed / total, 0.02)


def test_mass_beyond_the_prior_is_found(generator: Generator, record_measurement: Record) -> None:
    """Outliers: the posterior is up to 60 prior standard deviations away, where no draw of the prior comes."""
    for latents in (1, 2):
        model = LinearVAE(4, latents, generator=torch.Generator().manual_seed(1)).double()
        randomise(model, generator, 0.5)
        with torch.no_grad():
            model.decoder.log_std.fill_(-2.0)
        x = model.decoder.mean.detach() + torch.tensor([[0.0], [20.0], [60.0]], dtype=torch.float64) @ (
            model.decoder.weight.detach().sum(1, keepdim=True).mT
        )
        assert model.encode(x).shape == (3, latents)
        expected = model.log_prob(x).detach()
        claim = quadrature(model, x, generator=generator)
        # log p(x) is as low as −3e3 here: the bar is absolute all the same.
        record_measurement("quadrature: far outliers", float((claim.value - expected).abs().max()), 1e-8)


def test_a_prior_of_separate_scales(generator: Generator, record_measurement: Record) -> None:
    """Components 30 apart, of width 1 and 1e-3, and a decoder that tells little: p(x) is a mixture in closed form."""
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64)
    means = torch.tensor([[0.0], [30.0]], dtype=torch.float64)
    variances = torch.tensor([[[1.0]], [[1e-6]]], dtype=torch.float64)
    prior = GaussianMixture.from_parameters(weights, means, variances)
    decoder = nn.Linear(1, 1).double()
    with torch.no_grad():
        decoder.weight.fill_(0.25)
        decoder.bias.zero_()
    model = vae_of(decoder, 1, 1, 3.0, prior)
    x = torch.tensor([[0.0], [3.0], [9.0]], dtype=torch.float64)
    assert isinstance(model.decoder, ConditionalGaussian)
    noise = model.decoder.at(means[:1])[1].dense().square()  # 3², but for the float32 that FixedScale keeps it in
    marginal = GaussianMixture.from_parameters(weights, 0.25 * means, 0.0625 * variances + noise)
    claim = quadrature(model, x, generator=generator)
    error = (claim.value - marginal.log_prob(x).detach()).abs().max()
    record_measurement("quadrature: prior of two scales", float(error), 1e-8)


class Needle(nn.Module):
    """0, but 1 within a few 1e-3 of z = 1.2345."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((z - 1.2345) / 2e-3).square())


def test_a_needle_that_only_the_encoder_knows_is_found(generator: Generator) -> None:
    """Flat but for one place narrower than the spacing of all nodes: draws of the encoder say where it is."""
    model = vae_of(Needle(), 1, 1, 0.1)
    with torch.no_grad():
        model.encoder.network.weight.zero_()  # type: ignore[union-attr]
        model.encoder.network.bias.copy_(torch.tensor([1.2345, math.log(1e-3)]))  # type: ignore[union-attr]
    x = torch.ones(1, 1, dtype=torch.float64)
    claim = quadrature(model, x, generator=generator)
    assert (claim.value - on_a_grid(model, x, 9.0, 2e-5)).abs().max() < 1e-8


def test_chunks_of_points_change_nothing(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae_of(Waves(1, 2, 2.0, generator), 1, 2, 0.1)
    x = model.sample(7, generator=generator).detach()
    whole = quadrature(model, x, generator=generator)
    module = importlib.import_module("lvm.evidence.quadrature.adaptive")  # its function goes by the same name
    monkeypatch.setattr(module, "SCALARS_AT_ONCE", 2000)  # three points at a time
    parts = quadrature(model, x, generator=generator)
    torch.testing.assert_close(parts.value, whole.value, rtol=0, atol=1e-8)


def test_no_gradients_and_nothing_changed(generator: Generator) -> None:
    model = VAE.gaussian(3, 1, hidden=(4,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(3, 3, generator=generator)
    claim = quadrature(model, x, generator=generator)
    assert not claim.value.requires_grad
    assert claim.value.dtype == torch.float64
    after = model.state_dict()
    assert all(after[name].dtype == before[name].dtype and (after[name] == before[name]).all() for name in before)


class Broken(nn.Module):
    def __init__(self, beyond: float, value: float) -> None:
        super().__init__()
        self.beyond, self.value = beyond, value

    def forward(self, z: Tensor) -> Tensor:
        return torch.where(z > self.beyond, self.value, z)


def test_a_log_joint_that_is_no_number_is_located() -> None:
    x = torch.zeros(3, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"point 0 at z = \(2\.\d+\) is nan"):
        quadrature(vae_of(Broken(2.0, math.nan), 1, 1, 0.1), x)


def test_the_end_of_a_density_is_no_error(generator: Generator, record_measurement: Record) -> None:
    """−inf is a probability of 0: here half of latent space."""
    claim = quadrature(vae_of(Broken(0.5, math.inf), 1, 1, 0.3), torch.zeros(1, 1, dtype=torch.float64), tolerance=1e-7)
    whole = LinearVAE(1, 1).double()
    std = math.sqrt(1 + 0.3**2)
    below = torch.special.log_ndtr(torch.tensor(0.5 * std / 0.3, dtype=torch.float64))
    expected = -0.5 * math.log(2 * math.pi) - math.log(std) + below
    assert whole.features == 1
    assert claim.numerical_error is not None
    assert abs(float(claim.value - expected)) <= float(claim.numerical_error)


def test_decoders_of_the_wrong_shape() -> None:
    model = vae_of(nn.Linear(1, 2), 1, 3, 0.1)
    with pytest.raises(ValueError, match="expects its network"):
        quadrature(model, torch.zeros(2, 3, dtype=torch.float64))

    class Summed(VAE):
        def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
            return super().log_joint(x, z).sum(-1)

    whole = VAE.gaussian(3, 1, hidden=(4,))
    with pytest.raises(ValueError, match=r"must broadcast the batch shapes"):
        quadrature(Summed(whole.prior, whole.encoder, whole.decoder), torch.zeros(2, 3))


def test_a_latent_that_is_neither_continuous_nor_countable() -> None:
    family = Poisson()
    encoder = ConditionallyIndependent(nn.Linear(3, 2), 2, 3, family)
    model = VAE(Independent(2, family), encoder, VAE.gaussian(3, 2, hidden=(4,)).decoder)
    with pytest.raises(ValueError, match="latent of another kind, with a Independent"):
        quadrature(model, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="at least one row"):
        quadrature(VAE.gaussian(3, 1), torch.zeros(0, 3))
