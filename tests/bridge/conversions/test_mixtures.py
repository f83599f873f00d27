"""A decoder at nodes of the prior is a mixture near the model, and what it says of some columns is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import as_mixture
from density import (
    Bernoulli,
    BernoulliLikelihood,
    Categorical,
    CategoricalLevels,
    Category,
    Columns,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    DiagonalGaussian,
    Gaussian,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomial,
    PerFeatureScale,
    Poisson,
    Product,
    Rescaled,
    mlp,
)
from flows import maf
from lvm import VAE, FiniteMixture, GaussianMixture, HierarchicalVAE, LinearVAE
from lvm.evidence import Bits, audit, evidence, importance, prior_importance
from lvm.prior_nodes import PriorNodes
from lvm.vae.mixture_likelihood import MixtureLikelihood
from tests.bridge.comparison import Record
from tests.laws.transforms import randomise

BAR = 0.01  # nats, for two latents and 4,096 nodes
TABLE = (GaussianLikelihood(), Category(3), Poisson(), GaussianLikelihood(), BernoulliLikelihood())
CODES = (BernoulliLikelihood(), Category(4), BernoulliLikelihood())


def numbers(latents: int, generator: Generator) -> VAE:
    """A curved sheet with noise of a tenth of its size, in units of its own."""
    model = VAE.gaussian(3, latents, hidden=(6,)).double()
    decoder = Rescaled(ConditionalGaussian(mlp(latents, 3, (6,), nn.Tanh), 3, latents, PerFeatureScale(3)))
    units = torch.tensor([[0.0, 5.0, 1.0], [4.0, 5.5, 9.0], [1.0, 7.0, 3.0]], dtype=torch.float64)
    model.decoder = randomise(decoder, generator, 0.5)
    model.decoder.initialise(units, torch.zeros(3, latents, dtype=torch.float64))
    with torch.no_grad():
        decoder.density.scale.log_std.fill_(-1.5)
    return model


def bits(latents: int, generator: Generator) -> VAE:
    model = VAE.bernoulli(6, latents, hidden=(6,)).double()
    model.decoder = randomise(ConditionalBernoulli(mlp(latents, 6, (6,), nn.Tanh), 6, latents), generator, 1.0)
    return model


@pytest.mark.parametrize("make", [numbers, bits])
def test_two_latents_within_the_bar(
    make: Callable[[int, Generator], VAE], generator: Generator, record_measurement: Record
) -> None:
    model = make(2, generator)
    x = model.sample(8, generator=generator)
    found, log_p = as_mixture(model), evidence(model, x)
    error = found.log_density(x) - log_p
    assert found.components == 4096
    record_measurement(f"{make.__name__} at 4,096 nodes vs quadrature, nats", error.value.abs().max().item(), BAR)
    coarse = as_mixture(model, 20).log_density(x) - log_p
    assert coarse.value.abs().max() > error.value.abs().max()


def test_the_linear_model_is_known_in_closed_form(generator: Generator) -> None:
    """Nodes 0.19 apart beside posteriors of standard deviation 0.3 and more: the lattice's error is e^−50."""
    model = randomise(LinearVAE(4, 1), generator, 0.5)
    x = model.sample(20, generator=generator)
    torch.testing.assert_close(as_mixture(model, 64).log_prob(x), model.log_prob(x), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("latents", "nodes", "tolerance"), [(1, 16, 1e-5), (2, 256, 1e-5), (3, 4096, 3e-3)])
def test_broad_posteriors_need_few_nodes(latents: int, nodes: int, tolerance: float, generator: Generator) -> None:
    """A lattice of 16 nodes an axis, or 4,096 quasi-random points, of which the error is of the order of log³N / N."""
    model = randomise(LinearVAE(4, latents), generator, 0.1)
    with torch.no_grad():
        model.decoder.weight.mul_(0.5)
    x = model.sample(20, generator=generator)
    found = as_mixture(model, nodes, generator=generator).log_prob(x)
    torch.testing.assert_close(found, model.log_prob(x), rtol=0, atol=tolerance)


def test_a_gaussian_prior_has_its_own_units(generator: Generator) -> None:
    for prior in (randomise(DiagonalGaussian(2), generator, 0.5), randomise(Gaussian(2), generator, 0.5)):
        model = bits(2, generator)
        model = VAE(prior, model.encoder, model.decoder).double()
        x = Bits(6).points(torch.empty(0, dtype=torch.float64))[::16]
        error = as_mixture(model).log_density(x) - evidence(model, x)
        assert error.value.abs().max() < BAR


def test_a_one_hot_latent_is_the_mixture(generator: Generator) -> None:
    decoder = ConditionalBernoulli(nn.Linear(3, 5), 5, 3)
    encoder = ConditionalCategorical(nn.Linear(5, 3), 3, 5)
    model = VAE(randomise(Categorical(3), generator), encoder, randomise(decoder, generator)).double()
    x = Bits(5).points(torch.empty(0, dtype=torch.float64))
    found = as_mixture(model)
    assert found.components == 3
    torch.testing.assert_close(found.log_density(x).value, evidence(model, x).value, rtol=1e-12, atol=1e-12)


