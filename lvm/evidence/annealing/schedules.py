"""Annealing schedules: 0 = β₀ < β₁ < … < β_T = 1, where a path of densities stops between its ends."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lvm.evidence.annealing.pilot import Tuning


class Schedule(ABC):
    """Schedule of an annealing path: how a number of steps is spread over it."""

    @abstractmethod
    def betas(self, steps: int, tuning: Tuning) -> Tensor:
        """Inverse temperatures ``[steps + 1, n]`` for n points, float64, rising from exactly 0 to exactly 1.

        Args:
            steps: T, the number of intervals.
            tuning: of a pilot run at these points.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """As the claims print it."""


@dataclass(frozen=True)
class Linear(Schedule):
    """β_t = t/T.

    >>> import torch
    >>> beta = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)  # what a pilot found for one point
    >>> tuning = Tuning(beta, log_step=0 * beta, scale=beta.unsqueeze(2), speed=0 * beta + 1)
    >>> Linear().betas(4, tuning).squeeze(1).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    name = "linear"

    def betas(self, steps: int, tuning: Tuning) -> Tensor:
        return _at_every_point(_fractions(steps, tuning), tuning)


@dataclass(frozen=True)
class Sigmoid(Schedule):
    r"""Steps that are small near both ends (Wu et al. 2017, section 4.1; Grosse et al. 2015).

    .. math:: \tilde\beta_t = \operatorname{sigmoid}(\text{rad}\,(2t/T - 1)), \qquad
              \beta_t = (\tilde\beta_t - \tilde\beta_0) / (\tilde\beta_T - \tilde\beta_0)

    Args:
        rad: how unequal the steps are; 4 in the papers, and linear in the limit of 0.

    Raises:
        ValueError: rad is not positive and finite.

    >>> import torch
    >>> beta = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)  # what a pilot found for one point
    >>> tuning = Tuning(beta, log_step=0 * beta, scale=beta.unsqueeze(2), speed=0 * beta + 1)
    >>> [round(value, 3) for value in Sigmoid(rad=4.0).betas(4, tuning).squeeze(1).tolist()]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """

    rad: float = 4.0

    name = "sigmoid"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rad) and self.rad > 0):
            raise ValueError(f"rad must be positive and finite; got {self.rad}")

    def betas(self, steps: int, tuning: Tuning) -> Tensor:
        raw = (self.rad * (2 * _fractions(steps, tuning) - 1)).sigmoid()
        return _at_every_point((raw - raw[0]) / (raw[-1] - raw[0]), tuning)


@dataclass(frozen=True)
class Adaptive(Schedule):
    r"""For each point its own schedule, with steps of equal divergence.

    Between neighbours, KL ≈ ½ g Δβ² with g(β) = Var_β[log p(x,z) − log q(z)], and the effective sample size of a
    step is about 1/(1 + g Δβ²). For a given T both losses are least when √g Δβ is the same for all steps (Gelman & Meng
    1998, section 4.1), so β is spread evenly in the length ∫√g dβ, which the pilot run measured. The schedule is fixed
    before the chains that use it start.

    Args:
        floor: share of the steps that is spread evenly in β, against an optimistic pilot.

    Raises:
        ValueError: floor is outside (0, 1].

    >>> import torch
    >>> beta = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)  # what a pilot found for one point
    >>> tuning = Tuning(beta, log_step=0 * beta, scale=beta.unsqueeze(2), speed=3 - 2 * beta)
    >>> [round(value, 3) for value in Adaptive().betas(4, tuning).squeeze(1).tolist()]  # slow where it is fast
    [0.0, 0.208, 0.417, 0.688, 1.0]
    """

    floor: float = 0.2

    name = "adaptive"

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor is a share of the steps, in (0, 1]; got {self.floor}")

    def betas(self, steps: int, tuning: Tuning) -> Tensor:
        beta = tuning.beta
        lengths = 0.5 * (tuning.speed[1:] + tuning.speed[:-1]) * beta.diff(dim=0)
        length = torch.cat([torch.zeros_like(beta[:1]), lengths.cumsum(0)])
        total = length[-1:]
        share = torch.where(total > 0, length / total.clamp_min(torch.finfo(total.dtype).tiny), beta)
        share = (1 - self.floor) * share + self.floor * beta
        # Invert the monotone map from β to its share of the length, point by point.
        wanted = _at_every_point(_fractions(steps, tuning), tuning)
        upper = torch.searchsorted(share.mT.contiguous(), wanted.mT.contiguous()).mT
        lower = (upper - 1).clamp(0, beta.shape[0] - 2)
        left, right = share.gather(0, lower), share.gather(0, lower + 1)
        place = ((wanted - left) / (right - left).clamp_min(torch.finfo(share.dtype).tiny)).clamp(0, 1)
        betas = beta.gather(0, lower) + place * (beta.gather(0, lower + 1) - beta.gather(0, lower))
        return torch.cat([torch.zeros_like(betas[:1]), betas[1:-1], torch.ones_like(betas[:1])])


def _fractions(steps: int, tuning: Tuning) -> Tensor:
    return torch.arange(steps + 1, dtype=torch.float64, device=tuning.beta.device) / steps


def _at_every_point(betas: Tensor, tuning: Tuning) -> Tensor:
    return betas.unsqueeze(-1).expand(-1, tuning.beta.shape[-1])
