"""A coupling flow with LU-linear layers between, whose weights the peers take over where that can be."""

from __future__ import annotations

import torch
from torch import nn

from density import StandardNormal, mlp
from flows import AffineCoupling, Chain, Flow, LULinear

BOUND = 5.0  # of log σ


def network(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    """The conditioner that everybody gets."""
    return mlp(inputs, outputs, (hidden, hidden), nn.ReLU)


def coupling_flow(features: int, hidden: int, steps: int) -> Flow:
    """Steps of LU and affine coupling, away from the identity."""
    mask = torch.arange(features) < features // 2
    parts = []
    for _ in range(steps):
        linear = LULinear(features)
        with torch.no_grad():
            linear.factors.normal_(0, 0.3 / features**0.5)
        coupling = AffineCoupling(mask, (hidden, hidden), activation=nn.ReLU)
        with torch.no_grad():
            for parameter in coupling.conditioner[-1].parameters():
                parameter.normal_(0, 0.3 / hidden**0.5)
        parts += [linear, coupling]
    return Flow(StandardNormal(features), Chain(*parts))


def steps_of(flow: Flow) -> list[tuple[LULinear, AffineCoupling]]:
    """The pairs of layers of :func:`coupling_flow`."""
    return list(zip(flow.transform.parts[::2], flow.transform.parts[1::2], strict=True))