def test_more_latents_take_quasi_random_points(generator: Generator) -> None:
    """Of bits, whose posteriors are broad: nearer to each other than two mixtures at draws of the prior are."""
    model = bits(5, generator)
    x = Bits(6).points(torch.empty(0, dtype=torch.float64))
    found = as_mixture(model, 2048, generator=generator)
    again = as_mixture(model, 2048, generator=generator)
    one, other = (prior_importance(model, x, draws=2048, generator=generator) for _ in range(2))
    assert abs(audit(found, Bits(6)).total - 1) < 1e-12
    difference = (found.log_density(x) - again.log_density(x)).value
    assert 0 < difference.abs().mean() < 0.7 * (one.value - other.value).abs().mean()
    claim = importance(model, x, draws=4000, generator=generator)
    assert claim.monte_carlo_error is not None
    assert ((found.log_density(x) - claim).value.abs() < 5 * claim.monte_carlo_error + 0.05).all()


def test_other_priors_are_drawn(generator: Generator) -> None:
    prior = randomise(maf(2, 1, (4,)), generator, 0.1)
    model = bits(2, generator)
    model = VAE(prior, model.encoder, model.decoder).double()
    found = as_mixture(model, 500, generator=generator)
    torch.testing.assert_close(found.weights, torch.full_like(found.weights, 1 / 500))
    x = model.sample(50, generator=generator)
    assert abs((found.log_density(x) - importance(model, x, draws=1000, generator=generator)).mean) < 0.1


def test_a_hierarchy_is_the_mixture_of_its_lowest_decoder(generator: Generator) -> None:
    model = randomise(HierarchicalVAE.above(VAE.bernoulli(5, 2, hidden=(4,)), (1,), hidden=(4,)).double(), generator)
    found, nodes = as_mixture(model, 30, generator=Generator().manual_seed(1)), Generator().manual_seed(1)
    x = Bits(5).points(torch.empty(0, dtype=torch.float64))
    z = model.prior.sample(30, generator=nodes)
    expected = model.decoder.log_prob(x.unsqueeze(1), z).logsumexp(1) - math.log(30)
    torch.testing.assert_close(found.log_prob(x), expected, rtol=1e-11, atol=1e-11)
    trained = MixtureLikelihood(30, seed=1)(model, x)
    torch.testing.assert_close(trained, expected, rtol=1e-11, atol=1e-11)


def test_marginals_and_conditionals_are_sums(generator: Generator) -> None:
    """Over all states of the other bits, for every state of these."""
    found = as_mixture(bits(2, generator), 100)
    assert isinstance(found, FiniteMixture)
    x = Bits(6).points(torch.empty(0, dtype=torch.float64))
    p = found.log_density(x).value.exp()
    columns, others = [4, 1], [0, 2, 3, 5]
    for values in Bits(2).points(x):
        agree = (x[:, columns] == values).all(1)
        mass = p[agree].sum()
        torch.testing.assert_close(found.marginal(columns).log_prob(values).exp(), mass, rtol=1e-10, atol=0)
        conditional = found.conditional(columns, values).log_prob(x[agree][:, others]).exp()
        torch.testing.assert_close(conditional, p[agree] / mass, rtol=1e-10, atol=0)


def table(latents: int, generator: Generator, likelihoods: Sequence[Likelihood] = TABLE) -> VAE:
    """Columns of several kinds, in units of their own: those of numbers and counts start from data."""
    model = VAE.of(len(likelihoods), latents, Columns(likelihoods), hidden=(6,)).double()
    wide = 1.5 * torch.randn(40, len(likelihoods), generator=generator, dtype=torch.float64)
    kinds: dict[type, Callable[[Tensor], Tensor]] = {
        GaussianLikelihood: lambda column: 3 + 5 * column,
        Poisson: lambda column: (4 * column.abs()).round(),
    }
    columns = zip(wide.unbind(1), likelihoods, strict=True)
    rows = [kinds.get(type(each), lambda column: (column > 0).double())(column) for column, each in columns]
    model.initialise(torch.stack(rows, 1))
    randomise(model.decoder, generator, 0.3)
    return model


def test_tables_within_the_bar(generator: Generator, record_measurement: Record) -> None:
    model = table(2, generator)
    x = model.sample(8, generator=generator)
    found = as_mixture(model)
    error = (found.log_density(x) - evidence(model, x)).value.abs().max().item()
    assert isinstance(found, FiniteMixture)
    record_measurement("a table at 4,096 nodes vs quadrature, nats", error, BAR)


