"""A pilot run along the path: how large a step and how many temperatures each point needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.checks import settle_counts
from lvm.evidence.annealing.hamiltonian import GeometricPath, first_step, transition

LAST_STRIDE = 1e-3  # closer to β = 1 than this, the pilot goes there


@dataclass(frozen=True)
class Pilot:
    r"""Settings of the pilot run, whose chains are thrown away.

    It walks from β = 0 to 1, staying for some transitions at each temperature. There it moves every point's step size
    towards an acceptance probability (Robbins & Monro 1951), estimates the spread of every latent, and goes on to the β
    whose distribution is a Kullback-Leibler divergence of about ½ further: Δβ = 1/sd(log p(x,z) − log q(z)), since
    KL ≈ ½ Δβ² Var, but at most half-way to 1. What it found is then *fixed*. Annealed weights are unbiased for any
    schedule and step size that do not depend on the chains that they weigh; adapting on those chains would lose that.

    Args:
        chains: for each point.
        transitions: at each temperature.
        temperatures: at most.
        acceptance: the target of the step size. 0.65 is the optimum of one long trajectory in many dimensions (Beskos
            et al. 2013); for the short ones along a path 0.8 halves the width of the sandwich.

    Raises:
        ValueError: a setting is out of range.

    >>> import torch
    >>> from lvm import PPCA
    >>> from lvm.evidence import annealed
    >>> pilot = Pilot(chains=2, transitions=1, temperatures=4)  # a hasty one
    >>> annealed(PPCA(3, 1), torch.zeros(2, 3), chains=2, steps=2, pilot=pilot).kind.value
    'lower bound'
    """

    chains: int = 8
    transitions: int = 5
    temperatures: int = 64
    acceptance: float = 0.8

    def __post_init__(self) -> None:
        settle_counts(self, "chains", "transitions", "temperatures", prefix="Pilot's ")
        for name in ("chains", "temperatures"):
            if getattr(self, name) < 2:
                raise ValueError(f"Pilot's {name} must be at least 2; got {getattr(self, name)}")
        if not 0 < self.acceptance < 1:
            raise ValueError(f"Pilot's acceptance must lie in (0, 1); got {self.acceptance}")

    def run(self, path: GeometricPath, starts: Tensor, leapfrog: int, *, generator: Generator | None = None) -> Tuning:
        """Walk the path from draws of its start ``[draws, n, d]``, of which the first ``chains`` become the chains.

        Cost O(temperatures · transitions · chains · leapfrog) gradients a point; temperatures as the path is long.
        """
        position = path.at(starts[: self.chains])
        n, d = starts.shape[1:]
        beta = starts.new_zeros(n, dtype=torch.float64)
        log_step = torch.full_like(beta, math.log(first_step(d)))
        variance = starts.var(0)
        betas, log_steps, scales, spreads = [], [], [], []
        for visit in range(self.temperatures):
            log_step, visited, ratios = log_step.clone(), [], []
            total = torch.zeros_like(log_step)
            for _ in range(self.transitions):
                step = log_step.exp().to(variance).unsqueeze(-1) * variance.sqrt()
                position, accepted = transition(path, position, beta, step, leapfrog, generator)
                log_step = log_step + 0.5 * (accepted.mean(0) - self.acceptance)
                total = total + log_step
                visited.append(position.z)
                ratios.append(position.log_ratio)
            scales.append(variance.sqrt())
            betas.append(beta)
            log_steps.append(total / self.transitions)
            spreads.append(_variance(torch.cat(ratios)).sqrt())
            if bool((beta == 1).all()):
                break
            # Half old, half new: the draws of one visit are few and correlated.
            spread = torch.cat(visited).var(0)
            variance = torch.where(spread > 0, (variance * spread).sqrt(), variance)
            beta = self._next(beta, spreads[-1], visit)
        return Tuning(torch.stack(betas), torch.stack(log_steps), torch.stack(scales), torch.stack(spreads))

    def _next(self, beta: Tensor, spread: Tensor, visit: int) -> Tensor:
        left = self.temperatures - 1 - visit
        # Not more than half of what is left: from a start that is too narrow, all change comes just before β = 1.
        stride = (1 / spread.clamp_min(1e-12)).minimum((1 - beta) / 2)
        if left <= self.temperatures // 2:  # enough of small steps: from here on make sure to arrive
            stride = torch.maximum(stride, (1 - beta) / left)
        arrived = 1 - beta - stride < LAST_STRIDE
        return torch.ones_like(beta) if left <= 1 else torch.where(arrived, 1.0, beta + stride)


@dataclass(frozen=True, eq=False)
class Tuning:
    """Tuning that a pilot run found, on a grid of G inverse temperatures for each of n points.

    Attributes:
        beta: ``[G, n]``, from 0 to 1, where points that arrived early stay.
        log_step: logarithm of the step size in standard deviations, ``[G, n]``.
        scale: standard deviations of the latents, ``[G, n, d]``.
        speed: standard deviation of log p(x,z) − log q(z) under π_β, ``[G, n]``: the speed at which π_β moves with β,
            in the Fisher metric.
    """

    beta: Tensor
    log_step: Tensor
    scale: Tensor
    speed: Tensor

    def step(self, beta: Tensor) -> Tensor:
        """Leapfrog steps ``[n, d]`` at inverse temperatures ``[n]``, interpolated in β."""
        lower, share = self._locate(beta)
        log_step = _between(self.log_step, lower, share).to(self.scale.dtype).unsqueeze(-1)
        index, share = lower.unsqueeze(-1).expand(-1, self.scale.shape[-1]), share.to(self.scale.dtype).unsqueeze(-1)
        return log_step.exp() * _between(self.scale, index, share)

    def _locate(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The grid cell of each β, and β's place in it between 0 and 1."""
        upper = torch.searchsorted(self.beta.mT.contiguous(), beta.unsqueeze(-1).contiguous()).squeeze(-1)
        lower = (upper - 1).clamp(0, self.beta.shape[0] - 2)
        left, right = (self.beta.gather(0, (lower + i).unsqueeze(0)).squeeze(0) for i in (0, 1))
        return lower, ((beta - left) / (right - left).clamp_min(torch.finfo(beta.dtype).tiny)).clamp(0, 1)


def _between(values: Tensor, lower: Tensor, share: Tensor) -> Tensor:
    left, right = (values.gather(0, (lower + i).unsqueeze(0)).squeeze(0) for i in (0, 1))
    return left + share * (right - left)


def _variance(values: Tensor) -> Tensor:
    """Variance over the first axis of those values that are finite; 0 where none is."""
    values = values.masked_fill(~values.isfinite(), math.nan)
    return (values - values.nanmean(0)).square().nanmean(0).nan_to_num(nan=0.0)
