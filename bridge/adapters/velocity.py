"""Velocities and scores that were trained elsewhere, as flows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bridge.adapters.calls import Calls
from density.checks import find_reference
from density.contract import Density
from density.families.gaussian import StandardNormal
from flows.continuous.trace import Trace
from flows.continuous.transform import EXACT_TRACE, ContinuousTransform
from flows.flow import Flow
from lvm.diffusion.schedule import Schedule


class FromNoise(nn.Module):
    """A velocity whose time runs from noise at 0 to data at 1, the other way round: −u(x, 1 − t).

    Args:
        velocity: called as ``velocity(x, t)``.
    """

    def __init__(self, velocity: nn.Module) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        velocity: Tensor = self.velocity(x, 1 - t)
        return -velocity


class FromScore(nn.Module):
    r"""The velocity −½ γ'(t) σ² (z + ∇ log p_t(z)) of the probability flow of a score (Song et al. 2021).

    Args:
        score: called as ``score(z, t)``.
        schedule: γ(t), of noise whose variance is preserved.
    """

    def __init__(self, score: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.score = score
        self.schedule = schedule

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rate = 0.5 * self.schedule.slope(t) * torch.sigmoid(self.schedule(t))
        velocity: Tensor = -rate * (x + self.score(x, t))
        return velocity


def from_velocity(
    velocity: Callable[[Tensor, Tensor], Tensor],
    features: int,
    *,
    base: Density | None = None,
    trace: Trace = EXACT_TRACE,
    tolerance: float = 1e-6,
) -> Flow:
    """The flow of a velocity that was trained elsewhere, by ``flow_matching`` or ``torchcfm``: their time is 1 − ours.

    Args:
        velocity: called as ``velocity(x, t)``, with x ``[n, D]`` and t a scalar tensor, from noise at 0 to data at 1:
            a model of ``flow_matching`` or its wrapper; of a network of ``torchcfm``, which reads both side by side,
            ``density.Timed(network, D)``.
        features: D.
        base: density of the noise; standard normal if None.
        trace, tolerance: see :class:`~flows.continuous.transform.ContinuousTransform`.

    Raises:
        TypeError: it cannot be called.

    >>> flow = from_velocity(lambda x, t: x, 2)
    >>> round(flow.log_prob(torch.zeros(1, 2)).item(), 4)  # the noise, e times as wide
    -3.8379
    """
    return _flow(FromNoise(_module(velocity)), features, base, trace, tolerance)


def from_score(
    score: Callable[[Tensor, Tensor], Tensor],
    features: int,
    schedule: Schedule,
    *,
    base: Density | None = None,
    trace: Trace = EXACT_TRACE,
    tolerance: float = 1e-6,
) -> Flow:
    """The probability flow of a score network of one's own.

    Args:
        score: ∇ log p_t(z), called as ``score(z, t)``, with z ``[n, D]`` and t a scalar tensor, from data at 0 to noise
            at 1. Of a network that predicts noise it is −ε̂/σ.
        features: D.
        schedule: γ(t) that it was trained with. Its data is α(0) x.
        base, trace, tolerance: as for :func:`from_velocity`.

    Raises:
        TypeError: it cannot be called.

    >>> from lvm import LinearSchedule
    >>> flow = from_score(lambda z, t: -z, 2, LinearSchedule())  # of a standard normal, at every time
    >>> round(flow.log_prob(torch.zeros(1, 2)).item(), 4)
    -1.8379
    """
    return _flow(FromScore(_module(score), schedule), features, base, trace, tolerance)


def _module(function: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    return function if isinstance(function, nn.Module) else Calls(function)


def _flow(velocity: nn.Module, features: int, base: Density | None, trace: Trace, tolerance: float) -> Flow:
    if base is None:
        like = find_reference(velocity)
        base = StandardNormal(features) if like is None else StandardNormal(features).to(like)
    return Flow(base, ContinuousTransform(velocity, features, trace=trace, tolerance=tolerance))
