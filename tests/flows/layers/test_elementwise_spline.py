"""Splines of each feature by itself: knots, and the start from quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Generator, Tensor
from torch.distributions import LogNormal, Normal, StudentT

from density import StandardNormal, Training
from flows import ActNorm, Chain, ElementwiseSpline, Flow, RationalQuadratic


def test_splines_go_through_their_knots(generator: Generator) -> None:
    spline = RationalQuadratic(6, 4.0)
    x, z = (torch.rand(5, 7, generator=generator, dtype=torch.float64).sort(0).values * 6 - 3 for _ in range(2))
    x, z = (knots + torch.linspace(-0.5, 0.5, 5)[:, None] for knots in (x, z))  # no two of them too close for a bin
    theta = spline.through(x, z)
    assert theta.shape == (spline.parameters, 7)
    # Shares are bounded below by a thousandth of a least bin, which moves knots by as little of the interval.
    value, _ = spline.forward(x, theta[:, None].expand(-1, 5, 7))
    torch.testing.assert_close(value, z, rtol=0, atol=1e-9)


def test_knots_that_lie_outside_or_together_are_moved() -> None:
    spline = RationalQuadratic(4, 2.0)
    theta = spline.through(torch.tensor([[-9.0], [0.0], [0.0]]).double(), torch.tensor([[-1.0], [0.0], [1.0]]).double())
    assert theta.isfinite().all()
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    z, _ = spline.forward(x, theta.expand(-1, 1001))
    assert (z.diff() > 0).all()


def columns(n: int, generator: Generator) -> Tensor:
    """Log-normal, Student-t of 3 degrees, two peaks."""
    normal = torch.randn(4, n, generator=generator, dtype=torch.float64)
    student = torch.as_tensor(stats.t(3).rvs(n, random_state=int(torch.randint(2**31, (1,), generator=generator))))
    side = 2.0 * torch.randint(0, 2, (n,), generator=generator) - 1
    return torch.stack([normal[0].exp(), student, 3 * side + 0.3 * normal[2]], 1)


def test_marginals_start_nearly_normal(generator: Generator) -> None:
    """Of held-out rows, each marginal is near the true density before any step of training; a Gaussian is far."""
    x, test = columns(4000, generator), columns(4000, generator)
    densities: list[Callable[[Tensor], Tensor]] = [
        LogNormal(0.0, 1.0).log_prob,
        StudentT(3.0).log_prob,
        lambda x: torch.logaddexp(*(Normal(mean, 0.3).log_prob(x) for mean in (-3.0, 3.0))) - math.log(2),
    ]
    for feature in range(3):
        train, held_out = x[:, [feature]], test[:, [feature]]
        flow = Flow(StandardNormal(1), Chain(ActNorm(1), ElementwiseSpline(1))).double()
        flow.initialise(train)
        gaussian = Flow(StandardNormal(1), ActNorm(1)).double()
        gaussian.initialise(train)
        true = densities[feature](held_out[:, 0])
        missing = (true.mean() - flow.log_prob(held_out).mean()).item()
        assert missing < 0.35
        assert missing < 0.8 * (true.mean() - gaussian.log_prob(held_out).mean()).item()
        flow.fit(train, Training(epochs=15, learning_rate=0.02, progress=False), generator=generator)
        assert (true.mean() - flow.log_prob(held_out).mean()).item() < 0.15


def test_the_start_is_taken_once(generator: Generator) -> None:
    layer = ElementwiseSpline(3).double()
    x = columns(500, generator)
    assert layer(x)[0].allclose(x)
    layer.initialise(x)
    start = layer.start.clone()
    assert start.abs().max() > 0.1
    layer.initialise(x + 1)
    assert layer.start.equal(start)
    assert not layer.theta.any()


def test_constant_columns_and_ties(generator: Generator) -> None:
    x = torch.cat([torch.zeros(99, 1), (3 * torch.rand(99, 1, generator=generator)).floor()], 1).double()
    flow = Chain(ActNorm(2), ElementwiseSpline(2)).double()
    flow.initialise(x)
    z, log_det = flow(x)
    assert z.isfinite().all()
    assert log_det.isfinite().all()
    torch.testing.assert_close(flow.inverse(z)[0], x, rtol=0, atol=1e-9)
