"""Noise that parameters start from."""

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
