"""Latents that are summed over: bits, one-hot vectors, levels, several of them, and numbers beside them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import Featured
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
    Density,
    DiagonalGaussian,
    Independent,
    Kind,
    NetworkScale,
    Product,
    StandardNormal,
)
from lvm import VAE, FiniteMixture, GaussianMixture, HierarchicalVAE, LatentVariableModel
from lvm.evidence import LatentStates, evidence, gap, quadrature
from tests.laws.transforms import randomise

FEATURES = 3


def bernoulli(inputs: int, outputs: int) -> ConditionalBernoulli:
    return ConditionalBernoulli(nn.Linear(inputs, outputs), outputs, inputs)


def gaussian(inputs: int, outputs: int) -> ConditionalGaussian:
    return ConditionalGaussian(nn.Linear(inputs, 2 * outputs), outputs, inputs, NetworkScale())


def of_columns(columns: Columns, inputs: int) -> Density:
    features = len(columns.likelihoods)
    return columns.conditional(nn.Linear(inputs, columns.width(features)), features, inputs)


def of_bits() -> LatentVariableModel:
    return VAE(Bernoulli(4), bernoulli(FEATURES, 4), bernoulli(4, FEATURES))


def of_categories() -> LatentVariableModel:
    """A one-hot vector of three, a bit and a code of four, in columns that are not in their order."""
    columns = [[0, 3, 1], [4], [2]]
    prior = Product([Categorical(3), Bernoulli(1), Independent(1, CategoricalLevels(4))], columns)
    parts = [
        ConditionalCategorical(nn.Identity(), 3, 3),
        ConditionalBernoulli(nn.Identity(), 1, 1),
        CategoricalLevels(4).conditional(nn.Identity(), 1, 4),
    ]
    encoder = Featured(nn.Linear(FEATURES, 8), Product(parts, columns), FEATURES)
    return VAE(prior, encoder, gaussian(5, FEATURES))


def of_levels_above_bits() -> LatentVariableModel:
    """p(x|z_1) of three bits z_1, p(z_1|z_2) of a code z_2."""
    code = Columns([Category(3)])
    return HierarchicalVAE(
        Independent(1, Category(3)),
        [bernoulli(FEATURES, 3), of_columns(code, 3)],
        [gaussian(3, FEATURES), bernoulli(1, 3)],
    )


def of_a_mixture_of_bits() -> LatentVariableModel:
    return VAE(FiniteMixture(3, 2, BernoulliLikelihood()), bernoulli(FEATURES, 3), bernoulli(3, FEATURES))


VALUES = {
    of_bits: [[0.0, 1.0]] * 4,
    of_levels_above_bits: [[0.0, 1.0]] * 3 + [[0.0, 1.0, 2.0]],
    of_a_mixture_of_bits: [[0.0, 1.0]] * 3,
}
CASES = [of_bits, of_categories, of_levels_above_bits, of_a_mixture_of_bits]


def states_of(make: object) -> list[Tensor]:
    """All states, one by one, in plain loops."""
    if make in VALUES:
        every = [list(state) for state in itertools.product(*VALUES[make])]  # type: ignore[index]
    else:
        every = []
        for k, code, bit in itertools.product(range(3), range(4), range(2)):
            one = [float(k == j) for j in range(3)]
            every.append([one[0], one[2], float(code), one[1], float(bit)])
    return [torch.tensor(state, dtype=torch.float64) for state in every]


def case(make: object, generator: Generator) -> tuple[LatentVariableModel, Tensor]:
    model = randomise(make().double(), generator, 0.8)  # type: ignore[operator]
    return model, model.sample(5, generator=generator).detach()


@pytest.mark.parametrize("make", CASES)
def test_sums_are_those_of_plain_loops(make: object, generator: Generator) -> None:
    model, x = case(make, generator)
    claim = evidence(model, x)
    states = states_of(make)
    for row, value in zip(x, claim.value, strict=True):
        terms = [float(model.log_joint(row, state).detach()) for state in states]
        top = max(terms)
        assert abs(float(value) - top - math.log(math.fsum(math.exp(term - top) for term in terms))) < 1e-12
    assert claim.kind is Kind.EXACT
    assert claim.method == f"exact sum over {len(states)} latent values"
    assert claim.numerical_error is None
    # The bound by many draws is below it, and not far.
    assert gap(model, x, draws=200, log_density=claim, generator=generator).difference.mean > 0


@pytest.mark.parametrize("make", CASES)
def test_posteriors_are_those_of_bayes(make: object, generator: Generator) -> None:
    model, x = case(make, generator)
    states = LatentStates(model)
    torch.testing.assert_close(states.log_prob(x), evidence(model, x).value, rtol=1e-13, atol=1e-13)
    posterior = states.posterior(x)
    shares = torch.stack([model.log_joint(x, state) - states.log_prob(x) for state in states.values], 1).exp()
    torch.testing.assert_close(posterior, shares, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(posterior.sum(1), torch.ones(5).double(), rtol=1e-12, atol=0)


def test_gradients_of_log_p_are_means_over_the_posterior(generator: Generator) -> None:
    """∇ log p(x) = E ∇ log p(x, s) under p(s|x) (Fisher's identity), parameter by parameter; and by differences."""
    model, x = case(of_categories, generator)
    states = LatentStates(model)
    parameters = [*model.prior.parameters(), *model.decoder.parameters()]
    gradients = torch.autograd.grad(states.log_prob(x).sum(), parameters)
    share = states.posterior(x).detach()
    by_identity = torch.autograd.grad((share * states.log_joint(x)).sum(), parameters)
    for one, other in zip(gradients, by_identity, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    moved = parameters[-1]
    with torch.no_grad():
        moved[0] += 1e-6
        above = states.log_prob(x).sum()
        moved[0] -= 2e-6
        below = states.log_prob(x).sum()
    assert abs(float(above - below) / 2e-6 - float(gradients[-1][0])) < 1e-6


def test_as_many_states_as_are_allowed(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """65,536 of them; of one bit, p(0) + p(1) = 1."""
    model = VAE(Bernoulli(16), bernoulli(1, 16), bernoulli(16, 1))
    randomise(model.double(), generator, 0.5)
    claim = quadrature(model, torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert claim.method == "exact sum over 65536 latent values"
    assert abs(float(claim.value.exp().sum()) - 1) < 1e-12
    beyond = VAE(Bernoulli(17), bernoulli(1, 17), bernoulli(17, 1))
    with pytest.raises(ValueError, match="at most 65536 states of discrete latents; VAE has 131072"):
        quadrature(beyond, torch.zeros(1, 1))
    assert evidence(beyond, torch.zeros(1, 1), generator=generator).kind is Kind.LOWER


def test_a_context_may_move_the_prior(generator: Generator) -> None:
    prior, encoder = bernoulli(2, 3), bernoulli(FEATURES + 2, 3)
    model = VAE(prior, encoder, bernoulli(5, FEATURES), context_features=2)
    randomise(model.double(), generator, 0.8)
    context = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    x = model.sample(1, context=context, generator=generator)[0].detach()
    value = evidence(model, x, context=context).value
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    one_by_one = torch.stack([model.log_joint(x, state.expand(4, 3), context) for state in states]).logsumexp(0)
    torch.testing.assert_close(value, one_by_one.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(LatentStates(model).log_prob(x, context).detach(), value, rtol=1e-12, atol=1e-12)


def mixed(numbers: int, generator: Generator) -> LatentVariableModel:
    """A one-hot vector of two and a bit, and numbers between them."""
    columns = [[0, 1], [*range(2, 2 + numbers)], [2 + numbers]]
    prior = Product([Categorical(2), StandardNormal(numbers), Bernoulli(1)], columns)
    parts = [
        ConditionalCategorical(nn.Identity(), 2, 2),
        ConditionalGaussian(nn.Identity(), numbers, 2 * numbers, NetworkScale()),
        ConditionalBernoulli(nn.Identity(), 1, 1),
    ]
    encoder = Featured(nn.Linear(FEATURES, 3 + 2 * numbers), Product(parts, columns), FEATURES)
    decoder = nn.Sequential(nn.Linear(3 + numbers, 6), nn.Tanh(), nn.Linear(6, 2 * FEATURES))
    model = VAE(prior, encoder, ConditionalGaussian(decoder, FEATURES, 3 + numbers, NetworkScale()))
    return randomise(model.double(), generator, 0.5)


@pytest.mark.parametrize("numbers", [1, 2])
def test_sums_of_integrals(numbers: int, generator: Generator) -> None:
    """Against the trapezoidal rule on a grid over all of the continuous latents, state by state."""
    model = mixed(numbers, generator)
    x = model.sample(4, generator=generator).detach()
    claim = quadrature(model, x, tolerance=1e-8, generator=generator)
    step = 0.1
    axis = torch.arange(-8, 8, step, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * numbers).reshape(-1, numbers)
    total = x.new_full((4,), -math.inf)
    for hot, bit in itertools.product(range(2), range(2)):
        one = torch.eye(2, dtype=torch.float64)[hot].expand(len(z), 2)
        places = torch.cat([one, z, torch.full((len(z), 1), float(bit), dtype=torch.float64)], 1)
        with torch.no_grad():
            values = model.log_joint(x.unsqueeze(1), places).logsumexp(1)
        total = torch.logaddexp(total, values + numbers * math.log(step))
    assert (claim.value - total).abs().max() < 1e-8
    assert claim.numerical_error is not None
    assert (claim.numerical_error <= 1e-8).all()
    assert claim.kind is Kind.EXACT
    how = f"exact sum over 4 latent values, {numbers}-dimensional adaptive quadrature to 1e-08 nats"
    assert claim.method.startswith(how)
    if numbers == 1:
        assert evidence(model, x, generator=generator).kind is Kind.EXACT
        with pytest.raises(ValueError, match="LatentStates counts discrete latents; VAE has continuous ones"):
            LatentStates(model)


def test_a_mixture_in_closed_form(generator: Generator) -> None:
    """x = z + noise of a component s, z normal: p(x) is a mixture of two normal densities."""
    prior = Product([Categorical(2), DiagonalGaussian(1)])
    network = nn.Linear(3, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[-2.0, 2.0, 1.0], [-1.0, 0.5, 0.0]]))
        network.bias.zero_()
    parts = [ConditionalCategorical(nn.Identity(), 2, 2), ConditionalGaussian(nn.Identity(), 1, 2, NetworkScale())]
    encoder = Featured(nn.Linear(1, 4), Product(parts), 1)
    model = VAE(prior, encoder, ConditionalGaussian(network, 1, 3, NetworkScale(bound=None))).double()
    with torch.no_grad():
        prior.factors[0].logits.copy_(torch.tensor([0.3, -0.4], dtype=torch.float64))  # type: ignore[operator]
    x = torch.linspace(-6, 6, 7, dtype=torch.float64).unsqueeze(1)
    variances = 1 + torch.tensor([-1.0, 0.5], dtype=torch.float64).mul(2).exp()
    expected = GaussianMixture.from_parameters(
        torch.tensor([0.3, -0.4], dtype=torch.float64).softmax(0),
        torch.tensor([[-2.0], [2.0]], dtype=torch.float64),
        variances[:, None, None],
    ).log_prob(x)
    claim = quadrature(model, x, tolerance=1e-8, generator=generator)
    assert (claim.value - expected.detach()).abs().max() < 1e-8


def test_what_cannot_be_summed(generator: Generator) -> None:
    with pytest.raises(ValueError, match="at most 2 continuous latents beside discrete ones"):
        quadrature(mixed(3, generator), torch.zeros(1, FEATURES, dtype=torch.float64))
    many = Product([Bernoulli(9), StandardNormal(1)])
    parts = [ConditionalBernoulli(nn.Identity(), 9, 9), ConditionalGaussian(nn.Identity(), 1, 2, NetworkScale())]
    model = VAE(many, Featured(nn.Linear(FEATURES, 11), Product(parts), FEATURES), gaussian(10, FEATURES))
    with pytest.raises(ValueError, match="at most 256 states of discrete latents with an integral each"):
        quadrature(model, torch.zeros(1, FEATURES))
    assert evidence(model, torch.zeros(1, FEATURES), generator=generator).kind is Kind.LOWER
