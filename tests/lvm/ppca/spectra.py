"""Data of random spectra, up to ill-conditioned ones, to fit PPCA to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

MOST_FEATURES = 20


@dataclass(frozen=True, eq=False)
class Case:
    """Rows x, the same with a tenth of the entries missing, and how many latents to fit."""

    x: Tensor
    incomplete: Tensor
    latents: int


def case(seed: int) -> Case:
    """D from 3 to 20, q from 1 to D − 1, n from D + 2 to 50 D, the covariance's condition up to 1e10, axes anywhere."""
    generator = Generator().manual_seed(seed)

    def between(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    features = int(between(3, MOST_FEATURES + 1))
    latents = int(between(1, features))
    n = int(math.exp(between(math.log(features + 2), math.log(50 * features))))
    logs = torch.rand(features, generator=generator, dtype=torch.float64)
    logs = (logs - logs.min()) / (logs.max() - logs.min()) * between(0, 10) * math.log(10)
    axes = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64)).Q
    x = (torch.randn(n, features, generator=generator, dtype=torch.float64) * (logs / 2).exp()) @ axes.mT
    missing = torch.rand(x.shape, generator=generator) < 0.1
    return Case(x, x.masked_fill(missing, torch.nan), latents)
