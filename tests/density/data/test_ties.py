"""Columns on which a continuous density can climb without end are named, and those that rounding alone ties are not."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from bridge import DeltaLink, FlowVAE, GaussianRelaxation, ReLU, UniformDequantisation, layered, with_flow_prior
from density import Density, DiagonalGaussian, Model, StandardNormal, TiedColumns, Training
from density.data.ties import FEWEST_ROWS, ties
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
    found = ties(x.to(dtype))
    assert found
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
    assert not ties(x.to(dtype))


def test_rounding_to_the_dtype_is_let_pass_and_coarser_rounding_is_not(generator: Generator) -> None:
    x = 1e4 + normal(generator, 4096, 1)
    in_single = x.float()
    assert len(in_single.unique()) < 3700, "rounding ties a tenth of the rows"
    assert not ties(in_single)
    assert set(ties((10 * in_single).round() / 10).repeated) == {0}
    assert set(ties(in_single.double()).repeated) == {0}, "in float64 the same values are no rounding"


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_outlier_does_not_make_columns_alike(dtype: torch.dtype, generator: Generator) -> None:
    x = normal(generator, 60, 3)
    x[-1] = 1e6
    assert not ties(x.to(dtype))
    x[:, 1] = 0.1 * x[:, 0] - 5
    assert ties(x.to(dtype)).copies == {1: 0}


def test_few_rows_say_nothing() -> None:
    x = torch.arange(FEWEST_ROWS - 1.0).unsqueeze(1)
    assert not ties(x)
    assert ties(torch.cat([x, x])).integers == (0,)


def test_many_columns_in_blocks(generator: Generator) -> None:
    x = normal(generator, 100, 600).float()
    x[:, 5] = x[:, 599]
    x[:, 300] = x[:, 300].round()
    found = ties(x)
    assert found.integers == (300,)
    assert found.copies == {599: 5}


def test_a_long_list_is_cut(generator: Generator) -> None:
    words = ties(normal(generator, 100, 30).round()).in_words(lambda column: f"c{column}")
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
