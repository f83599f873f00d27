"""What Stirling's formula leaves of log Γ, so that differences of large terms keep their digits (Loader 2000)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NEAR = 16.0  # from here on the first term left out of the series is below 1e-16
SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def stirling_error(z: Tensor) -> Tensor:
    """log Γ(z + 1) − [(z + ½) log z − z + ½ log 2π] for z > 0, about 1/(12 z), to the rounding of numbers below 30.

    >>> stirling_error(torch.tensor([1.0, 1e6]))
    tensor([8.1061e-02, 8.3333e-08])
    """
    small, large = z.clamp_max(NEAR), z.clamp_min(NEAR)
    direct = torch.lgamma(small + 1) - (small + 0.5) * small.log() + small - 0.5 * math.log(2 * math.pi)
    inverse = large.reciprocal()
    square, series = inverse.square(), torch.zeros_like(inverse)
    for coefficient in reversed(SERIES):
        series = coefficient + square * series
    return torch.where(z < NEAR, direct, series * inverse)


def poisson_deviance(x: Tensor, mean: Tensor) -> Tensor:
    """x log(x / μ) − (x − μ) for x ≥ 0 and μ > 0, which costs no digits where x is near μ."""
    return _times_log(x, mean, x - mean) - (x - mean)


def binomial_deviance(a: Tensor, b: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """n KL(a/n ‖ p) = a log(a/(np)) + b log(b/(nq)) with n = a + b, for a, b ≥ 0, not both 0, and q = 1 − p."""
    n, excess = a + b, a * q - b * p
    return _times_log(a, n * p, excess) + _times_log(b, n * q, -excess)


def _times_log(a: Tensor, b: Tensor, excess: Tensor) -> Tensor:
    """a log(a / b) for a ≥ 0, b > 0 and their difference: 0 at a = 0, and from the difference where it is small."""
    near = excess.abs() < 0.5 * b
    close = torch.log1p(torch.where(near, excess / b, torch.zeros_like(b)))
    return a * torch.where(near, close, torch.where(near | (a <= 0), torch.ones_like(b), a / b).log())
