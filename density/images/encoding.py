"""Convolutional networks from images to vectors and from vectors to images, of any height and width."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from density.checks import check_count
from density.data.blocks import in_blocks
from density.data.joined import parted
from density.families.network import OutOfPlace
from density.images.networks import ResidualBlock, channels_last
from density.images.shape import ImageShape
from density.rebuildable import Rebuildable

SCALARS_IN_CACHE = 2**22
SCALARS_AT_ONCE = 2**28


class ImageEncoder(Rebuildable, OutOfPlace):
    """A convolutional network from flat images ``[n, C·H·W]`` to ``outputs`` numbers each.

    At each scale a 3×3 convolution of stride 2, which halves the sides, rounded up, and residual blocks; then a linear
    map of all that is left. Blocks start as the identity, so that nothing is normalised, neither over a batch, in which
    points would see each other, nor over an image, which would lose its brightness and contrast.

    Args:
        shape: of the images, (C, H, W).
        outputs: how many numbers.
        channels: of each scale, from the largest images to the smallest; at least one.
        blocks: residual blocks at each scale.
        activation: before each convolution but the first, and before the linear map.
        context_features: width of a context behind each image, ``[n, C·H·W + context_features]``, whose numbers stand
            at every pixel, in as many further channels.

    Raises:
        TypeError, ValueError: not a shape, a count is out of range, or there is no scale.

    Cost: O(number of weights) a pixel of each scale.

    >>> ImageEncoder((1, 7, 5), 4, channels=(8, 16))(torch.zeros(3, 35)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        shape: Sequence[int],
        outputs: int,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        activation: Callable[[], nn.Module] = nn.SiLU,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.shape = whole = ImageShape.of(shape, owner)
        context_features = check_count(context_features, f"{owner}: context_features", least=0)
        scales = _scales(whole, channels, owner)
        self._widest = max(scale.features for scale in scales)
        layers: list[nn.Module] = []
        inputs = whole.channels + context_features
        for scale in scales:
            layers += [nn.Conv2d(inputs, scale.channels, 3, stride=2, padding=1)]
            layers += [*_blocks(scale.channels, blocks, activation, owner), activation()]
            inputs = scale.channels
        last = nn.Linear(scales[-1].features, check_count(outputs, f"{owner}: outputs"))
        self.network = nn.Sequential(*layers, nn.Flatten(), last)

    def forward(self, rows: Tensor) -> Tensor:
        """The numbers ``[n, outputs]`` of images with contexts behind them."""
        return _in_blocks(self._numbers, rows, self._widest)

    def _numbers(self, rows: Tensor) -> Tensor:
        x, context = parted(rows, self.shape.features)
        images = x.reshape(-1, *self.shape)
        if context is not None:
            planes = context[..., None, None].expand(-1, -1, self.shape.height, self.shape.width)
            images = torch.cat([images, planes], 1)
        numbers: Tensor = self.network(channels_last(images))
        return numbers


class ImageDecoder(Rebuildable, OutOfPlace):
    """A convolutional network from vectors ``[n, inputs]`` to images ``[n, numbers · C, H, W]``.

    The mirror image of :class:`ImageEncoder`: a linear map to the smallest images, then at each scale residual blocks,
    each pixel repeated in a block of 2×2, of which an odd side drops its last line, and a 3×3 convolution. Transposed
    convolutions of stride 2 would give neighbouring pixels unequal numbers of weights, which is seen as a checkerboard
    (Odena et al. 2016, distill.pub/2016/deconv-checkerboard), and would have to be told of odd sides.

    Args:
        inputs: width of the vectors.
        shape: of the images, (C, H, W).
        numbers: of each pixel and channel: the first for all of them, then the second, …, as a likelihood's parameters
            stand.
        channels, blocks: as for :class:`ImageEncoder`, from the largest images to the smallest.
        activation: before each convolution.

    Raises:
        TypeError, ValueError: not a shape, a count is out of range, or there is no scale.

    Cost: O(number of weights) a pixel of each scale.

    >>> ImageDecoder(4, (1, 7, 5), numbers=2, channels=(8, 16))(torch.zeros(3, 4)).shape
    torch.Size([3, 2, 7, 5])
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        numbers: int = 1,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        whole = ImageShape.of(shape, owner)
        outputs = whole._replace(channels=check_count(numbers, f"{owner}: numbers") * whole.channels)
        scales = _scales(whole, channels, owner)
        self.smallest = scales[-1]
        self.first = nn.Linear(check_count(inputs, f"{owner}: inputs"), self.smallest.features)
        steps = list(zip(reversed(scales), [*reversed(scales[:-1]), outputs], strict=True))
        self._widest = max(scale.channels * following.pixels for scale, following in steps)
        layers: list[nn.Module] = []
        for scale, following in steps:
            layers += [*_blocks(scale.channels, blocks, activation, owner), activation()]
            layers += [Enlarged(following.height, following.width)]
            layers += [nn.Conv2d(scale.channels, following.channels, 3, padding=1)]
        self.network = nn.Sequential(*layers)

    def forward(self, vectors: Tensor) -> Tensor:
        """The images ``[n, numbers · C, H, W]``."""
        return _in_blocks(self._images, vectors, self._widest)

    def _images(self, vectors: Tensor) -> Tensor:
        images: Tensor = self.network(channels_last(self.first(vectors).unflatten(1, self.smallest)))
        return images


class Enlarged(Rebuildable, OutOfPlace):
    """Images enlarged to a height and a width by the nearest pixel.

    >>> Enlarged(3, 4)(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).tolist()
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]]]
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: Tensor) -> Tensor:
        return functional.interpolate(images, (self.height, self.width), mode="nearest")


def _in_blocks(network: Callable[[Tensor], Tensor], rows: Tensor, widest: int) -> Tensor:
    """The output of a network for rows, each of so many numbers where it is widest.

    Without gradients, which would hold all of them, in blocks: their memory is bounded, and on a CPU stays in cache.
    """
    if torch.is_grad_enabled():
        return network(rows)
    at_once = SCALARS_IN_CACHE if rows.device.type == "cpu" else SCALARS_AT_ONCE
    return in_blocks(lambda rows, _: network(rows), rows, most=max(1, at_once // widest))


def _scales(shape: ImageShape, channels: Sequence[int], owner: str) -> list[ImageShape]:
    """The shapes that an image of a shape has at each scale."""
    scales = []
    for position, count in enumerate(channels):
        shape = shape.halved._replace(channels=check_count(count, f"{owner}: channels[{position}]"))
        scales.append(shape)
    if not scales:
        raise ValueError(f"{owner} expects the channels of at least one scale; got none")
    return scales


def _blocks(channels: int, blocks: int, activation: Callable[[], nn.Module], owner: str) -> list[ResidualBlock]:
    count = check_count(blocks, f"{owner}: blocks", least=0)
    return [ResidualBlock(channels, activation, zero_init=True) for _ in range(count)]
