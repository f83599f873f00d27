"""Annealed chains between a start and the posterior, in either direction: what the bounds on log p(x) are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from density.checks import settle_counts
from density.data.blocks import rows_in_memory
from density.measure import Measure, ReferenceMeasure
from density.parallel import processes
from lvm.evidence.annealing.hamiltonian import GeometricPath, Position, transition
from lvm.evidence.annealing.pilot import Pilot, Tuning
from lvm.evidence.annealing.schedules import Schedule
from lvm.hierarchy.unrolled import unrolled
from lvm.latent import LatentVariableModel
from lvm.layered import LayeredModel

Walk: TypeAlias = "Callable[[Annealing, slice, Generator | None], tuple[Tensor, float]]"  # of some of the points
SPREAD_DRAWS = 64  # draws of the start that the pilot's first scales come from; they need no decoder
SECONDS_BEFORE_BAR = 3.0


class Start(ABC):
    """Start of the chains: a density over z that can be drawn from and evaluated, possibly given x.

    The x ``[n, D]`` of a conditional model have their contexts behind them, as the model's parts see these.
    """

    @abstractmethod
    def sample(self, model: LatentVariableModel, x: Tensor, chains: int, generator: Generator | None) -> Tensor:
        """Draws ``[chains, n, d]`` for points ``[n, D]``."""

    @abstractmethod
    def log_prob(self, model: LatentVariableModel, x: Tensor, z: Tensor) -> Tensor:
        """Log-density ``[chains, n]`` at z ``[chains, n, d]``, differentiable in z."""

    @abstractmethod
    def measure(self, model: LatentVariableModel) -> ReferenceMeasure:
        """What it is a density with respect to; Lebesgue, or there is no gradient to follow."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As the claims print it."""


@dataclass(frozen=True)
class FromEncoder(Start):
    """Start at q(z|x). The closer it is to the posterior, the shorter the path.

    >>> from lvm import PPCA
    >>> FromEncoder().sample(PPCA(3, 1), torch.zeros(5, 3), 2, torch.manual_seed(0)).shape
    torch.Size([2, 5, 1])
    """

    name = "encoder"

    def sample(self, model: LatentVariableModel, x: Tensor, chains: int, generator: Generator | None) -> Tensor:
        return model.encoder.sample(chains, context=x, generator=generator)

    def log_prob(self, model: LatentVariableModel, x: Tensor, z: Tensor) -> Tensor:
        return model.encoder.log_prob(z, x)

    def measure(self, model: LatentVariableModel) -> ReferenceMeasure:
        return model.encoder.measure


@dataclass(frozen=True)
class FromPrior(Start):
    """Start at p(z): a longer path, and one that owes nothing to the encoder (Wu et al. 2017).

    >>> from lvm import PPCA
    >>> z = FromPrior().sample(PPCA(3, 1), torch.zeros(5, 3), 2, torch.manual_seed(0))
    >>> FromPrior().log_prob(PPCA(3, 1), torch.zeros(5, 3), z).shape
    torch.Size([2, 5])
    """

    name = "prior"

    def sample(self, model: LatentVariableModel, x: Tensor, chains: int, generator: Generator | None) -> Tensor:
        return model._prior_draws(chains, x, generator)

    def log_prob(self, model: LatentVariableModel, x: Tensor, z: Tensor) -> Tensor:
        return model._log_prior(z, x)

    def measure(self, model: LatentVariableModel) -> ReferenceMeasure:
        return model.prior.measure


