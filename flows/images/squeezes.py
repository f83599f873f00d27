"""Squeezes of images, which trade pixels for channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from density.images.shape import ImageShape
from flows.layers.linear_maps.permutation import Permutation


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