@pytest.mark.parametrize("likelihood", [CategoricalLevels(3), Columns(CODES)], ids=lambda each: type(each).__name__)
def test_categories_are_sums(likelihood: Likelihood, generator: Generator) -> None:
    """Of the decoder at the nodes; and their marginals and conditionals over all states of the other columns."""
    model = randomise(VAE.of(3, 2, likelihood, hidden=(6,)).double(), generator, 1.0)
    levels = [likelihoods.levels if isinstance(likelihoods, Category) else 2 for likelihoods in CODES]
    levels = levels if isinstance(likelihood, Columns) else [3] * 3
    x = torch.cartesian_prod(*[torch.arange(count, dtype=torch.float64) for count in levels])
    found, nodes = as_mixture(model, 49), PriorNodes.of(model.prior, 49)
    p = (model.decoder.log_prob(x.unsqueeze(1), nodes.z).exp() @ nodes.log_weights.exp()).detach()
    torch.testing.assert_close(found.log_prob(x).detach().exp(), p, rtol=1e-10, atol=0)
    torch.testing.assert_close(p.sum(), torch.ones_like(p.sum()), rtol=1e-10, atol=0)
    columns, others = [2, 0], [1]
    for values in torch.cartesian_prod(*[torch.arange(levels[column], dtype=torch.float64) for column in columns]):
        agree = (x[:, columns] == values).all(1)
        mass = p[agree].sum()
        torch.testing.assert_close(found.marginal(columns).log_prob(values).exp(), mass, rtol=1e-10, atol=0)
        conditional = found.conditional(columns, values).log_prob(x[agree][:, others]).exp()
        torch.testing.assert_close(conditional, p[agree] / mass, rtol=1e-10, atol=0)


def test_tables_are_the_decoder_at_the_nodes(generator: Generator) -> None:
    """Numbers, counts, categories and bits, each in its place; what is left of a table of numbers is one of numbers."""
    model = table(1, generator)
    x = model.sample(20, generator=generator)
    found, nodes = as_mixture(model, 9), PriorNodes.of(model.prior, 9)
    assert isinstance(found, FiniteMixture)
    expected = (model.decoder.log_prob(x.unsqueeze(1), nodes.z) + nodes.log_weights).logsumexp(-1)
    torch.testing.assert_close(found.log_prob(x), expected, rtol=1e-11, atol=1e-11)
    assert found.measure == model.measure
    kept = [0, 3]  # two numbers, whose mean and variance the mixture of Gaussians has
    z = nodes.log_weights.exp() @ model.decoder.expectation(nodes.z)
    torch.testing.assert_close(found.marginal(kept).expectation(), z[kept], rtol=1e-11, atol=1e-11)
    assert isinstance(as_mixture(table(1, generator, [GaussianLikelihood()] * 2), 9), GaussianMixture)


def test_numbers_become_a_gaussian_mixture(generator: Generator) -> None:
    model = numbers(1, generator)
    found = as_mixture(model, 50)
    assert isinstance(found, GaussianMixture)
    x = model.sample(5, generator=generator)
    torch.testing.assert_close(
        found.marginal([2]).log_prob(x[:, 2:])
        + torch.stack([found.conditional([2], row[2:]).log_prob(row[:2]) for row in x]),
        found.log_prob(x),
        rtol=1e-10,
        atol=1e-10,
    )
    moments: Tensor = found.sample(50_000, generator=generator).mean(0) - found.expectation()
    assert (moments.abs() < 5 * found.sample(50_000, generator=generator).std(0) / 50_000**0.5).all()


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_lattice_of_one_node_is_the_mean(nodes: int, generator: Generator) -> None:
    model = numbers(2, generator)
    found = as_mixture(model, nodes)
    assert isinstance(found, GaussianMixture)
    assert found.decoder.means.equal(model.decode(torch.zeros(1, 2, dtype=torch.float64)))


def test_a_part_that_reads_no_latent_is_the_same_in_every_component() -> None:
    part = Bernoulli(2)
    with torch.no_grad():
        part.logits.copy_(torch.tensor([1.0, -2.0]))
    read = ConditionalBernoulli(nn.Linear(2, 3), 3, 2)
    decoder = Product([read, part], columns=[[0, 2, 4], [1, 3]])
    model = VAE(DiagonalGaussian(2), ConditionalGaussian(nn.Linear(5, 4), 2, 5), decoder).double()
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    error = as_mixture(model, 400).log_density(x) - evidence(model, x)
    assert error.value.abs().max() < 1e-6


def test_what_is_no_such_model_is_refused() -> None:
    with pytest.raises(TypeError, match="prior and decoder; got Gaussian"):
        as_mixture(Gaussian(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="another one for every context"):
        as_mixture(VAE.bernoulli(3, 1, hidden=(2,), context_features=1))
    with pytest.raises(ValueError, match="nodes must be an int, 2 or more; got 1"):
        as_mixture(VAE.bernoulli(3, 1, hidden=(2,)), 1)
    other = VAE(Gaussian(1), ConditionalGaussian(nn.Linear(3, 2), 1, 3), ConditionalCategorical(nn.Linear(1, 3), 3, 1))
    with pytest.raises(TypeError, match=r"takes a decoder of bits.*got ConditionalCategorical"):
        as_mixture(other)
    counts = VAE.of(2, 1, NegativeBinomial(), hidden=(2,))
    with pytest.raises(TypeError, match="got ConditionallyIndependent of NegativeBinomial"):
        as_mixture(counts)
