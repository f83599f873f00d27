"""What the tests of conversions share: random numbers, and how two log-densities are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Record = Callable[[str, float, float], None]
# Issue 4: equal to 1e-10 relative in float64.
BAR = 1e-10


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def relative(before: Tensor, after: Tensor) -> float:
    """Largest error of a log-density, relative to its size (or to one nat)."""
    before, after = before.detach(), after.detach()
    assert before.std() > 0.1, "the points do not differ enough to show an error"
    return float(((after - before).abs() / before.abs().clamp_min(1)).max())
