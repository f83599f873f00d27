"""Products of densities over columns: what they are, on tables of numbers, bits and categories."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from bridge import HalfNormal
from density import (
    Bernoulli,
    BernoulliLikelihood,
    Category,
    Columns,
    ConditionalBernoulli,
    ConditionalGaussian,
    DiagonalGaussian,
    Featured,
    FixedScale,
    GaussianLikelihood,
    Kind,
    LogDensity,
    Measure,
    Product,
    ProductMeasure,
    StandardNormal,
    StudentT,
    TableInput,
    load,
    mlp,
    save,
)
from density.measure import measure_named
from flows import real_nvp
from tests.laws.transforms import randomise

MIXED = [GaussianLikelihood(), Category(3), BernoulliLikelihood(), GaussianLikelihood()]


def table(generator: Generator, n: int = 200) -> Tensor:
    """A number, a category, a bit that follows from it, and a number in other units."""
    code = torch.randint(3, (n, 1), generator=generator)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return torch.cat([noise[:, :1] + 2 * code, code, (code == 1), 1e3 + 50 * noise[:, 1:]], 1)


def by_columns(generator: Generator) -> Product:
    """Parts out of order, with contexts and without one."""
    numbers = ConditionalGaussian(nn.Linear(2, 2), 2, 2, FixedScale(0.5))
    bits = ConditionalBernoulli(nn.Linear(3, 1), 1, 3)
    return randomise(Product([numbers, StudentT(1), bits], [[3, 0], [1], [2]]), generator)


def test_a_product_is_the_sum_over_its_parts(generator: Generator) -> None:
    density = by_columns(generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    x[:, 2] = (x[:, 2] > 0).double()
    context = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    numbers, free, bits = density.parts
    expected = (
        numbers.log_prob(x[:, [3, 0]], context[:, :2])
        + free.log_prob(x[:, [1]])
        + bits.log_prob(x[:, [2]], context[:, 2:])
    )
    torch.testing.assert_close(density.log_prob(x, context), expected, rtol=1e-14, atol=1e-14)
    each = density.log_prob(x.unsqueeze(1), context)
    assert each.shape == (6, 6)
    torch.testing.assert_close(each.diagonal(), expected, rtol=1e-14, atol=1e-14)


def test_draws_are_of_each_context_and_column(generator: Generator) -> None:
    density = by_columns(generator)
    context = 2 * torch.randn(3, 5, generator=generator, dtype=torch.float64)
    x, log_prob = density.sample_with_log_prob(20_000, context=context, generator=generator)
    assert x.shape == (20_000, 3, 4)
    torch.testing.assert_close(density.log_prob(x, context), log_prob, rtol=1e-10, atol=1e-10)
    assert density.sample(5, context=context, generator=generator).shape == (5, 3, 4)
    assert ((x.mean(0) - density.expectation(context)).abs() < 5 * x.std(0) / math.sqrt(len(x))).all()


def test_the_mass_of_a_table_is_one(generator: Generator) -> None:
    """Numbers on a grid (trapezoids of analytic functions), bits and categories summed."""
    columns = Columns([Category(3), GaussianLikelihood(), BernoulliLikelihood()])
    density = randomise(columns.conditional(mlp(2, columns.width(3), (4,)), 3, 2), generator)
    line = torch.linspace(-60, 60, 4001, dtype=torch.float64)
    codes, bits = torch.arange(3, dtype=torch.float64), torch.arange(2, dtype=torch.float64)
    x = torch.cartesian_prod(codes, line, bits)
    context = torch.randn(2, generator=generator, dtype=torch.float64)
    mass = density.log_prob(x, context).exp().sum() * (line[1] - line[0])
    assert abs(mass.item() - 1) < 1e-10


def test_parts_and_columns_must_fit() -> None:
    for columns, words in (
        ([[0, 1], [1]], "each of the columns 0 ... 2 in one part and no other"),
        ([[0, 1], [3]], "each of the columns 0 ... 2"),
        ([[0], [1]], r"StandardNormal \(2\), Bernoulli \(1\); got \[\[0\], \[1\]\]"),
    ):
        with pytest.raises(ValueError, match=words):
            Product([StandardNormal(2), Bernoulli(1)], columns)
    with pytest.raises(TypeError, match="Product takes densities; got Linear"):
        Product([nn.Linear(1, 1)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one part"):
        Product([])


def test_values_are_refused_by_their_columns(generator: Generator) -> None:
    bit, code = BernoulliLikelihood(), Category(3)
    columns = Columns([bit, GaussianLikelihood(), code, bit, code])
    density = columns.conditional(nn.Linear(1, columns.width(5)), 5, 1)
    x = torch.zeros(4, 5)
    density.check_support(x)
    for column, value, words in (
        (3, 0.5, "column 3: ConditionalBernoulli is a"),
        (4, 3.0, "column 4: Category expects"),
    ):
        with pytest.raises(ValueError, match=rf"^Product, of {words}"):
            density.check_support(x.index_fill(1, torch.tensor([column]), value))
    continuous = Product([StandardNormal(1), HalfNormal(2)], [[1], [0, 2]])
    with pytest.raises(ValueError, match=r"Product: HalfNormal expects .*the value at \[1, 2\] is -1"):
        continuous.check_support(torch.tensor([[1.0, -1.0, 1.0], [1.0, 0.0, -1.0]]))


def test_measures_of_products() -> None:
    normal, bits = StandardNormal(2), Bernoulli(1)
    assert Product([normal, StudentT(1)]).measure is Measure.LEBESGUE
    assert Product([bits, Bernoulli(2)]).measure is Measure.COUNTING
    mixed = Product([normal, bits], [[0, 2], [1]]).measure
    assert isinstance(mixed, ProductMeasure)
    assert mixed.value == "Lebesgue (columns 0, 2) × counting (column 1)"
    assert mixed == Product([bits, normal], [[1], [2, 0]]).measure
    assert mixed != Product([normal, bits], [[0, 1], [2]]).measure
    nested = Product([Product([normal, bits]), bits], [[3, 1, 0], [2]]).measure
    assert nested.value == "counting (columns 0, 2) × Lebesgue (columns 1, 3)"
    for measure in (mixed, nested, *Measure):
        assert measure_named(measure.value) == measure
    with pytest.raises(ValueError, match="leaves out columns"):
        measure_named("Lebesgue (columns 0-2) × counting (column 4)")


def test_claims_of_products_say_their_measure_and_compare_within_it() -> None:
    value = torch.zeros(3)

    def claim(measure: Measure | ProductMeasure) -> LogDensity:

        return LogDensity(value, Kind.EXACT, "by hand", measure=measure)

    L, C = Measure.LEBESGUE, Measure.COUNTING
    mixed, other = claim(ProductMeasure((L, C, L))), claim(ProductMeasure((L, L, C)))
    assert "nats, exact (by hand), with respect to Lebesgue (columns 0, 2) × counting (column 1), 3 points" in repr(
        mixed
    )
    assert (mixed - claim(ProductMeasure((L, C, L)))).value.equal(value)
    for foreign in (other, claim(L), claim(C)):
        with pytest.raises(ValueError, match="are in different units"):
            mixed - foreign
        with pytest.raises(ValueError, match="are in different units"):
            LogDensity.concatenate([mixed, foreign])
    with pytest.raises(ValueError, match="bits per dimension are of densities or of masses"):
        mixed.bits_per_dimension(3)


def test_numbers_are_standardised_at_the_first_start_and_categories_are_indicators(generator: Generator) -> None:
    x = table(generator)
    layer = TableInput(MIXED, beside=2).double()
    seen = torch.cat([x, torch.full((len(x), 2), 7.0, dtype=torch.float64)], 1)
    layer.match(seen)
    made = layer(seen)
    assert made.shape == (len(x), layer.width) == (200, 2 + 3 + 1 + 2)
    numbers, indicators, bit, beside = made.split([2, 3, 1, 2], -1)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(2).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(numbers.std(0, correction=0), torch.ones(2).double())
    assert indicators.argmax(-1).equal(x[:, 1].long())
    assert bit.squeeze(1).equal(x[:, 2])
    assert (beside == 7).all()
    layer.match(torch.cat([x[:, :1], 2 - x[:, 1:2] * 0, x[:, 2:], seen[:, 4:]], 1))  # categories may change
    with pytest.raises(ValueError, match="other units"):
        layer.match(1e3 * seen)


def test_tables_are_saved(generator: Generator, tmp_path: Path) -> None:
    columns = Columns(MIXED)
    network = nn.Sequential(columns.encoder_input(4, 1), nn.Linear(7, columns.width(4)))
    density = Featured(network, columns.conditional(nn.Identity(), 4, columns.width(4)).density, 5)
    x, context = table(generator), torch.randn(200, 5, generator=generator, dtype=torch.float64)
    density.double().initialise(x, context)
    save(density, tmp_path / "table.pt")
    again = load(tmp_path / "table.pt")
    assert again.log_prob(x, context).equal(density.log_prob(x, context))


def test_any_densities_make_a_product(generator: Generator) -> None:
    flow = randomise(real_nvp(2, layers=2, hidden=(4,)), generator)
    density = Product([flow, DiagonalGaussian(1).double()], [[2, 0], [1]])
    x = density.sample(5, generator=generator)
    torch.testing.assert_close(density.log_prob(x), flow.log_prob(x[:, [2, 0]]) + density.parts[1].log_prob(x[:, [1]]))
