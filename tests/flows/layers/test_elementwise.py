"""Activation norm on hostile data, and the fixed elementwise maps."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Generator, Tensor

from density import StandardNormal
from flows import ActNorm, Affine, Chain, Flow, Inverse, Logit, LULinear, Sigmoid
from tests.cases.transforms import vector

DTYPES = [torch.float64, torch.float32]


def columns(generator: Generator, n: int, scales: list[float], offsets: list[float], dtype: torch.dtype) -> Tensor:
    noise = torch.randn(n, len(scales), generator=generator, dtype=torch.float64, device=generator.device)
    return (noise * torch.tensor(scales, dtype=torch.float64) + torch.tensor(offsets, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_initialisation_standardises(dtype: torch.dtype, generator: Generator) -> None:
    x = columns(generator, 500, [1.0, 30.0, 1e-3], [0.0, -7.0, 2.0], dtype)
    layer = ActNorm(3).to(dtype)
    z = layer.initialise(x)
    eps = torch.finfo(dtype).eps
    # shift is rounded to eps·|mean|, which is up to 2e3 standard deviations here.
    assert z.mean(0).abs().max() <= 1e4 * eps
    assert (z.std(0, correction=0) - 1).abs().max() <= 100 * eps
    assert z.equal(layer.forward(x)[0])
    assert not z.requires_grad


def test_initialisation_happens_once(generator: Generator) -> None:
    layer = ActNorm(2).double()
    assert not layer.initialised
    x = columns(generator, 50, [1.0, 2.0], [3.0, 4.0], torch.float64)
    layer.initialise(x)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    assert state["initialised"]
    layer.initialise(2 * x + 1)
    assert all(tensor.equal(state[name]) for name, tensor in layer.state_dict().items())
    other = ActNorm(2).double()
    other.load_state_dict(state)
    other.initialise(2 * x + 1)
    assert other.mean.equal(layer.mean)


@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [
        (1.0, 1e8, torch.float64),
        (1e-8, 1.0, torch.float64),
        (1e-8, 0.0, torch.float32),
        (1e-30, 0.0, torch.float32),  # squares underflow
        (1e30, 0.0, torch.float32),  # squares overflow
        (1e-200, 0.0, torch.float64),
        (1e200, -1e200, torch.float64),
        (1e3, 1e8, torch.float32),  # the data itself comes in steps of 8
    ],
)
def test_initialisation_survives(scale: float, offset: float, dtype: torch.dtype, generator: Generator) -> None:
    x = columns(generator, 1000, [scale], [offset], dtype)
    z = ActNorm(1).to(dtype).initialise(x)
    # The shift is a number of this dtype, so it is off by up to half a step of the offset.
    step = torch.finfo(dtype).eps * abs(offset) / scale
    assert z.mean().abs() <= step + 100 * torch.finfo(dtype).eps
    assert (z.double().std(correction=0) - 1).abs() <= 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e8, 1e-30])
def test_constant_columns_keep_scale_one(value: float, dtype: torch.dtype, generator: Generator) -> None:
    x = columns(generator, 7, [1.0, 0.0], [0.0, value], dtype)
    layer = ActNorm(2).to(dtype)
    z = layer.initialise(x)
    assert layer.std[1] == 1
    assert (z[:, 1] == 0).all()
    # Constant but for the last digit, as sums in another order leave it.
    x[3, 1] *= 1 + torch.finfo(dtype).eps
    layer = ActNorm(2).to(dtype)
    layer.initialise(x)
    assert layer.std[1] == 1


def test_one_row_is_constant(generator: Generator) -> None:
    layer = ActNorm(3).double()
    z = layer.initialise(vector(generator, 3))
    assert (z == 0).all()
    assert (layer.std == 1).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_initialise_refuses_what_is_not_finite(bad: float) -> None:
    x = torch.zeros(4, 2)
    x[2, 1] = bad
    layer = ActNorm(2)
    with pytest.raises(ValueError, match=f"finite data; row 2, column 1 is {bad}"):
        layer.initialise(x)
    with pytest.raises(ValueError, match="at least one row"):
        layer.initialise(torch.zeros(0, 2))
    assert not layer.initialised


def test_a_chain_initialises_each_part_on_what_reaches_it(generator: Generator) -> None:
    first, second = ActNorm(2).double(), ActNorm(2).double()
    linear = LULinear.from_matrix(torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64))
    chain = Chain(first, Chain(linear, second))
    x = columns(generator, 300, [1.0, 2.0], [3.0, 4.0], torch.float64)
    z = chain.initialise(x)
    for y in (first.forward(x)[0], z):
        torch.testing.assert_close(y.mean(0), torch.zeros(2, dtype=y.dtype), rtol=0, atol=1e-13)
        torch.testing.assert_close(y.std(0, correction=0), torch.ones(2, dtype=y.dtype), rtol=0, atol=1e-13)
    assert not z.requires_grad


def test_an_inverse_does_not_initialise_inside(generator: Generator) -> None:
    norm = ActNorm(2).double()
    Inverse(norm).initialise(columns(generator, 30, [1.0, 2.0], [3.0, 4.0], torch.float64))
    assert not norm.initialised


def test_standardise(generator: Generator) -> None:
    x = columns(generator, 100, [2.0, 0.0, 1.0], [1.0, 0.1, 1e8], torch.float64)
    z, log_det = Affine.standardise(x).forward(x)
    expected = np.asarray(x[:, [0, 2]])
    np.testing.assert_allclose(z[:, [0, 2]], scipy.stats.zscore(expected), rtol=0, atol=1e-7)
    assert (z[:, 1] == 0).all()
    np.testing.assert_allclose(log_det[0], -np.log(expected.std(0)).sum(), rtol=1e-7)


def test_affine_keeps_the_precision_of_its_numbers() -> None:
    scale = torch.tensor([1.0, 2.0], dtype=torch.float64)
    z, _ = Affine(0.1, scale).forward(torch.zeros(2, dtype=torch.float64))
    assert z.tolist() == [-0.1, -0.05]
    assert Affine(torch.zeros(2), 3).forward(torch.ones(2))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("shift", "scale", "message"),
    [
        (0.0, 0.0, "no scale of 0"),
        (0.0, torch.tensor([1.0, 0.0]), "no scale of 0"),
        (torch.nan, 1.0, "finite numbers"),
        (0.0, torch.inf, "finite numbers"),
        (torch.zeros(2), torch.ones(3), r"one width; got \[2, 3\]"),
        (torch.zeros(2, 2), 1.0, r"a number or of shape \[D\]"),
        (torch.zeros(0), 1.0, r"a number or of shape \[D\]"),
    ],
)
def test_affine_refuses(shift: float | Tensor, scale: float | Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Affine(shift, scale)


@pytest.mark.parametrize("x", [[[1.0, 2.0], [torch.nan, 1.0]], []])
def test_standardise_refuses(x: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"finite data|at least one row"):
        Affine.standardise(torch.tensor(x).reshape(-1, 2))


def test_logit_agrees_with_scipy_into_the_corners() -> None:
    x = torch.tensor([1e-300, 1e-12, 0.3, 0.5, 1 - 1e-9, 1 - 2**-53], dtype=torch.float64)[:, None]
    z, log_det = Logit().forward(x)
    numbers = x[:, 0].numpy()
    np.testing.assert_allclose(z[:, 0], scipy.special.logit(numbers), rtol=1e-14)
    np.testing.assert_allclose(log_det, -np.log(numbers) - np.log1p(-numbers), rtol=1e-14)


def test_sigmoid_agrees_with_scipy_and_stays_inside() -> None:
    x = torch.tensor([-800.0, -700.0, -40.0, 0.0, 3.0, 40.0, 800.0], dtype=torch.float64)[:, None]
    z, log_det = Sigmoid().forward(x)
    assert ((z > 0) & (z < 1)).all()
    numbers = x[:, 0].numpy()
    np.testing.assert_allclose(z[:, 0], scipy.special.expit(numbers), rtol=1e-14, atol=3e-308)
    np.testing.assert_allclose(log_det, scipy.stats.logistic.logpdf(numbers), rtol=1e-14)
    back, _ = Sigmoid().inverse(z)  # what a flow samples it can also evaluate
    assert back.isfinite().all()
    narrow = torch.tensor([-200.0, 20.0, 200.0])
    assert ((Sigmoid().forward(narrow)[0] > 0) & (Sigmoid().forward(narrow)[0] < 1)).all()


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, 1.5, torch.inf])
def test_logit_names_the_first_bad_value(bad: float) -> None:
    x = torch.full((3, 2), 0.5)
    x[1, 0] = x[2, 1] = bad
    message = rf"expects values in \(0, 1\); the value at \[1, 0\] is {bad:g} \(2 of 6 are outside\)"
    with pytest.raises(ValueError, match=f"^Logit {message}"):
        Logit().check_domain(x)
    with pytest.raises(ValueError, match=f"^Sigmoid.inverse {message}"):
        Sigmoid().check_image(x)
    with pytest.raises(ValueError, match=f"^Chain.inverse: Sigmoid.inverse {message}"):
        Chain(Affine(0.0, 1.0), Sigmoid()).check_image(x)


def test_a_chain_asks_each_part_about_what_reaches_it() -> None:
    pixels = Chain(Affine(0.0, 256.0), Chain(Logit(), Affine(0.0, 2.0)))
    pixels.check_domain(torch.tensor([[0.5, 255.5]]))
    with pytest.raises(ValueError, match=r"Logit expects values in \(0, 1\); the value at \[0, 1\] is 1\.01172"):
        pixels.check_domain(torch.tensor([[0.5, 259.0]]))
    assert Chain(Affine(0.0, 2.0), LULinear(2)).domain is None
    assert Chain(Affine(0.0, 2.0), Sigmoid()).domain is None


def test_a_base_outside_the_image_draws_nothing(generator: Generator) -> None:
    """A normal base has mass where no x leads: there is no such sample to give."""
    flow = Flow(StandardNormal(2), Sigmoid())
    for draw in (flow.sample, flow.sample_with_log_prob):
        with pytest.raises(ValueError, match=r"Sigmoid\.inverse expects values in \(0, 1\)"):
            draw(100, generator=generator)


def test_a_flow_on_the_unit_interval(generator: Generator) -> None:
    """The logit-normal density, also where samples round onto the edge, and in units of its own data."""
    flow = Flow(StandardNormal(1), Logit())
    x = torch.tensor([[1.5], [0.3], [0.0], [1.0]])
    expected = scipy.stats.norm.logpdf(scipy.special.logit(0.3)) - np.log(0.3 * 0.7)
    np.testing.assert_allclose(flow.log_prob(x), [-np.inf, expected, -np.inf, -np.inf], rtol=1e-6)
    assert flow.log_prob(flow.sample(10_000, generator=generator)).isfinite().all()
    with pytest.raises(ValueError, match="Logit expects values"):
        flow.log_density(x)
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), flow.log_prob(x))


def test_every_row_of_a_fit_is_looked_at(generator: Generator) -> None:
    """Also those that data-dependent starts, of 4096 rows at most, do not see."""
    x = torch.rand(5000, 1, generator=generator) * 0.9 + 0.05
    x[4567] = 1.25
    flow = Flow(StandardNormal(1), Chain(Logit(), LULinear(1)))
    before = [p.clone() for p in flow.parameters()]
    with pytest.raises(ValueError, match=r"Logit expects values in \(0, 1\); the value at \[4567, 0\] is 1\.25 "):
        flow.fit(x)
    assert all(p.equal(q) for p, q in zip(flow.parameters(), before, strict=True))
