r"""How log p falls far outside the data: like that of the base, since networks and log-scales are bounded.

Along x = t u networks of tanh saturate, and so do log-scales: z grows like t, and log p(t u) falls like the base's, not
faster. For a normal base it is ≥ −C (1 + t²)/2, with C ≤ exp(2 · layers · bound) times what activation norms and linear
layers stretch, which may be much; for Student-t bases it is ≥ −Σ (ν + 1) log t − C, where the stretch is within C.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import StandardNormal, StudentT
from flows import (
    ActNorm,
    Chain,
    Flow,
    GaussianAutoregressive,
    glow,
    iaf,
    maf,
    neural_spline_flow,
    real_nvp,
    spline_maf,
)
from tests.cases.transforms import CONTEXT, NARROW, vector
from tests.laws.transforms import randomise

BUILDERS = [real_nvp, glow, neural_spline_flow, maf, iaf, spline_maf]
FAR = [1e4, 1e6, 1e8]


def along_rays(flow: Flow, generator: Generator) -> Tensor:
    """log p(t u) for each t of ``FAR`` and some directions u, ``[3, 5]``."""
    rays = torch.stack([vector(generator, flow.features) for _ in range(5)])
    context = vector(generator, flow.context_features) if flow.context_features else None
    with torch.no_grad():
        return flow.log_prob(torch.stack([t * rays for t in FAR]), context)


@pytest.mark.parametrize("context", [0, CONTEXT])
@pytest.mark.parametrize("features", [1, 4])
@pytest.mark.parametrize("build", BUILDERS)
def test_log_p_falls_like_the_base(
    build: Callable[..., Flow], features: int, context: int, generator: Generator
) -> None:
    normal = randomise(build(features, 3, NARROW, context), generator)
    first, second, third = along_rays(normal, generator)
    # Quadratic: a hundred times the distance, ten thousand times the fall. What is not quadratic is of order t.
    assert (second / first < 1.1e4).all()
    assert (third / second < 1.01e4).all()

    base = StudentT(features, 3.0)
    heavy = randomise(build(features, 3, NARROW, context, base=base), generator)
    first, second, third = along_rays(heavy, generator)
    steepest = float((base.degrees.detach() + 1).sum()) * math.log(100)
    assert (first - second < steepest * 1.01).all()
    assert (second - third < steepest * 1.001).all()


def test_without_bounds_it_falls_off_a_cliff(generator: Generator) -> None:
    """Log-scales without a bound from networks without one: z is exponential in t, and log p is minus infinity."""
    layer = GaussianAutoregressive(4, NARROW, log_scale_bound=None, activation=nn.ReLU)
    flow = randomise(Flow(StandardNormal(4), Chain(ActNorm(4), layer)), generator)
    first, second, _ = along_rays(flow, generator)
    assert ((second / first > 1.1e4) | second.isinf()).any()
