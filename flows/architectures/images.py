"""Multi-scale flows of images. Points are flat images ``[*batch, C·H·W]``, channel by channel, as every flow has them.

They are densities of real numbers. Grey levels are integers, which ``bridge`` dequantises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from density.checks import check_count
from density.families.student import StudentT
from density.images.networks import ImageNetwork, convolutional_network, residual_network
from density.images.shape import ImageShape
from flows.architectures.arrangements import Mixing, random_rotation
from flows.architectures.steps import Base, flow_of
from flows.chain import Chain
from flows.flow import Flow
from flows.images.conditioner import image_coupling
from flows.images.masks import channel_halves, checkerboard
from flows.images.squeezes import squeeze
from flows.layers.by_feature.activation_norm import ActNorm
from flows.layers.on_features import OnFeatures
from flows.layers.pixelwise import PixelWise
from flows.monotone.spline import RationalQuadratic
from flows.transform import Transform

ROTATION: Mixing = random_rotation()
Scale = Callable[[ImageShape, bool], tuple[list[Transform], ImageShape]]


def image_flow(
    shape: Sequence[int],
    levels: int = 2,
    steps: int = 8,
    network: ImageNetwork = convolutional_network,
    context: int | Sequence[int] = 0,
    *,
    linear: Mixing = ROTATION,
    spline: RationalQuadratic | None = None,
    base: Base = StudentT,
) -> Flow:
    """A multi-scale Glow: at each level a squeeze and steps of activation norm, linear layer and coupling.

    Kingma & Dhariwal 2018, arXiv:1807.03039, fig. 2b. Norm and linear layer are one affine map of the channels, the
    same at every pixel. After each level but the last the second half of the channels leaves. The last coupling has
    moved them given the first half: with a normal base they are Gaussian given what goes on, as in the paper.

    A level halves the sides that are even: 28×28 has levels of 14×14 and 7×7, and a third of 7×7 again.

    Args:
        shape: of the images, (C, H, W).
        levels: how many.
        steps: how many of them at each level.
        network: makes a coupling's network from the numbers of channels at its two ends:
            :func:`~density.images.networks.convolutional_network`,
            :func:`~density.images.networks.residual_network`, or one's own; ``functools.partial`` sets its sizes.
        context: width C of a context vector, which every coupling sees at every pixel, or the shape of context images,
            such as those to be dequantised, which are squeezed to each level's size. Standardised by ``fit``.
        linear: makes the linear layer of each step from the number of channels: by default a random rotation, held as
            :class:`~flows.LULinear`.
        spline: bins and bound of spline couplings; None for affine ones.
        base: density of z, or what makes it from the width C·H·W. By default Student-t distributions of learned tails,
            by which one image unlike the training data costs a few nats.

    Raises:
        TypeError, ValueError: a count is out of range, or there are more levels than the shape has room for.

    Cost: one pass of each network for ``log_prob``, and one for a sample.

    >>> import torch
    >>> flow = image_flow((1, 8, 8), levels=2, steps=2)
    >>> flow.log_prob(torch.zeros(5, 64)).shape
    torch.Size([5])
    """
    owner = "image_flow"
    steps = check_count(steps, f"{owner}: steps")

    def scale(shape: ImageShape, last: bool) -> tuple[list[Transform], ImageShape]:
        inner = shape.squeezed
        if inner.channels < 2:
            raise ValueError(
                f"{owner}: one channel of {shape.height}×{shape.width} pixels has neither an even side to squeeze nor "
                "a second channel to couple; take fewer levels, or pad the images"
            )
        parts: list[Transform] = [] if inner == shape else [squeeze(shape)]
        for _ in range(steps):
            affine = Chain(ActNorm(inner.channels), linear(inner.channels))
            coupling = image_coupling(channel_halves(inner, 0), network, context, spline)
            parts += [PixelWise(affine, inner.pixels), coupling]
        return parts, inner

    return _multi_scale(shape, levels, scale, base, owner)


def image_nvp(
    shape: Sequence[int],
    levels: int = 2,
    steps: int = 3,
    network: ImageNetwork = residual_network,
    context: int | Sequence[int] = 0,
    *,
    spline: RationalQuadratic | None = None,
    base: Base = StudentT,
) -> Flow:
    """A multi-scale Real NVP: couplings with checkerboard masks, a squeeze, couplings with channel masks.

    Dinh et al. 2017, arXiv:1605.08803, §3.6, with an activation norm of the channels before each coupling. After each
    level but the last the second half of the channels leaves; the last has checkerboards alone, one more of them.

    Args:
        steps: how many couplings of each kind at a level; at least 2, so that every pixel moves.
        shape, levels, network, context, spline, base: as for :func:`image_flow`.

    Raises:
        TypeError, ValueError: as for :func:`image_flow`.

    Cost: one pass of each network for ``log_prob``, and one for a sample.

    >>> import torch
    >>> flow = image_nvp((1, 8, 8), levels=2, steps=2)
    >>> flow.log_prob(torch.zeros(5, 64)).shape
    torch.Size([5])
    """
    owner = "image_nvp"
    steps = check_count(steps, f"{owner}: steps", least=2)

    def coupled(shape: ImageShape, masks: Callable[[ImageShape, int], Tensor], count: int) -> list[Transform]:
        parts: list[Transform] = []
        for number in range(count):
            coupling = image_coupling(masks(shape, number), network, context, spline)
            parts += [PixelWise(ActNorm(shape.channels), shape.pixels), coupling]
        return parts

    def scale(shape: ImageShape, last: bool) -> tuple[list[Transform], ImageShape]:
        inner = shape.squeezed
        if shape.pixels < 2 or (not last and inner.channels < 2):
            raise ValueError(
                f"{owner}: {shape.channels} channels of {shape.height}×{shape.width} pixels leave nothing to couple or "
                "to squeeze; take fewer levels, or pad the images"
            )
        if last:
            return coupled(shape, checkerboard, steps + 1), shape
        return [*coupled(shape, checkerboard, steps), squeeze(shape), *coupled(inner, channel_halves, steps)], inner

    return _multi_scale(shape, levels, scale, base, owner)


def _multi_scale(shape: Sequence[int], levels: int, scale: Scale, base: Base, owner: str) -> Flow:
    """A flow of scales, each on the first half of the channels that the one before leaves."""
    whole = ImageShape.of(shape, owner)
    levels = check_count(levels, f"{owner}: levels")

    def chain(shape: ImageShape, levels: int) -> Chain:
        parts, inner = scale(shape, levels == 1)
        if levels > 1:
            going_on = inner._replace(channels=inner.channels // 2)
            parts.append(OnFeatures(inner.features, range(going_on.features), chain(going_on, levels - 1)))
        return Chain(*parts)

    return flow_of(chain(whole, levels), whole.features, base)
