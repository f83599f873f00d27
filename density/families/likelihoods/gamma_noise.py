"""Logarithms of gamma draws, from a generator of one's own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from density.families.noise import uniform_noise


@torch.no_grad()
def log_gamma_noise(n: int, shape: Tensor, generator: Generator | None) -> Tensor:
    """Logarithms of n draws ``[n, *batch]`` of gamma variables of scale 1 and a shape ``[*batch]``, without gradients.

    By rejection (Marsaglia & Tsang 2000, ACM TOMS 26, 363) for shape + 1, of which at least 98 % are accepted, times
    U^(1/shape), in logarithms: draws of small shapes are often below the least float.

    >>> log_gamma_noise(2, torch.tensor([0.5, 1.0, 100.0]), Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    wide = shape.expand(n, *shape.shape).reshape(-1)
    d = wide + 2 / 3
    drawn, left = torch.empty_like(d), torch.arange(d.numel(), device=d.device)
    while left.numel():
        own = d[left]
        normal = torch.randn(own.shape, generator=generator, dtype=d.dtype, device=d.device)
        (uniform,) = uniform_noise(1, own, generator)
        cube = (1 + normal / (9 * own).sqrt()) ** 3
        log_ratio = 0.5 * normal.square() + own * (1 - cube + cube.log())  # nan where the cube is negative
        refused = (cube <= 0) | (uniform.log() >= log_ratio)
        drawn[left] = own.log() + cube.log()
        left = left[refused]  # a nan is not among them, and comes back as one
    return (drawn + uniform_noise(1, wide, generator)[0].log() / wide).reshape(n, *shape.shape)
