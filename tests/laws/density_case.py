"""A density to be put before the laws, and the points at which they look."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density import Density


@dataclass(frozen=True)
class DensityCase:
    """A density to be put before the laws.

    Attributes:
        make: builds it, in float64 and with random parameters, from a generator. At most two features, so that
            integrals over it can be done by quadrature.
        values: all values, for a discrete density; None for a continuous one.
        countable: whether a discrete density says itself which values it has; those of counts have no end.
        oracle: log-density of a point ``[D]`` at a context ``[C]`` by other means.
        pathwise: whether draws carry gradients in the parameters.
        dead: names (or their beginnings) of parameters that log_prob does not depend on.
        reach: half-width of the box of quadrature in standard deviations.
        expected: whether its expectation has a closed form.
    """

    make: Callable[[Generator], Density]
    values: Tensor | None = None
    countable: bool = True
    oracle: Callable[[Density, Tensor, Tensor | None], float] | None = None
    pathwise: bool = True
    dead: tuple[str, ...] = ()
    reach: float = 10.0
    expected: bool = True

    def points(self, density: Density, generator: Generator, *batch: int) -> Tensor:
        if self.values is None:
            return 1.5 * normal(generator, *batch, density.features)
        chosen = torch.randint(len(self.values), batch, generator=generator, device=generator.device)
        return self.values.to(generator.device)[chosen]

    def context(self, density: Density, generator: Generator, *batch: int) -> Tensor | None:
        width = density.context_features
        return normal(generator, *batch, width) if width else None

    def masses(self, density: Density, context: Tensor | None, generator: Generator) -> tuple[Tensor, Tensor]:
        """Values and their masses: all of them, or the nodes of a quadrature that covers the density."""
        with torch.no_grad():
            if self.values is not None:
                values = self.values.to(generator.device)
                return values, density.log_prob(values, context).exp()
            draws = density.sample(2000, context=context, generator=seeded(generator))
            mean, std = draws.mean(0), draws.std(0)
            points = 4001 if density.features == 1 else 301
            values, cell = grid(mean - self.reach * std, mean + self.reach * std, points)
            return values, density.log_prob(values, context).exp() * cell


def grid(low: Tensor, high: Tensor, points: int) -> tuple[Tensor, float]:
    """Nodes ``[points^D, D]`` of the trapezoid rule in a box and the volume of a cell; the edges carry no mass."""
    axes = [
        torch.linspace(float(a), float(b), points, dtype=low.dtype, device=low.device)
        for a, b in zip(low, high, strict=True)
    ]
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    return torch.cartesian_prod(*axes).reshape(-1, len(axes)), cell


def seeded(generator: Generator, seed: int = 0) -> Generator:
    return Generator(generator.device).manual_seed(seed)


def normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
