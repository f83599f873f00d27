"""The rational-quadratic spline against nflows, its definition and hostile numbers."""

from __future__ import annotations

import pytest
import torch
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline
from torch import Generator

from flows import RationalQuadratic, SplineAutoregressive, SplineCoupling
from flows.monotone.spline import SMALLEST, UNIT
from tests.flows.monotone.splines import draws, gradients, pair
from tests.laws.transforms import randomise


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("bins", "bound", "scale"), [(8, 5.0, 1.0), (3, 1.0, 3.0), (16, 20.0, 2.0), (2, 0.3, 1.0)])
def test_it_is_the_function_of_nflows(
    bins: int, bound: float, scale: float, inverse: bool, generator: Generator
) -> None:
    spline = RationalQuadratic(bins, bound)
    theta = draws(generator, spline.parameters, 400, scale=scale)
    x = draws(generator, 400, scale=0.8 * bound)
    widths, heights, raw = theta.split([bins, bins, bins - 1])
    expected, expected_log = unconstrained_rational_quadratic_spline(
        x, widths.T, heights.T, raw.T + UNIT, inverse=inverse, tails="linear", tail_bound=bound
    )
    z, log_derivative = spline.inverse(x, theta) if inverse else spline.forward(x, theta)
    # Forward to rounding; their inverse cancels digits where a bin bends down.
    tolerance = 1e-7 if inverse else 1e-10
    torch.testing.assert_close(z, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(log_derivative, expected_log, rtol=tolerance, atol=tolerance)
    assert (x.abs() > bound).any()


def test_the_log_derivative_is_that_of_autograd(generator: Generator) -> None:
    spline = RationalQuadratic(6, 3.0)
    theta = draws(generator, spline.parameters, 300, scale=2.0)
    for function in (spline.forward, spline.inverse):
        x = draws(generator, 300, scale=2.0).requires_grad_()
        y, log_derivative = function(x, theta)
        (derivative,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(log_derivative, derivative.log(), rtol=1e-9, atol=1e-9)


def test_value_and_derivative_are_continuous_at_every_knot(generator: Generator) -> None:
    bins, bound = 5, 2.0
    spline = RationalQuadratic(bins, bound)
    theta = draws(generator, spline.parameters, 1, scale=1.5)
    widths = theta[:bins, 0].softmax(0) * (1 - bins * SMALLEST) + SMALLEST
    knots = torch.cat([widths.new_zeros(1), widths.cumsum(0)]) * 2 * bound - bound
    step = 1e-9
    below, above = (spline.forward(knots + side, theta.expand(-1, bins + 1)) for side in (-step, step))
    assert (above[0] - below[0]).abs().max() < 100 * step
    assert (above[1] - below[1]).abs().max() < 1e-5
    assert below[1][0] == above[1][-1] == 0
    inner = torch.nn.functional.softplus(theta[2 * bins :, 0] + UNIT) + SMALLEST
    torch.testing.assert_close(above[1][1:-1].exp(), inner, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bound", [8199.158203125, 835907.5625])  # a thousandth of which, 500 times, is rounded
def test_wide_intervals_end_with_derivative_one(bound: float) -> None:
    x = torch.tensor([-bound, -0.999 * bound, 0.999 * bound, bound]).nextafter(torch.zeros(()))
    spline = RationalQuadratic(4, bound)
    theta = torch.zeros(spline.parameters, len(x))
    for function in (spline.forward, spline.inverse):
        assert function(x, theta)[1].abs().max() < 10 * torch.finfo(x.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bound", [0.01, 5.0, 32.0, 50.0])
def test_edges_and_knots_are_inside(dtype: torch.dtype, bound: float, generator: Generator) -> None:
    """At each knot, at its neighbours among the numbers of the type, and at the ends, where nflows 0.14 falls out."""
    bins = 7
    spline = RationalQuadratic(bins, bound)
    theta = draws(generator, spline.parameters, 200, scale=3.0).to(dtype)
    shares = theta[:bins].softmax(0) * (1 - bins * SMALLEST) + SMALLEST
    ends = torch.full((1, 200), bound, dtype=dtype)
    knots = torch.cat([-ends, shares.cumsum(0)[:-1] * 2 * bound - bound, ends])
    points = torch.cat([knots, knots.nextafter(-9 * ends), knots.nextafter(9 * ends)])
    theta = theta[:, None].expand(-1, len(points), -1)
    eps = torch.finfo(dtype).eps
    for function in (spline.forward, spline.inverse):
        y, log_derivative = function(points, theta)
        assert y.isfinite().all()
        assert log_derivative.isfinite().all()
        assert y.abs().max() <= bound * (1 + 4 * eps)
    order = points.argsort(0)
    z = spline.forward(points, theta)[0].gather(0, order)
    assert (z.diff(dim=0) >= -16 * eps * bound).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_round_trips_of_bent_bins(dtype: torch.dtype, generator: Generator) -> None:
    """Steep logits and derivatives: the error of the inverse is that of its argument, times the slope."""
    spline = RationalQuadratic(8, 5.0)
    theta = draws(generator, spline.parameters, 20_000, scale=4.0).to(dtype)
    x = (10 * torch.rand(20_000, generator=generator, dtype=torch.float64) - 5).to(dtype)
    z, log_derivative = spline.forward(x, theta)
    back, back_log = spline.inverse(z, theta)
    eps = torch.finfo(dtype).eps
    # z is rounded to ε·5; where f' is small that is ε·5/f' in x. The spline bends within a bin, hence the factor.
    error = (back - x).abs() / (5 * eps * (1 + (-log_derivative).exp()))
    assert error.max() < 100
    # Bins are down to 0.01 wide, and log f' changes by 1 within one: that error of x, often 10 ε, weighs 10³ ε in it.
    assert (log_derivative + back_log).abs().median() < 5000 * eps


def test_gradients_are_finite_everywhere(generator: Generator) -> None:
    spline = RationalQuadratic(4, 2.0)
    x = torch.tensor([-1e30, -2.0, 2.0, 2.0 + 1e-6, 1e30, 0.0])
    for scale in (1.0, 30.0, 1000.0):
        theta = draws(generator, spline.parameters, len(x), scale=scale).float().requires_grad_()
        for function in (spline.forward, spline.inverse):
            start = x.clone().requires_grad_()
            y, log_derivative = function(start, theta)
            gradients = torch.autograd.grad(y.clamp(-9, 9).sum() + log_derivative.sum(), [start, theta])
            assert all(gradient.isfinite().all() for gradient in gradients), scale
    outside = x.abs() > 2
    assert spline.forward(x, theta)[0][outside].equal(x[outside])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
def test_a_compiled_spline(generator: Generator) -> None:
    """Traced to its operations, without a break."""
    spline = RationalQuadratic(4, 3.0)
    inputs, weights = (
        (draws(generator, 50, scale=2.0), draws(generator, spline.parameters, 50)),
        draws(generator, 2, 50),
    )
    for function, _ in (pair(spline, False), pair(spline, True)):
        fast = torch.compile(function, backend="aot_eager", fullgraph=True)
        found, expected = (gradients(one, inputs, tuple(weights)) for one in (fast, function))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_nan_stays_nan(generator: Generator) -> None:
    spline = RationalQuadratic(4, 2.0)
    for function in (spline.forward, spline.inverse):
        y, _ = function(torch.tensor([torch.nan, 0.5]), torch.zeros(spline.parameters, 2))
        assert y.isnan().tolist() == [True, False]


def test_one_bin_is_the_identity(generator: Generator) -> None:
    """One bin has its ends' derivatives, both 1: no parameter is left to bend it."""
    spline = RationalQuadratic(1, 2.0)
    x = draws(generator, 50)
    z, log_derivative = spline.forward(x, draws(generator, spline.parameters, 50))
    torch.testing.assert_close(z, x, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_derivative, torch.zeros_like(x), rtol=0, atol=1e-13)


def test_construction_refuses() -> None:
    for bins, bound, message in (
        (0, 1.0, "bins must be a positive int"),
        (501, 1.0, "at most 500 bins; got 501"),
        (4, 0.0, "positive finite bound; got 0.0"),
        (4, torch.inf, "positive finite bound; got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            RationalQuadratic(bins, bound)
    net = torch.nn.Linear(1, 3)
    with pytest.raises(ValueError, match=r"\[n, 23\] for n points, logits of widths.*; got \[5, 3\] for n = 5"):
        SplineCoupling([True, False], conditioner=net).forward(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"SplineAutoregressive expects its network to return \[n, 69\]"):
        SplineAutoregressive(3, conditioner=torch.nn.Linear(3, 3)).forward(torch.zeros(5, 3))


def test_a_coupling_by_splines_is_an_autoregression_by_splines(generator: Generator) -> None:
    """Equal splines for the moved features, from a coupling's network as a masked one; zeros for those that pass."""
    coupling = randomise(SplineCoupling([True, True, False], (5,)), generator)
    masked = SplineAutoregressive(3, (5,), context_features=0).double()
    parameters = coupling.spline.parameters
    with torch.no_grad():
        for parameter in masked.conditioner.parameters():
            parameter.zero_()
        first, last = masked.conditioner.stages()[0].linear, masked.conditioner.stages()[-1].linear
        first.mask.copy_(torch.tensor([[True, True, False]]).expand(5, 3))
        last.mask.copy_(torch.tensor([False, False, True]).repeat(parameters)[:, None].expand(-1, 5))
        first.weight[:, :2].copy_(coupling.conditioner[0].weight)
        first.bias.copy_(coupling.conditioner[0].bias)
        last.weight[2::3].copy_(coupling.conditioner[2].weight)
        last.bias[2::3].copy_(coupling.conditioner[2].bias)
    masked.conditioner.arrange(masked.order)
    x = draws(generator, 40, 3, scale=2.0)
    for direction in ("forward", "inverse"):
        expected, actual = getattr(coupling, direction)(x), getattr(masked, direction)(x)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
