"""A multi-scale flow is a chain of bijections and slices: what leaves at a level is drawn given what goes on.

On the flow's side one chain moves all features, those that have left by nothing more, to one base. On the other side
every level is a bijection and a ``Slice`` whose density of the rest is made of the level's last coupling, with the
features that go on as its context, over its own part of the base.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Generator, Tensor

from bridge import DeltaLink, LinkChain, Slice, TightLayeredModel
from density import StudentT
from flows import AffineCoupling, Chain, Flow, OnFeatures, convolutional_network, image_flow
from tests.laws.transforms import randomise

Record = Callable[[str, float, float], None]

# Sums of some hundred terms of size 1 to 10, in two orders.
VALUE, GRADIENT = 1e-12, 1e-10


def part_of(base: StudentT, features: Tensor) -> StudentT:
    part = StudentT(len(features)).double()
    with torch.no_grad():
        part.log_degrees.copy_(base.log_degrees[features])
    return part


def sliced(flow: Flow) -> TightLayeredModel:
    """The flow by levels, sharing its layers."""
    chain, here, links = flow.transform, torch.arange(flow.features), []
    while isinstance(chain.parts[-1], OnFeatures):
        *moving, coupling, deeper = chain.parts
        going_on = deeper.chosen.tolist()
        assert coupling.passed.tolist() == going_on
        given = AffineCoupling([False] * len(coupling.moved), (), len(going_on), conditioner=coupling.conditioner)
        rest = Flow(part_of(flow.base, here[len(going_on) :]), given)
        links += [DeltaLink(Chain(*moving)), Slice(chain.features, going_on, rest)]
        chain, here = deeper.transform, here[: len(going_on)]
    return TightLayeredModel(part_of(flow.base, here), LinkChain(*links, DeltaLink(chain)))


@pytest.mark.parametrize(("shape", "levels"), [((1, 4, 8), 3), ((3, 6, 2), 2)])
def test_multi_scale_flow_is_slices(
    shape: tuple[int, int, int], levels: int, generator: Generator, record_measurement: Record
) -> None:
    network = partial(convolutional_network, hidden=(6, 6))
    flow = randomise(image_flow(shape, levels, 2, network), generator, 0.2)
    model = sliced(flow)
    assert len(model.link.links) == 2 * levels - 1
    x = torch.randn(16, flow.features, generator=generator, dtype=torch.float64)
    values = flow.log_prob(x), model.log_prob(x)
    assert values[0].std() > 0.1
    error = ((values[1] - values[0]) / values[0]).detach().abs().max()
    record_measurement("11  a multi-scale flow = its levels joined by slices", float(error), VALUE)
    shared = list(flow.transform.parameters())
    gradients = [torch.autograd.grad(value.mean(), shared) for value in values]
    scale = max(float(gradient.abs().max()) for gradient in gradients[0])
    worst = max(float((a - b).abs().max()) / scale for a, b in zip(*gradients, strict=True))
    record_measurement("11b their gradients", worst, GRADIENT)
    drawn = model.sample(5, generator=generator)
    torch.testing.assert_close(flow.log_prob(drawn), model.log_prob(drawn), rtol=VALUE, atol=VALUE)
