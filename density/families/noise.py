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
