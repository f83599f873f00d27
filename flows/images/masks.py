"""Which pixels and channels of an image a coupling passes, as functions of shape and layer, from 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from density.images.shape import ImageShape


def checkerboard(shape: Sequence[int], layer: int) -> Tensor:
    """Every other pixel passes with all its channels, like a chessboard's white fields; in the next layer the black.

    Dinh et al. 2017, arXiv:1605.08803, §3.4. Booleans ``[C, H, W]``.

    >>> checkerboard((1, 2, 3), 0).int().tolist()
    [[[1, 0, 1], [0, 1, 0]]]
    """
    channels, height, width = ImageShape.of(shape, "checkerboard")
    fields = torch.arange(height, device="cpu")[:, None] + torch.arange(width, device="cpu")
    return (fields % 2 == layer % 2).expand(channels, -1, -1)


def channel_halves(shape: Sequence[int], layer: int) -> Tensor:
    """The first half of the channels passes; in the next layer the second half. Booleans ``[C, H, W]``.

    >>> channel_halves((3, 1, 2), 0).int().tolist()
    [[[1, 1]], [[0, 0]], [[0, 0]]]
    """
    channels, height, width = ImageShape.of(shape, "channel_halves")
    first = torch.arange(channels, device="cpu") < channels // 2
    return (first if layer % 2 == 0 else ~first)[:, None, None].expand(-1, height, width)
