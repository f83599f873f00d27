"""Small parts: the shared network, standardisation, the support of discrete densities, checks at the edge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor, nn

from density import (
    Bernoulli,
    Categorical,
    ConditionalBernoulli,
    ConditionalCategorical,
    ConditionalGaussian,
    Density,
    DiagonalGaussian,
    FixedScale,
    History,
    Measure,
    Rescaled,
    Standardisation,
    StandardNormal,
    mlp,
)
from density.checks import check_data, reference


def test_mlp_layers() -> None:
    net = mlp(3, 2, (5, 7), nn.Tanh)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [tuple(p.shape) for p in net.parameters()] == [(5, 3), (5,), (7, 5), (7,), (2, 7), (2,)]
    assert net(torch.zeros(4, 6, 3)).shape == (4, 6, 2)
    assert [type(layer) for layer in mlp(3, 2, ())] == [nn.Linear]


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 2), "inputs"), ((3, -1), "outputs"), ((3, 2, (4, 0)), r"hidden\[1\]")]
)
def test_mlp_widths_are_positive(arguments: tuple[int, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive int"):
        mlp(*arguments)


def test_standardisation_is_mean_and_population_deviation(generator: Generator) -> None:
    x = 3 + 5 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    standardise = Standardisation(2).double()
    assert standardise(x).equal(x)
    standardise.match(x)
    y = standardise(x)
    torch.testing.assert_close(y.mean(0), torch.zeros_like(y[0]), rtol=0, atol=1e-14)
    torch.testing.assert_close(y.square().mean(0), torch.ones_like(y[0]), rtol=1e-14, atol=0)


def test_standardisation_is_taken_once_and_kept_in_the_state(generator: Generator) -> None:
    x = torch.randn(50, 2, generator=generator)
    standardise, other = Standardisation(2), Standardisation(2)
    standardise.match(x)
    first = standardise(x)
    standardise.match(2 * x + 3)
    assert standardise(x).equal(first)
    other.load_state_dict(standardise.state_dict())
    other.match(2 * x + 3)
    assert other(x).equal(first)


@pytest.mark.parametrize(("scale", "shift"), [(1e3, 0.0), (1e-3, 0.0), (1.0, 1e3)])
def test_standardisation_refuses_other_units(scale: float, shift: float, generator: Generator) -> None:
    x = torch.randn(50, 2, generator=generator)
    standardise = Standardisation(2)
    standardise.match(x)
    with pytest.raises(ValueError, match=r"in other units: column 0 .* Build a new model"):
        standardise.match(scale * x + shift)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 1000, 20_001])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e8 + 0.1, 7.7e-9])
def test_constant_columns_keep_their_scale(value: float, n: int, dtype: torch.dtype) -> None:
    standardise = Standardisation(1).to(dtype)
    x = torch.full((n, 1), value, dtype=dtype)
    standardise.match(x)
    assert standardise.scale.item() == 1.0
    assert standardise(x).abs().max() == 0


def test_small_scales_are_not_constant(generator: Generator) -> None:
    x = 1e-8 * torch.randn(100, 1, generator=generator)
    standardise = Standardisation(1)
    standardise.match(x)
    assert standardise.scale.item() == pytest.approx(1e-8, rel=0.3)


def test_a_discrete_density_is_not_rescaled() -> None:
    with pytest.raises(ValueError, match="expects a continuous density; Bernoulli is discrete"):
        Rescaled(Bernoulli(2))


def test_rescaled_is_its_density_until_it_is_matched(generator: Generator) -> None:
    x = torch.randn(5, 2, generator=generator)
    assert Rescaled(StandardNormal(2)).log_prob(x).equal(StandardNormal(2).log_prob(x))


@pytest.mark.parametrize("density", [Bernoulli(2), ConditionalBernoulli(nn.Linear(1, 2), 2, 1)])
def test_bits_are_bits(density: Bernoulli) -> None:
    density.check_support(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    assert density.measure is Measure.COUNTING
    for bad in (0.5, -1.0, 2.0, 1e-9):
        with pytest.raises(ValueError, match=r"distribution over \{0, 1\}; got other values, for example"):
            density.check_support(torch.tensor([[0.0, 1.0], [1.0, bad]]))


def test_one_hot_vectors_are_one_hot() -> None:
    density = Categorical(3)
    density.check_support(density.enumerate())
    assert density.measure is Measure.COUNTING
    for bad in ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [2.0, -1.0, 0.0]):
        with pytest.raises(ValueError, match="one-hot vectors of size 3"):
            density.check_support(torch.tensor([bad]))


def test_continuous_densities_live_everywhere() -> None:
    for density in (StandardNormal(2), DiagonalGaussian(2), Rescaled(StandardNormal(2))):
        density.check_support(torch.tensor([[0.3, -1e9]]))


def test_impossible_categories_have_no_mass() -> None:
    density = Categorical(3)
    with torch.no_grad():
        density.logits.copy_(torch.tensor([0.0, 0.0, -math.inf]))
    assert density.log_prob(density.enumerate()).tolist() == pytest.approx([-math.log(2), -math.log(2), -math.inf])
    assert density.sample(1000)[:, 2].sum() == 0


def test_log_odds_without_limit() -> None:
    density = Bernoulli(2)
    with torch.no_grad():
        density.logits.copy_(torch.tensor([500.0, -500.0]))
    assert density.log_prob(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == [0.0, -500.0]


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (
            ConditionalBernoulli(nn.Linear(3, 4), 2, 3),
            r"ConditionalBernoulli expects .* \[n, 2\].*; got \[7, 4\] for n = 7",
        ),
        (
            ConditionalCategorical(nn.Linear(3, 4), 2, 3),
            r"ConditionalCategorical expects .* \[n, 2\].*; got \[7, 4\] for n = 7",
        ),
        (
            ConditionalGaussian(nn.Linear(3, 4), 2, 3, FixedScale()),
            r"ConditionalGaussian .* \[n, 2\].*; got \[7, 4\] for n = 7",
        ),
    ],
)
def test_networks_of_the_wrong_width_are_named(density: ConditionalGaussian, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        density.sample(2, context=torch.zeros(7, 3))
    with pytest.raises(ValueError, match=message):
        density.log_prob(torch.zeros(2), torch.zeros(7, 3))


@pytest.mark.parametrize("features", [0, -1, 2.0])
def test_discrete_densities_have_features(features: int) -> None:
    for make in (
        Bernoulli,
        Categorical,
        lambda k: ConditionalBernoulli(nn.Linear(3, 2), k, 3),
        lambda k: ConditionalCategorical(nn.Linear(3, 2), k, 3),
        lambda k: ConditionalCategorical(nn.Linear(3, 2), 2, k),
    ):
        with pytest.raises(ValueError, match="must be a positive int"):
            make(features)


def test_a_module_without_numbers_has_no_dtype() -> None:
    with pytest.raises(ValueError, match="register a buffer"):
        reference(nn.Identity())


def test_the_first_bad_value_is_located() -> None:
    x = torch.zeros(4, 3)
    x[2, 1], x[3, 0] = math.inf, math.nan
    with pytest.raises(ValueError, match=r"row 2, column 1 is inf \(2 of 12 values are not finite\). Remove or impute"):
        check_data(x, 3, "VAE")


@pytest.mark.parametrize("x", [torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, 3, dtype=torch.bool)])
def test_only_floating_point_is_data(x: Tensor) -> None:
    with pytest.raises(TypeError, match="VAE expects x to be floating point"):
        check_data(x, 3, "VAE")


def test_history_rows() -> None:
    history = History([1.0, 2.0], [0.5, 0.25])
    assert history.rows() == [
        {"step": 0, "objective": 1.0, "validation": 0.5},
        {"step": 1, "objective": 2.0, "validation": 0.25},
    ]
    assert History([1.0]).rows() == [{"step": 0, "objective": 1.0}]
    assert History().rows() == []


@pytest.mark.parametrize(
    "density",
    [
        ConditionalGaussian(nn.Linear(3, 4), 2, 3),
        ConditionalBernoulli(nn.Linear(3, 2), 2, 3),
        ConditionalCategorical(nn.Linear(3, 2), 2, 3),
    ],
)
def test_batches_that_do_not_broadcast_are_named(density: Density) -> None:
    with pytest.raises(ValueError, match=r"batch shapes that broadcast; got x \[4, 2\] and context \[3, 3\]"):
        density.log_prob(torch.eye(2).repeat(2, 1), torch.zeros(3, 3))
