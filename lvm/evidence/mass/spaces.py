"""Spaces over which a density can be summed or integrated: all states of a few bits, a grid in a box."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from density.checks import check_count
from density.log_density import Measure

MOST_BITS = 24


class Space(ABC):
    """Points, and how much each counts: Σ p(x) · volume is the mass of the space.

    >>> class Dice(Space):
    ...     measure = Measure.COUNTING
    ...
    ...     def points(self, like):
    ...         return torch.arange(1.0, 7.0, device=like.device).unsqueeze(1)
    >>> Dice().points(torch.empty(0)).shape, Dice().volumes(torch.empty(0))
    (torch.Size([6, 1]), None)
    """

    measure: Measure

    @abstractmethod
    def points(self, like: Tensor) -> Tensor:
        """All of them, ``[N, D]``, in the dtype and on the device of a tensor."""

    def volumes(self, like: Tensor) -> Tensor | None:
        """Of each point, ``[N]``, float64; None where all are 1."""
        return None

    def doubt(self, like: Tensor) -> Tensor | None:
        """The volumes less those of a coarser rule, ``[N]``: Σ p(x) · doubt is the error of the sum; None for none."""
        return None


@dataclass(frozen=True)
class Bits(Space):
    """All 2ᴰ states of D bits, {0, 1}ᴰ, the first bit the slowest.

    Args:
        features: D, at most 24.

    >>> Bits(2).points(torch.empty(0)).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """

    features: int
    measure = Measure.COUNTING

    def __post_init__(self) -> None:
        if check_count(self.features, "features") > MOST_BITS:
            raise ValueError(f"Bits enumerates at most {MOST_BITS} features, 2^{MOST_BITS} states; got {self.features}")

    def points(self, like: Tensor) -> Tensor:
        numbers = torch.arange(2**self.features, device=like.device).unsqueeze(1)
        places = torch.arange(self.features - 1, -1, -1, device=like.device)
        return ((numbers >> places) & 1).to(like.dtype)


@dataclass(frozen=True)
class Box(Space):
    """A grid in a box of one or two features, with the weights of the trapezoidal rule.

    Its error falls faster than any power of the spacing where the density is smooth and has died away at the border
    (Trefethen & Weideman 2014); it is estimated by the rule of twice the spacing. Mass outside the box is missing.

    Args:
        lower, upper: corners.
        nodes: along each axis, odd.

    >>> box = Box((-1.0,), (1.0,), nodes=3)
    >>> box.points(torch.empty(0)).tolist(), box.volumes(torch.empty(0)).tolist()
    ([[-1.0], [0.0], [1.0]], [0.5, 1.0, 0.5])
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    nodes: int = 201
    measure = Measure.LEBESGUE

    def __post_init__(self) -> None:
        if check_count(self.nodes, "nodes") % 2 == 0 or self.nodes < 3:
            raise ValueError(f"a Box needs an odd number of nodes, 3 or more; got {self.nodes}")
        if len(self.lower) != len(self.upper) or not 1 <= len(self.lower) <= 2:
            raise ValueError(f"a Box has corners of one or two features; got {self.lower} and {self.upper}")
        ends = [*self.lower, *self.upper]
        if not all(map(math.isfinite, ends)) or any(a >= b for a, b in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"a Box needs finite corners, lower below upper; got {self.lower} and {self.upper}")

    def points(self, like: Tensor) -> Tensor:
        axes = [
            torch.linspace(low, high, self.nodes, dtype=like.dtype, device=like.device)
            for low, high in zip(self.lower, self.upper, strict=True)
        ]
        return torch.cartesian_prod(*axes).reshape(-1, len(axes))

    def volumes(self, like: Tensor) -> Tensor:
        fine = torch.ones(self.nodes, dtype=torch.float64, device=like.device)
        fine[0] = fine[-1] = 0.5
        return self._product(fine)

    def doubt(self, like: Tensor) -> Tensor:
        coarse = torch.zeros(self.nodes, dtype=torch.float64, device=like.device)
        coarse[::2] = 2
        coarse[0] = coarse[-1] = 1
        return self.volumes(like) - self._product(coarse)

    def _product(self, weights: Tensor) -> Tensor:
        """Of the one rule along every axis, in units of the data."""
        each = [weights * (b - a) / (self.nodes - 1) for a, b in zip(self.lower, self.upper, strict=True)]
        return each[0] if len(each) == 1 else torch.outer(*each).flatten()
