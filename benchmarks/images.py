"""Multi-scale Glow against normflows and nflows.

Same levels, steps and networks in float32. normflows has our weights, and agreement is checked in float64 before
anything is timed; nflows has as many weights, and lets the other half of the channels go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.contestants import (
    Contestant,
    Contestants,
    agreeing,
    built,
    notes_of,
    peer,
    present,
    without,
    works_of,
)
from benchmarks.flows import UNBOUNDED
from benchmarks.timing import Race
from density import StandardNormal
from density.images.shape import ImageShape
from flows import Flow, convolutional_network, image_flow


def glow(shape: ImageShape, levels: int, steps: int, hidden: int) -> Flow:
    """The flow, away from its start."""
    network = partial(convolutional_network, hidden=(hidden, hidden), activation=nn.ReLU)
    flow = image_flow(shape, levels, steps, network, base=StandardNormal)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            parameter.add_(
                0.01 * torch.randn_like(parameter) if "network" in name else 0.1 * torch.randn_like(parameter)
            )
    return flow


def glows(
    shape: tuple[int, int, int], levels: int, steps: int, hidden: int, rows: int, device: torch.device
) -> Iterator[Race]:
    """Training, evaluation and draws."""

    def build() -> Contestants:
        images = ImageShape(*shape)
        flow = glow(images, levels, steps, hidden)
        return {
            "ours": Contestant(flow, flow.log_prob, flow.sample),
            "normflows": present(lambda: peer("normflows").multi_scale(flow, images, hidden)),
            "nflows": present(lambda: peer("nflows").multi_scale(images, levels, steps, hidden)),
        }

    of_rows = (rows, ImageShape(*shape).features)
    agreed = agreeing(*built(build, of_rows, torch.float64, device), {"normflows": UNBOUNDED})
    made, x = built(build, of_rows, torch.float32, device)
    made = without(made, agreed)
    size = f"{'×'.join(map(str, shape))}, {levels} levels × {steps} steps, {hidden} channels, n={rows}"
    for job, works in zip(("training step", "log_prob", "sample"), works_of(made, x), strict=True):
        yield Race(f"{job}, multi-scale Glow, {size}", works, notes_of(made))
