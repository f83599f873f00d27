"""Shapes of images. A point is a flat image, channel by channel, row by row: ``image.flatten()`` of ``[C, H, W]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from density.checks import check_count


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
        """The shape after a squeeze: blocks of 2×2 pixels become channels; a side that is odd stays."""
        down, across = 2 - self.height % 2, 2 - self.width % 2
        return ImageShape(self.channels * down * across, self.height // down, self.width // across)

    @property
    def halved(self) -> ImageShape:
        """The shape after a 3×3 convolution of stride 2: half the sides, rounded up."""
        return self._replace(height=(self.height + 1) // 2, width=(self.width + 1) // 2)
