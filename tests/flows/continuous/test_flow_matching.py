"""Flow matching and maximum likelihood as objectives of a fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor

from density import StandardNormal, Training
from flows import Chain, ContinuousTransform, Flow, FlowMatching, MaximumLikelihood, continuous_flow, linear_flow
from tests.flows.continuous.velocities import StraightToNoise, gaussian_log_prob

STD = torch.tensor([0.4, 1.7], dtype=torch.float64)


def gaussian_points(n: int, seed: int = 0) -> Tensor:
    return STD * torch.randn(n, 2, generator=Generator().manual_seed(seed), dtype=torch.float64)


def test_the_objective_is_largest_at_the_conditional_mean_and_known_there() -> None:
    r"""Its value is −E var(z − x | x_t) = −Σ ∫ s²/((1 − t)² s² + t²) dt = −Σ s π/2, and its derivative 0."""
    velocity = StraightToNoise(STD)
    flow = Flow(StandardNormal(2).double(), ContinuousTransform(velocity, 2))
    n = 200_000
    value = FlowMatching()(flow, gaussian_points(n), None, Generator().manual_seed(1))
    assert value.shape == (n,)
    error = float(value.detach().std()) / math.sqrt(n)
    assert abs(float(value.detach().mean()) + float(STD.sum()) * math.pi / 2) < 4 * error
    (slope,) = torch.autograd.grad(value.mean(), velocity.factor)
    # −d/df E‖f v − u‖² at f = 1: of n terms 2 (v·u − ‖v‖²), no larger than 2‖v‖ times the noise of u.
    assert abs(float(slope)) < 4 * 2 * error


def test_points_are_matched_as_they_leave_what_comes_before() -> None:
    flow = Flow(StandardNormal(2).double(), ContinuousTransform(StraightToNoise(STD), 2))
    double = Flow(flow.base, Chain(linear_flow(2, bias=False).double().transform, flow.transform))
    with torch.no_grad():
        double.transform.parts[0].factors.fill_diagonal_(math.log(2.0))
    x = gaussian_points(10)
    ours, theirs = (FlowMatching()(f, y, None, Generator().manual_seed(0)) for f, y in ((double, x), (flow, 2 * x)))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "objective", [FlowMatching(), pytest.param(MaximumLikelihood(looseness=1000.0), marks=pytest.mark.slow)]
)
def test_a_fit_comes_closer_to_the_data(objective: FlowMatching | MaximumLikelihood) -> None:
    """Two clusters, which no Gaussian follows: held-out log p against the best one's."""
    generator = Generator().manual_seed(0)
    x = torch.randn(512, 1, generator=generator) * 0.2 + 2 * torch.randint(2, (512, 1), generator=generator)
    torch.manual_seed(0)
    flow = continuous_flow(1, (24, 24), tolerance=1e-3)
    matching = isinstance(objective, FlowMatching)
    training = Training(epochs=80 if matching else 6, batch_size=128, learning_rate=2e-2 if matching else 5e-2)
    gaussian = gaussian_log_prob(x - x.mean(), x.std(0)).mean()
    flow.fit(x[:400], training, objective=objective, generator=generator)
    assert flow.log_density(x[400:]).mean > gaussian + 0.2


def test_contexts_are_seen() -> None:
    generator = Generator().manual_seed(0)
    context = torch.randn(256, 1, generator=generator)
    x = torch.randn(256, 1, generator=generator) * 0.3 + context
    torch.manual_seed(0)
    flow = continuous_flow(1, (16,), 1, tolerance=1e-3)
    flow.fit(
        x, Training(epochs=40, learning_rate=1e-2), context=100 * context, objective=FlowMatching(), generator=generator
    )
    shifted = flow.log_density(x, context=100 * context).mean - flow.log_density(x, context=-100 * context).mean
    assert shifted > 1


def test_other_transforms_are_refused() -> None:
    with pytest.raises(TypeError, match="got LULinear"):
        linear_flow(2, bias=False).fit(torch.randn(50, 2), objective=FlowMatching())
    with pytest.raises(TypeError, match="got Chain that ends with LULinear"):
        linear_flow(2).fit(torch.randn(50, 2), objective=FlowMatching())
    with pytest.raises(ValueError, match="at least 1"):
        MaximumLikelihood(looseness=0.5)
