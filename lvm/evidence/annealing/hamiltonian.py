"""Hamiltonian Monte Carlo along a geometric path between two densities, for all points and chains at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor

from density.checks import free_to_look

LogDensityOf = Callable[[Tensor], Tensor]
BadAt = Callable[[Tensor], Tensor]

JITTER = 0.5  # a trajectory's step is uniform within ± this share, so that no length resonates with a period


@dataclass(frozen=True, eq=False)
class Position:
    """Positions of the chains, and what the two ends of the path say there.

    Attributes:
        z: ``[chains, n, d]``.
        start, target: log-densities of the ends at z, ``[chains, n]``, float64; unnormalised ones will do.
        start_gradient, target_gradient: their gradients in z, ``[chains, n, d]``.
    """

    z: Tensor
    start: Tensor
    target: Tensor
    start_gradient: Tensor
    target_gradient: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """target − start: the derivative of the path's log-density in β, and the integrand of an annealed weight."""
        return self.target - self.start

    def log_density(self, beta: Tensor) -> Tensor:
        """(1 − β) start + β target, ``[chains, n]``, at inverse temperatures β ``[n]``; 0 · (−∞) counts as 0."""
        return _times(1 - beta, self.start) + _times(beta, self.target)

    def gradient(self, beta: Tensor) -> Tensor:
        """The gradient of :meth:`log_density` in z, ``[chains, n, d]``."""
        weight = beta.to(self.z.dtype).unsqueeze(-1)
        return _times(1 - weight, self.start_gradient) + _times(weight, self.target_gradient)

    def where(self, condition: Tensor, other: Position) -> Position:
        """This position where the condition ``[chains, n]`` holds, the other one elsewhere."""
        columns = condition.unsqueeze(-1)
        return Position(
            *(
                torch.where(condition if mine.ndim == condition.ndim else columns, mine, theirs)
                for mine, theirs in ((getattr(self, f.name), getattr(other, f.name)) for f in fields(Position))
            )
        )


