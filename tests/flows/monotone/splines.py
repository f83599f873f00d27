"""Splines with their own gradient, and with that of their operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from flows import RationalQuadratic


def draws(generator: Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def pair(spline: RationalQuadratic, inverse: bool) -> tuple[Function, Function]:
    """The spline in one direction, with its own gradient and with that of the operations."""
    own = spline.inverse if inverse else spline.forward
    return own, lambda x, theta: spline._evaluate(x, theta, inverse)[:2]


def gradients(function: Function, inputs: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Of a weighted sum of values and log-derivatives."""
    x, theta = (tensor.detach().requires_grad_() for tensor in inputs)
    return list(torch.autograd.grad(function(x, theta), [x, theta], weights))


def worst(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error, over the largest number of its tensor."""
    return max(
        ((one - other).abs().max() / other.abs().max()).item() for one, other in zip(found, expected, strict=True)
    )
