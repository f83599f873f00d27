"""Shapes of images, and squeezes, which trade pixels for channels.

A point is a flat image, channel by channel and row by row, as ``image.flatten()`` of ``[C, H, W]`` has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from density.checks import check_count
from flows.layers.permutation import Permutation


class ImageShape(NamedTuple):
    """Channels, height and width of an image.

    >>> ImageShape(3, 4, 5).features
    60
    """

    channels: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: Sequence[int], owner: str) -> ImageShape:
        """The shape (C, H, W); TypeError or ValueError in the name of an owner if it is none."""
        try:
            sizes = tuple(shape)
        except TypeError as error:
            raise TypeError(f"{owner} expects the shape of an image, (C, H, W); got {shape!r}") from error
        if len(sizes) != 3:
            raise ValueError(f"{owner} expects the shape of an image, (C, H, W); got {shape!r}")
        return cls(*(check_count(size, f"{owner}: {name}") for size, name in zip(sizes, cls._fields, strict=True)))

    @property
    def pixels(self) -> int:
        """H·W."""
        return self.height * self.width

    @property
    def features(self) -> int:
        """C·H·W."""
        return self.channels * self.pixels

    @property
    def squeezed(self) -> ImageShape:
        """The shape after a :func:`squeeze`."""
        down, across = 2 - self.height % 2, 2 - self.width % 2
        return ImageShape(self.channels * down * across, self.height // down, self.width // across)


def squeeze(shape: Sequence[int]) -> Permutation:
    """The squeeze of images (C, H, W) to (4C, H/2, W/2): each block of 2×2 pixels becomes one, with their channels.

    Dinh et al. 2017, arXiv:1605.08803, §3.6. A side that is odd stays, so that (C, 1, W) is a signal: it becomes
    (2C, 1, W/2). Channel by channel, the pixels of a block in reading order.

    Raises:
        TypeError, ValueError: not a shape.

    Cost: O(D) per point.

    >>> squeeze((1, 2, 4))(torch.arange(8.0))[0].tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    before = ImageShape.of(shape, "squeeze")
    after = before.squeezed
    down, across = before.height // after.height, before.width // after.width
    blocks = torch.arange(before.features).reshape(before.channels, after.height, down, after.width, across)
    return Permutation(blocks.permute(0, 2, 4, 1, 3).flatten())