class GeometricPath:
    r"""The densities :math:`\pi_\beta \propto \text{start}^{1-\beta}\, \text{target}^\beta` (Neal 2001, equation 3).

    A log-density that overflows is an error where it happens, or at the next :meth:`look`, where looking at once would
    wait for an accelerator.

    Args:
        start, target: map z ``[chains, n, d]`` to log-densities ``[chains, n]``, differentiable in z.
        first_point: number of the first of the n points, for error messages.
    """

    def __init__(self, start: LogDensityOf, target: LogDensityOf, first_point: int = 0) -> None:
        self.start = start
        self.target = target
        self.first_point = first_point
        self._noted: dict[tuple[str, BadAt], tuple[Tensor, Tensor]] = {}

    def at(self, z: Tensor) -> Position:
        """Values and gradients of both ends at z: one evaluation of either, forward and backward.

        Raises:
            ValueError: a log-density is +inf.
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            start, target = self.start(z), self.target(z)
            (start_gradient,) = torch.autograd.grad(start.sum(), z)
            (target_gradient,) = torch.autograd.grad(target.sum(), z)
        position = Position(
            z.detach(), start.detach().double(), target.detach().double(), start_gradient, target_gradient
        )
        self._watch(position, Tensor.isposinf)
        return position

    def begin(self, z: Tensor) -> Position:
        """As :meth:`at`, where chains begin: nan, the common end of a diverging trajectory, is an error here too.

        −inf is a density of zero.
        """
        position = self.at(z)
        self._watch(position, Tensor.isnan)
        return position

    def look(self, *numbers: Tensor) -> list[float]:
        """The values of some scalars, float64, all looked at together with what was noted since the last look.

        Raises:
            ValueError: a log-density was +inf, or nan where chains began.
        """
        noted, self._noted = self._noted, {}
        bad = [bad_at(value).any().double() for (_, bad_at), (value, _) in noted.items()]
        if not bad and not numbers:
            return []
        found: list[float] = torch.stack([*bad, *numbers]).tolist()
        if any(found[: len(bad)]):
            for (name, bad_at), (value, z) in noted.items():
                self._refuse(name, value, z, bad_at)
        return found[len(bad) :]

    def _watch(self, position: Position, bad_at: BadAt) -> None:
        z = position.z
        for name, value in (("log p(x, z)", position.target), ("the log-density of the start", position.start)):
            if free_to_look(value):
                self._refuse(name, value, z, bad_at)
            else:
                before, at = self._noted.get((name, bad_at), (value, z))
                bad = bad_at(value)
                self._noted[name, bad_at] = torch.where(bad, value, before), torch.where(bad.unsqueeze(-1), z, at)

    def _refuse(self, name: str, value: Tensor, z: Tensor, bad_at: BadAt) -> None:
        bad = bad_at(value)
        if bool(bad.any()):
            chain, point = bad.nonzero()[0].tolist()
            at = ", ".join(f"{number:.3g}" for number in z[chain, point, :4].tolist())
            raise ValueError(
                f"{name} is {value[chain, point].item()} at point {self.first_point + point}, chain {chain}, "
                f"z = [{at}{', …' if z.shape[-1] > 4 else ''}] ({int(bad.sum())} of {bad.numel()} in its block); the "
                "model's densities overflow there. Check that it was fitted to data on this scale"
            )


def leapfrog(
    path: GeometricPath, position: Position, momentum: Tensor, beta: Tensor, step: Tensor, steps: int
) -> tuple[Position, Tensor]:
    r"""Follow the Hamiltonian :math:`-\log\pi_\beta(z) + \tfrac12\lVert p\rVert^2` for some leapfrog steps.

    With S = diag(step), the steps of z, one round is p ← p + ½S∇, z ← z + Sp, p ← p + ½S∇. It is its own inverse after
    a change of sign of p, and keeps volume in (z, p), whatever the steps are: that is all that Metropolis needs
    (Neal 2011, section 2.3).

    Args:
        position, momentum: where to start; the momentum p is ``[chains, n, d]``, standard normal at equilibrium.
        beta: inverse temperatures ``[n]``.
        step: broadcastable to ``[chains, n, d]``.
        steps: number of rounds.

    Cost: one :meth:`GeometricPath.at` a round.
    """
    momentum = momentum + 0.5 * step * position.gradient(beta)
    for done in range(1, steps + 1):
        position = path.at(position.z + step * momentum)
        momentum = momentum + (step if done < steps else 0.5 * step) * position.gradient(beta)
    return position, momentum


def transition(
    path: GeometricPath,
    position: Position,
    beta: Tensor,
    step: Tensor,
    steps: int,
    generator: Generator | None = None,
) -> tuple[Position, Tensor]:
    r"""One Hamiltonian Monte Carlo move that leaves :math:`\pi_\beta` invariant, and is reversible with respect to it.

    A fresh momentum, a trajectory by :func:`leapfrog` whose step is jittered by ± 50 %, and Metropolis' decision with
    probability min(1, e^−ΔH) (Duane et al. 1987; Neal 2011). A trajectory that runs into nan is rejected.

    Args:
        position: where the chains are.
        beta: inverse temperatures ``[n]``.
        step: ``[n, d]``; it must not depend on where these chains are or were.
        steps: leapfrog steps.

    Returns:
        The new position, and the probability of acceptance ``[chains, n]``, float64.

    Raises:
        ValueError: a log-density is +inf on the way.
    """
    z = position.z
    momentum = torch.randn(z.shape, generator=generator, dtype=z.dtype, device=z.device)
    uniform = torch.rand(2, *z.shape[:-1], generator=generator, dtype=torch.float64, device=z.device)
    jittered = step * (1 + JITTER * (2 * uniform[0] - 1)).to(z.dtype).unsqueeze(-1)
    proposal, final = leapfrog(path, position, momentum, beta, jittered, steps)
    log_ratio = proposal.log_density(beta) - position.log_density(beta)
    log_ratio = log_ratio + 0.5 * (momentum.double().square().sum(-1) - final.double().square().sum(-1))
    probability = log_ratio.clamp_max(0).exp().nan_to_num(nan=0.0)
    return proposal.where(uniform[1] < probability, position), probability


def _times(weight: Tensor, value: Tensor) -> Tensor:
    return torch.where(weight == 0, 0.0, weight * value)


def first_step(latent_features: int) -> float:
    """A step, in standard deviations, that a Gaussian of d features accepts about as often as not: ~ d^−¼."""
    return 1.2 / math.sqrt(math.sqrt(latent_features))