@dataclass(frozen=True)
class Budget:
    """The settings of an annealing run; see :func:`~lvm.evidence.annealing.bounds.annealed`."""

    steps: int
    chains: int
    start: Start
    schedule: Schedule
    leapfrog: int
    pilot: Pilot

    def __post_init__(self) -> None:
        settle_counts(self, "steps", "chains", "leapfrog")
        if self.chains < 2:
            raise ValueError("annealing needs at least 2 chains to have a Monte Carlo error; got 1")

    def joint(self, model: LayeredModel) -> LatentVariableModel:
        """The model as one of a latent (:func:`~lvm.hierarchy.unrolled.unrolled`); TypeError unless it has a joint
        density, differentiable in a continuous latent.
        """
        name, model = type(model).__name__, unrolled(model)
        if not isinstance(model, LatentVariableModel):
            raise TypeError(
                f"annealing needs a model with log_joint(x, z), such as a VAE; {name} has none. "
                "An exact model's log_density(x) is exact; any Bound has importance(model, x)"
            )
        if not model.prior.measure is self.start.measure(model) is Measure.LEBESGUE:
            raise TypeError(
                f"annealing follows gradients in a continuous latent; that of {name} is discrete "
                f"(prior {type(model.prior).__name__}, encoder {type(model.encoder).__name__}). Sum over it exactly, "
                "or use importance(model, x)"
            )
        return model

    def walked(
        self, joint: LatentVariableModel, rows: Tensor, generator: Generator | None, *walks: Walk
    ) -> list[tuple[Tensor, float]]:
        """Log-weights ``[chains, n]`` and acceptance rate of each walk, of all rows: block by block, float64."""
        n = len(rows)
        log_weights = [rows.new_empty(self.chains, n, dtype=torch.float64) for _ in walks]
        rates = [0.0] * len(walks)
        for points in self._blocks(rows):
            run = Annealing(joint, rows[points], self, first_point=points.start, generator=generator)
            for number, walk in enumerate(walks):
                log_weights[number][:, points], accepted = walk(run, points, generator)
                rates[number] += accepted * (points.stop - points.start) / n
        return list(zip(log_weights, rates, strict=True))

    def _blocks(self, rows: Tensor) -> Iterator[slice]:
        """The points that run together, of rows ``[n, D]``."""
        points = max(1, rows_in_memory(rows) // max(self.chains, self.pilot.chains))
        for start in range(0, len(rows), points):
            yield slice(start, min(len(rows), start + points))


class Annealing:
    """Tuned chains for some rows x, points or points and contexts, between a budget's start and the posterior.

    The constructor makes the pilot run. All randomness is the generator's.

    Args:
        first_point: number of the first point, for error messages.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        x: Tensor,
        budget: Budget,
        *,
        first_point: int = 0,
        generator: Generator | None = None,
    ) -> None:
        self.model, self.x, self.budget = model, x, budget
        self.path = GeometricPath(
            lambda z: budget.start.log_prob(model, x, z), lambda z: model._log_joint(x, z), first_point
        )
        with torch.no_grad():
            starts = budget.start.sample(model, x, max(SPREAD_DRAWS, budget.pilot.chains), generator)
            self.tuning: Tuning = budget.pilot.run(self.path, starts, budget.leapfrog, generator=generator)
            self.betas = budget.schedule.betas(budget.steps, self.tuning)

    def forward(self, generator: Generator | None) -> tuple[Tensor, float]:
        """Log-weights ``[chains, n]`` from the start to the posterior, with E w = p(x), and the acceptance rate."""
        with torch.no_grad():
            z = self.budget.start.sample(self.model, self.x, self.budget.chains, generator)
            return self._walk(self.path.begin(z), self.betas, generator)[1:]

    def reverse(self, z: Tensor, generator: Generator | None) -> tuple[Tensor, float]:
        """Log-weights ``[chains, n]``, E w = 1/p(x) from an exact posterior draw z ``[n, d]`` a point, which all of its
        chains share; or from one for each of them ``[chains, n, d]``.
        """
        with torch.no_grad():
            z = z.expand(self.budget.chains, *z.shape[-2:])
            return self._walk(self.path.begin(z), self.betas.flip(0), generator)[1:]

    def posterior(self, transitions: int, generator: Generator | None) -> Tensor:
        """Approximate draws of the posterior ``[chains, n, d]``: forward chains, resampled by their weights, and then
        so many transitions at β = 1. Exact in the limit of many steps, or of many transitions.
        """
        with torch.no_grad():
            z = self.budget.start.sample(self.model, self.x, self.budget.chains, generator)
            position, log_weights, _ = self._walk(self.path.begin(z), self.betas, generator)
            index = _systematic(log_weights.softmax(0), generator)
            z = position.z.gather(0, index.unsqueeze(-1).expand_as(position.z))
            position, beta = self.path.begin(z), self.betas[-1]
            step = self.tuning.step(beta)
            for _ in range(transitions):
                position, _ = transition(self.path, position, beta, step, self.budget.leapfrog, generator)
            return position.z

    def _walk(self, position: Position, betas: Tensor, generator: Generator | None) -> tuple[Position, Tensor, float]:
        """Where the chains end along β₀ … β_T, in either direction, their annealed importance weights, of which E w is
        the ratio of the normalisers, and the acceptance rate.
        """
        log_weights = (betas[1] - betas[0]) * position.log_ratio
        acceptance = position.start.new_zeros(())
        steps = betas.shape[0] - 1
        hidden = None if processes.is_main() else True
        with tqdm(
            total=steps, desc="anneal", unit="step", leave=False, disable=hidden, delay=SECONDS_BEFORE_BAR
        ) as bar:
            for t in range(1, steps):
                step = self.tuning.step(betas[t])
                position, accepted = transition(self.path, position, betas[t], step, self.budget.leapfrog, generator)
                log_weights = log_weights + (betas[t + 1] - betas[t]) * position.log_ratio
                acceptance = acceptance + accepted.mean() / (steps - 1)
                bar.update()
        (rate,) = self.path.look(acceptance)
        return position, log_weights, rate


def _systematic(shares: Tensor, generator: Generator | None) -> Tensor:
    """Systematic resampling: as many indices ``[chains, n]`` as there are shares of each point, each as often as its
    share says, up to one (Kitagawa 1996).
    """
    chains, n = shares.shape
    uniform = torch.rand(n, generator=generator, dtype=shares.dtype, device=shares.device)
    ticks = (torch.arange(chains, device=shares.device).unsqueeze(1) + uniform) / chains
    index = torch.searchsorted(shares.cumsum(0).mT.contiguous(), ticks.mT.contiguous())
    return index.clamp_max(chains - 1).mT
