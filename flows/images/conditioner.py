"""Networks of images as the conditioners of couplings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from density.checks import check_count, find_reference
from density.evaluating import evaluating
from density.families.network import OutOfPlace, leaves_input_alone
from density.images.networks import ImageNetwork, channels_last
from density.images.shape import ImageShape
from density.rebuildable import Rebuildable
from flows.images.squeezes import squeeze
from flows.layers.conditional.coupling import AffineCoupling, Coupling, SplineCoupling
from flows.monotone.spline import RationalQuadratic


class Sight(NamedTuple):
    """What a network sees and says of images of which a mask passes a part.

    Attributes:
        shape: of the images.
        by_channel: whether a channel passes as a whole or not at all.
        passed: channels that the network sees: those that pass, or all, zero where a pixel does not.
        moved: channels that it speaks of: those that do not pass, or all.
    """

    shape: ImageShape
    by_channel: bool
    passed: int
    moved: int

    @classmethod
    def of(cls, mask: Tensor, owner: str) -> Sight:
        """What follows from a mask; TypeError or ValueError in the name of an owner if it is none."""
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 3:
            what = f"{mask.dtype} of shape {list(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
            raise TypeError(f"{owner} expects a mask of booleans [C, H, W], True for what passes; got {what}")
        shape = ImageShape.of(mask.shape, owner)
        planes = mask.flatten(1)
        first = planes[:, 0]
        if not bool((planes == first[:, None]).all()):
            return cls(shape, False, shape.channels, shape.channels)
        passed = int(first.sum())
        return cls(shape, True, passed, shape.channels - passed)


class ContextPlanes(NamedTuple):
    """Contexts as further channels of images.

    Attributes:
        features: width of the context.
        channels: how many it makes.
        order: of its features, channel by channel; None where each stands at every pixel.
    """

    features: int
    channels: int
    order: Tensor | None

    @classmethod
    def of(cls, context: int | Sequence[int], shape: ImageShape, owner: str) -> ContextPlanes:
        """Of vectors of a width, or of images of a shape, squeezed until they are as large as those of another."""
        if not isinstance(context, Sequence):
            width = check_count(context, f"{owner}: context", least=0)
            return cls(width, width, None)
        whole = now = ImageShape.of(context, f"{owner}: context")
        order = torch.arange(whole.features, device="cpu")
        while now[1:] != shape[1:] and now != now.squeezed:
            order, now = order[squeeze(now).order.cpu()], now.squeezed
        if now[1:] != shape[1:]:
            raise ValueError(
                f"{owner} expects context images that squeezes make as large as {shape.height}×{shape.width}; "
                f"got the shape {tuple(whole)}"
            )
        return cls(whole.features, now.channels, order)


class ImageConditioner(Rebuildable, OutOfPlace):
    r"""A network of images that says, from the features of an image that pass, how the others are moved.

    A coupling gives it rows ``[n, d_1 + C]`` of passed features and contexts. It makes images of them, which the
    network maps to P numbers at every pixel and channel, and picks those of the moved features: ``[n, P d_2]``. Where
    whole channels pass, the network sees these, and speaks of the others; else it sees all, with zeros where something
    is moved. The numbers of a context vector stand at every pixel, in as many further channels; context images are
    squeezed until they have as many pixels.

    Args:
        mask: booleans ``[C, H, W]``, True for what passes.
        network: images ``[n, inputs, H, W]`` to ``[n, outputs, H, W]``, the first parameter of every channel, then the
            second, …; :meth:`channels` says how many. It gets them channels last, which is faster on CPUs and GPUs.
        parameters: P, 2 for affine couplings.
        context: width C of a context vector, or the shape of a context image.

    Raises:
        TypeError: the mask is none.
        ValueError: the network returns something else for such images, nothing passes and there is no context, nothing
            is moved, or the context does not fit.

    Cost: that of the network.

    >>> mask = torch.tensor([True, False])[:, None, None].expand(2, 4, 4)
    >>> ImageConditioner(mask, nn.Conv2d(1, 2, 3, padding=1))(torch.zeros(5, 16)).shape
    torch.Size([5, 32])
    """

    passed: Tensor
    moved: Tensor
    _context_order: Tensor | None

    def __init__(self, mask: Tensor, network: nn.Module, parameters: int = 2, context: int | Sequence[int] = 0) -> None:
        super().__init__()
        owner = type(self).__name__
        self.sight = sight = Sight.of(mask, owner)
        self.parameters_each = check_count(parameters, f"{owner}: parameters")
        planes = ContextPlanes.of(context, sight.shape, owner)
        self.context_features, self.context_channels = planes.features, planes.channels
        flat, place = mask.flatten(), torch.get_default_device()
        self.register_buffer("passed", flat.nonzero()[:, 0].to(place))
        self.register_buffer("moved", (~flat).nonzero()[:, 0].to(place))
        order = None if planes.order is None else planes.order.to(place)
        self.register_buffer("_context_order", order, persistent=False)
        self.network = network
        inputs, outputs = self.channels(mask, self.parameters_each, context)
        with torch.no_grad(), evaluating(network):
            images = torch.zeros(1, inputs, sight.shape.height, sight.shape.width)
            reference = find_reference(network)
            output: object = network(images if reference is None else images.to(reference))
        expected = [1, outputs, sight.shape.height, sight.shape.width]
        if not isinstance(output, Tensor) or list(output.shape) != expected:
            got = list(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(
                f"{owner} expects its network to return {expected} for an image {list(images.shape)}; got {got}"
            )

    @staticmethod
    def channels(mask: Tensor, parameters: int = 2, context: int | Sequence[int] = 0) -> tuple[int, int]:
        """How many channels the network of a mask is given, and how many it returns.

        >>> ImageConditioner.channels(torch.tensor([True, False, False])[:, None, None].expand(3, 4, 4))
        (1, 4)
        """
        owner = "ImageConditioner"
        sight = Sight.of(mask, owner)
        if not sight.moved:
            raise ValueError(f"{owner} expects a mask with a False; all True leaves nothing to transform")
        inputs = sight.passed + ContextPlanes.of(context, sight.shape, owner).channels
        if not inputs:
            raise ValueError(f"{owner} expects a mask with a True, or a context; all False leaves nothing to see")
        return inputs, parameters * sight.moved

    def forward(self, rows: Tensor) -> Tensor:
        """The parameters ``[n, P d_2]`` of the moved features, from rows ``[n, d_1 + C]``."""
        (channels, height, width), n = self.sight.shape, rows.shape[0]
        passed = rows[:, : rows.shape[1] - self.context_features]
        if not self.sight.by_channel:
            passed = rows.new_zeros(n, channels * height * width).index_copy(1, self.passed, passed)
        images = passed.reshape(n, self.sight.passed, height, width)
        if self.context_features:
            context = rows[:, -self.context_features :]
            if self._context_order is None:
                planes = context[..., None, None].expand(-1, -1, height, width)
            else:
                planes = context[:, self._context_order].reshape(n, self.context_channels, height, width)
            images = torch.cat([images, planes], 1)
        images = channels_last(images)
        output: Tensor = self.network(images if leaves_input_alone(self.network) else images.clone())
        if self.sight.by_channel:
            return output.flatten(1)
        return output.flatten(1).unflatten(1, (self.parameters_each, -1))[..., self.moved].flatten(1)


def image_coupling(
    mask: Tensor, network: ImageNetwork, context: int | Sequence[int] = 0, spline: RationalQuadratic | None = None
) -> Coupling:
    """A coupling of flat images with an image network as its conditioner.

    Args:
        mask: booleans ``[C, H, W]``, True for what passes: :func:`~flows.images.masks.checkerboard`,
            :func:`~flows.images.masks.channel_halves`.
        network: makes the network from the numbers of channels at its two ends.
        context: width C of a context vector, which the network sees at every pixel, or the shape of a context image.
        spline: bins and bound of a spline coupling; None for an affine one.

    Raises:
        TypeError, ValueError: as for :class:`ImageConditioner` and the couplings.

    Cost: one pass of the network either way.

    >>> from flows.images.masks import checkerboard
    >>> from density.images.networks import residual_network
    >>> layer = image_coupling(checkerboard((1, 4, 4), 0), residual_network)
    >>> type(layer).__name__, layer.features
    ('AffineCoupling', 16)
    """
    parameters = 2 if spline is None else spline.parameters
    made = network(*ImageConditioner.channels(mask, parameters, context))
    conditioner = ImageConditioner(mask, made, parameters, context)
    if spline is None:
        return AffineCoupling(mask.flatten(), (), conditioner.context_features, conditioner=conditioner)
    return SplineCoupling(mask.flatten(), (), conditioner.context_features, spline, conditioner)
