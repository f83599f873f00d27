"""Velocities whose flows are known, and small networks away from rest."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from density import StandardNormal, Timed, mlp
from flows import ContinuousTransform, ExactTrace, Flow, Hutchinson
from tests.laws.transforms import randomise


class Linear(nn.Module):
    """dx/dt = A x, so that z = exp(A) x and log|det ∂z/∂x| = tr A."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x @ self.matrix.T


class StraightToNoise(nn.Module):
    """E[z − x | (1 − t) x + t z] for standard normal z and normal x of standard deviations s: straight paths' mean."""

    def __init__(self, std: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("std", std)
        self.factor = nn.Parameter(torch.tensor(factor, dtype=std.dtype))

    std: Tensor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        variance = (1 - t) ** 2 * self.std**2 + t**2
        return self.factor * x * (t - (1 - t) * self.std**2) / variance


def gaussian_flow(std: Tensor, tolerance: float = 1e-6, trace: ExactTrace | Hutchinson = ExactTrace()) -> Flow:  # noqa: B008
    transform = ContinuousTransform(StraightToNoise(std), len(std), tolerance=tolerance, trace=trace)
    return Flow(StandardNormal(len(std)).to(std.dtype), transform)


def gaussian_log_prob(x: Tensor, std: Tensor) -> Tensor:
    return (-0.5 * (x / std).square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def network_flow(features: int, tolerance: float, seed: int = 0, scale: float = 0.4) -> Flow:
    """The same flow for every tolerance."""
    torch.manual_seed(0)
    velocity = randomise(Timed(mlp(features + 1, features, (16,)), features), Generator().manual_seed(seed), scale)
    return Flow(StandardNormal(features).double(), ContinuousTransform(velocity, features, tolerance=tolerance))
