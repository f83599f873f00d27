"""Weights of the KL term that change as a fit goes on, so that a decoder learns to use its latent first."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from density.checks import settle_counts


class KLWeight(ABC):
    """A weight β of the KL term by the step of a fit.

    Attributes:
        weight: what it comes to. Held-out rows are always judged by this one, so that their values can be compared.
        period: steps after which it has been all that it will be. Patience lasts so many longer.
    """

    weight: float
    period: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"kl_weight must be finite and at least 0; got {self.weight}")

    @abstractmethod
    def at(self, step: int) -> float:
        """The weight of a step, of which the first is 0."""


@dataclass(frozen=True)
class WarmUp(KLWeight):
    """β that grows from 0 in equal steps, and stays (Bowman et al. 2016, arXiv:1511.06349).

    >>> [WarmUp(steps=4).at(step) for step in (0, 1, 4, 100)]
    [0.0, 0.25, 1.0, 1.0]
    """

    steps: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_counts(self, "steps")

    @property
    def period(self) -> int:  # type: ignore[override]  # computed, not stored
        return self.steps

    def at(self, step: int) -> float:
        return self.weight * min(1.0, step / self.steps)


@dataclass(frozen=True)
class Cyclical(KLWeight):
    """β that grows from 0 in the first share of every period, then stays (Fu et al. 2019, arXiv:1903.10145).

    Args:
        period: steps until β is 0 again.
        ramp: share of the period in which β grows.
        weight: what β grows to.

    >>> [Cyclical(period=4).at(step) for step in range(6)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5]
    """

    period: int
    ramp: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_counts(self, "period")
        if not 0 < self.ramp <= 1:
            raise ValueError(f"ramp is a share of the period, in (0, 1]; got {self.ramp}")

    def at(self, step: int) -> float:
        return self.weight * min(1.0, step % self.period / (self.ramp * self.period))


@dataclass(frozen=True)
class Constant(KLWeight):
    """β that is always the same."""

    weight: float

    period: ClassVar[int] = 0  # type: ignore[misc]  # of every one

    def at(self, step: int) -> float:
        return self.weight


def weight_of(weight: float | KLWeight) -> KLWeight:
    """A weight of the KL term as such: a number is a constant one; ValueError if it is negative or not finite."""
    return weight if isinstance(weight, KLWeight) else Constant(weight)
