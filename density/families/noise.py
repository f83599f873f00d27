"""Noise: that parameters start from, and that densities and objectives draw."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def normal_noise(*shape: int, generator: Generator | None) -> Tensor:
    """Standard normal draws, in the default dtype and on the default device, wherever the generator lies.

    >>> normal_noise(2, 3, generator=Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    place = torch.get_default_device()
    drawn_at = place if generator is None else generator.device
    return torch.randn(*shape, generator=generator, device=drawn_at).to(place)


def uniform_noise(n: int, like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform draws ``[n, *batch]`` in the open interval (0, 1), in dtype and place of a tensor ``[*batch]``."""
    drawn = torch.rand(n, *like.shape, generator=generator, dtype=like.dtype, device=like.device)
    return drawn.clamp_min(torch.finfo(like.dtype).eps / 4)


def stratified_noise(like: Tensor, generator: Generator | None) -> Tensor:
    """Draws in [0, 1) of the shape of a tensor, each uniform, one in each of as many equal cells up to a rotation.

    >>> drawn = stratified_noise(torch.zeros(4), Generator().manual_seed(0))
    >>> (4 * drawn).floor().sort().values
    tensor([0., 1., 2., 3.])
    """
    first = torch.rand((), generator=generator, dtype=like.dtype, device=like.device)
    cells = torch.arange(like.numel(), dtype=like.dtype, device=like.device) / max(1, like.numel())
    return ((first + cells) % 1).reshape(like.shape)
