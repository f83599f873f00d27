"""Columns on which a continuous density can climb without end are named, and those that rounding alone ties are not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Generator, Tensor

from bridge import DeltaLink, FlowVAE, GaussianRelaxation, ReLU, UniformDequantisation, layered, with_flow_prior
from density import Density, DiagonalGaussian, Model, StandardNormal, TiedColumns, Training, select
from density.data.findings import FEWEST_ROWS, examine
from density.data.ties import Said, said_once, warn_of_ties
from flows import Flow, LULinear, linear_flow, maf
from lvm import PPCA, VAE, GaussianMixture

ONCE = Training(epochs=1, progress=False)
DTYPES = (torch.float32, torch.float64)


def normal(generator: Generator, n: int, features: int) -> Tensor:
    return torch.randn(n, features, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# What is one
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [20, 200, 4096, 20_000])
def test_every_kind_of_column_is_named(n: int, dtype: torch.dtype, generator: Generator) -> None:
    x = normal(generator, n, 9)
    x[:, 1] = (3 * x[:, 1]).round()
    x[:, 2] = 0.1 * (10 * x[:, 2]).round() if n > 20 else 0.5 * (2 * x[:, 2]).round()
    x[:, 3] = 7.25
    x[:, 5] = -3 * x[:, 0] + 2
    x[:, 6] = torch.where(x[:, 6] < 0, 0.0, x[:, 6])  # as rainfall
    x[:, 8] = x[:, 0]
    found = examine(x.to(dtype))
    assert found
    assert not found.duplicates
    assert found.combinations == {}
    assert found.atoms[6].value == 0
    assert found.constant == (3,)
    assert found.integers == (1,)
    assert set(found.repeated) == {2, 6}
    assert found.copies == {5: 0, 8: 0}
    assert found.rows == min(n, 4000 if n > 4096 else n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [16, 500, 4096])
def test_continuous_columns_are_none(n: int, dtype: torch.dtype, generator: Generator) -> None:
    """Heavy tails, offsets of 10⁴ standard deviations, numbers too large for fractions, correlation of 0.9999."""
    x = normal(generator, n, 8)
    x[:, 1] = 1e4 + x[:, 1]
    x[:, 2] = (5 * x[:, 2]).exp()
    x[:, 3] = 1e8 * x[:, 3]  # in float32 integers, as most numbers of this size are
    x[:, 4] = torch.tan(1.5 * x[:, 4])
    x[:, 5] = torch.rand(n, generator=generator)
    x[:, 6] = x[:, 0] + 0.01 * x[:, 6]
    x[:, 7] = 1e-30 * x[:, 7]
    assert not examine(x.to(dtype))


def test_rounding_to_the_dtype_is_let_pass_and_coarser_rounding_is_not(generator: Generator) -> None:
    x = 1e4 + normal(generator, 4096, 1)
    in_single = x.float()
    assert len(in_single.unique()) < 3700, "rounding ties a tenth of the rows"
    assert not examine(in_single)
    assert set(examine((10 * in_single).round() / 10).repeated) == {0}
    assert set(examine(in_single.double()).repeated) == {0}, "in float64 the same values are no rounding"


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_outlier_does_not_make_columns_alike(dtype: torch.dtype, generator: Generator) -> None:
    x = normal(generator, 60, 3)
    x[-1] = 1e6
    assert not examine(x.to(dtype))
    x[:, 1] = 0.1 * x[:, 0] - 5
    assert examine(x.to(dtype)).copies == {1: 0}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [40, 500, 5000])
def test_atoms_are_named_with_value_and_share(n: int, dtype: torch.dtype, generator: Generator) -> None:
    """Three quarters of zeros, a quarter of one value among continuous ones; nine levels have none."""
    x = normal(generator, n, 4)
    x[: 3 * n // 4, 0] = 0.0
    x[torch.randperm(n, generator=generator)[: n // 4], 1] = 0.5
    x[:, 2] = 0.1 * torch.randint(9, (n,), generator=generator)
    x = x[torch.randperm(n, generator=generator)]
    found = examine(x.to(dtype))
    assert set(found.repeated) == {0, 1, 2}
    assert found.repeated[2] == 9
    assert set(found.atoms) == {0, 1}
    assert (found.atoms[0].share, found.atoms[1].share) == pytest.approx((0.75, 0.25), abs=0.03)
    assert (found.atoms[0].value, found.atoms[1].value) == (0.0, 0.5)
    assert found.steps[2] == pytest.approx(0.1, rel=1e-5)
    words = " ".join([found.in_words(), *found.cures()])
    assert "0 (75% are 0), 1 (25% are 0.5) have atoms" in words or n == 5000
    assert "as wide as a level (dequantise) to 2 (0.1)" in words
    assert "leave out 0, 1" in words


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [30, 500, 5000])
def test_linear_combinations_are_named_with_their_parts(n: int, dtype: torch.dtype, generator: Generator) -> None:
    x = normal(generator, n, 7) * 10.0 ** torch.arange(-3.0, 4.0) + 5
    x[:, 4] = 2000 * x[:, 0] - 3 * x[:, 2] + 1
    x[:, 6] = x[:, 1] + x[:, 3] / 10 + x[:, 5] / 1000
    found = examine(x.to(dtype))
    assert found.combinations == {4: (0, 2), 6: (1, 3, 5)}
    assert "columns 4 (of 0, 2), 6 (of 1, 3, 5) are linear combinations" in found.in_words()
    assert found.cures() == ["drop 4, 6: constant, or known from others"]
    nearly = x.clone()
    nearly[:, 4] += 0.03 * x[:, 4].std() * normal(generator, n, 1)[:, 0]
    assert set(examine(nearly.to(dtype)).combinations) == {6}


@pytest.mark.parametrize("dtype", DTYPES)
def test_repeated_rows_are_counted_and_columns_judged_without_them(dtype: torch.dtype, generator: Generator) -> None:
    x = normal(generator, 300, 3)
    x[:, 2] = (10 * x[:, 2]).round() / 10
    x = torch.cat([x, x[:40]])[torch.randperm(340, generator=generator)]
    found = examine(x.to(dtype))
    assert found.duplicates == 40
    assert set(found.repeated) == {2}, "the others repeat nothing but rows"
    assert "40 rows repeat another" in found.in_words()
    assert "drop repeated rows" in found.cures()


def test_rows_of_few_levels_repeat_by_chance(generator: Generator) -> None:
    x = torch.randint(3, (500, 2), generator=generator).double()
    assert examine(x).duplicates == 0
    assert examine(x).integers == (0, 1)


def test_a_few_repeated_rows_and_hundreds_of_columns_say_nothing(generator: Generator) -> None:
    x = normal(generator, 300, 200)
    assert not examine(torch.cat([x, x[:2]]))
    assert not examine(normal(generator, 40, 60)), "more columns than rows: any of them is a combination"


def test_few_rows_say_nothing() -> None:
    x = torch.arange(FEWEST_ROWS - 1.0).unsqueeze(1)
    assert not examine(x)
    assert examine(torch.cat([x, x])).integers == (0,)


def test_many_columns_in_blocks(generator: Generator) -> None:
    x = normal(generator, 100, 600).float()
    x[:, 5] = x[:, 599]
    x[:, 300] = x[:, 300].round()
    found = examine(x)
    assert found.integers == (300,)
    assert found.copies == {599: 5}


def test_a_long_list_is_cut(generator: Generator) -> None:
    words = examine(normal(generator, 100, 30).round()).in_words(lambda column: f"c{column}")
    assert words.startswith("columns c0, c1, ")
    assert words.endswith("c11, and 18 more hold integers")


# ---------------------------------------------------------------------------------------------------------------------
# Who says so
# ---------------------------------------------------------------------------------------------------------------------

FITTED: dict[str, Callable[[], Model]] = {
    "flow": lambda: linear_flow(3),
    "flow of VAE": lambda: FlowVAE(linear_flow(3)),
    "layered": lambda: layered(StandardNormal(3), DeltaLink(LULinear(3))),
    "relaxation": lambda: GaussianRelaxation(linear_flow(3), 0.1),
    "VAE": lambda: VAE.gaussian(3, 1, hidden=(4,)),
    "VAE with a flow prior": lambda: with_flow_prior(VAE.gaussian(3, 1, hidden=(4,)), maf(1, 1, (4,))),
}


@pytest.mark.parametrize("name", FITTED)
def test_a_gradient_fit_warns_once_of_columns_and_cure(name: str, generator: Generator) -> None:
    x = normal(generator, 50, 3).float()
    model = FITTED[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, ONCE, generator=generator)  # type: ignore[call-arg]
    x[:, 2] = (2 * x[:, 2]).round()
    with pytest.warns(TiedColumns) as said:
        model.fit(x, ONCE, generator=generator)  # type: ignore[call-arg]
    (warning,) = said
    assert warning.filename == __file__, "it points to the caller's line"
    text = str(warning.message)
    assert text.startswith(f"{type(model).__name__}.fit: ")
    assert "column 2 holds integers" in text
    assert "dequantise" in text
    assert "UniformDequantisation" in text


def test_a_search_warns_once_and_of_what_is_new(generator: Generator) -> None:
    x = normal(generator, 60, 3).float()
    x[:, 2] = (2 * x[:, 2]).round()
    candidates = {name: (partial(maf, 3, 1, (4,)), ONCE) for name in "abc"}
    with pytest.warns(TiedColumns) as said:
        select(candidates, x, generator=generator)
    assert len(said) == 1
    wider = torch.cat([x, x[:, :1].round()], 1)
    assert [told.count("columns 2, 3 hold integers") for told in warned([x, x[:50], wider], set())] == [0, 1]
    assert len(warned([x, x], None)) == 2, "outside of a search each fit warns"


def warned(data: list[Tensor], said: Said | None) -> list[str]:
    """What fits to these data say, of a search or by themselves."""
    with warnings.catch_warnings(record=True) as found, nullcontext() if said is None else said_once(said):
        warnings.simplefilter("always")
        for rows in data:
            warn_of_ties(rows, maf(rows.shape[1], 1, (4,)))
    return [str(each.message) for each in found]


def test_models_of_masses_have_nothing_to_say(generator: Generator) -> None:
    x = (2 * normal(generator, 50, 2)).round().float()
    layered(DiagonalGaussian(2), UniformDequantisation(2)).fit(x, ONCE, generator=generator)
    VAE.bernoulli(2, 1, hidden=(4,)).fit((x > 0).float(), ONCE, generator=generator)
    layered(DiagonalGaussian(2), ReLU(2)).fit(x.abs(), ONCE, generator=generator)


def test_the_warning_is_true(generator: Generator) -> None:
    """A flow gains on held-out rows too, by narrowing, where a third of them repeat a value; with noise it does not."""
    x = normal(generator, 3000, 1)
    x[::3] = 0.5

    def gain(rows: Tensor) -> float:
        base: Density = StandardNormal(1).double()
        values = []
        for width in (1e-3, 1e-9):
            # Half of the mass in a bump of that width at 1/2: what a flow flexible enough comes to.
            matrix, bias = torch.tensor([[1 / width]]).double(), torch.tensor([-0.5 / width]).double()
            flow = Flow(base, LULinear.from_matrix(matrix, bias))
            bump = flow.log_prob(rows)
            values.append(torch.logaddexp(bump, base.log_prob(rows)).mean().item() - math.log(2))
        return values[1] - values[0]

    assert gain(x) == pytest.approx(math.log(1e6) / 3, abs=0.02)
    noisy = x.clone()
    noisy[::3] += 0.1 * torch.rand(1000, 1, generator=generator, dtype=torch.float64)
    assert gain(noisy) < 0.1


def test_models_with_a_closed_form_say_it_in_their_own_words(generator: Generator) -> None:
    x = normal(generator, 50, 3)
    x[:, 2] = x[:, 1]
    with pytest.raises(ValueError, match="the likelihood has no maximum"):
        PPCA(3, 2).fit(x)
    GaussianMixture(3, 2).fit(x, generator=generator)  # its ridge keeps it


def test_copies_of_rows_are_found_wherever_they_stand(generator: Generator) -> None:
    """In more rows than are looked at for everything else, of which no two neighbours are."""
    x = torch.randn(10_000, 3, generator=generator)
    assert examine(x.repeat_interleave(2, 0)).duplicates == 10_000
    assert examine(torch.cat([x, x])).duplicates == 10_000
    assert not examine(x)


def test_many_nearly_dependent_columns_are_independent(generator: Generator) -> None:
    common = torch.randn(400, 1, generator=generator)
    assert not examine(common + 1e-3 * torch.randn(400, 60, generator=generator)).combinations
