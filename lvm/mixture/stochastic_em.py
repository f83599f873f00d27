"""Stochastic expectation maximisation: an M-step after every minibatch (Cappé & Moulines 2009)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from density.checks import free_to_look, settle_counts
from density.fitting.checkpoint import Checkpoint
from density.parallel import processes
from lvm.em import Climbed, Limits, Present, climb
from lvm.em_parameters import Parameters
from lvm.mixture.covariance import CollapsedComponent
from lvm.mixture.expectation import of_all_rows, summed, unlooked
from lvm.mixture.fit import Algorithm, Problem, check_start
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.regularisation import Local, Regularisation, check_regularisation
from lvm.mixture.starts import KMeansPlusPlus, Start
from lvm.mixture.statistics import Part, Statistics

Expect = Callable[..., Statistics]  # of parameters and parts of the data


@dataclass(frozen=True)
class StochasticEM(Algorithm):
    r"""Online EM of Cappé & Moulines (2009, On-line expectation-maximization algorithm for latent data models).

    Statistics are kept as a running average over minibatches, and parameters follow from them after each,

    .. math:: \hat s_t = (1 - \gamma_t)\,\hat s_{t-1} + \gamma_t\,\bar s(x_t; \theta_{t-1}), \quad
        \theta_t = \operatorname{M}(\hat s_t), \quad \gamma_t = (t + t_0)^{-\alpha}.

    A minibatch of fewer rows than the largest, such as a last one, is that part b of a step: t grows by b and its γ is
    b (t + t₀)^(−α), so that every row counts alike (with α = 1 and t₀ = 0, s is the plain average of all rows).

    One pass over much data does what EM needs many for. With α in (1/2, 1] the steps add up to infinity and their
    squares do not, as convergence to a stationary point of the likelihood requires; below 1 the average of the
    iterates over the second half of the rows (Polyak & Juditsky 1992) takes the noise out. Averaged are the statistics,
    of which the parameters are a smooth function.

    A tensor's rows are drawn in a new order in every epoch; data in chunks is taken chunk by chunk, in a new order
    within each: let a loader shuffle what was written down in some order. On several processes each works on its share
    of every minibatch.

    Args:
        epochs: passes over the data.
        batch_size: rows in a minibatch.
        exponent: α.
        delay: t₀ ≥ 0: the larger, the less the first minibatches count against the start.
        averaging: average over the second half?
        regularisation: as in :class:`~lvm.mixture.em.EM`.
        restarts: starts to try; the one with the highest final log-likelihood is kept.
        start: as in :class:`~lvm.mixture.em.EM`.
        progress: show a progress bar, if there is a terminal to show it on.
        checkpoint: where, and after how many epochs or minutes, to write the state of the fit; it is written between
            epochs.

    The history has the mean log p(x) of every epoch, of each row before the step that used it, and at last that of all
    rows under the final parameters.

    Raises:
        ValueError: a setting is out of range.

    >>> from lvm import GaussianMixture
    >>> x = torch.randn(4000, 1, generator=Generator().manual_seed(0), dtype=torch.float64) * 2 + 7
    >>> model = GaussianMixture(1, 1)
    >>> history = model.fit(x, em=StochasticEM(epochs=2, batch_size=100), generator=Generator().manual_seed(0))
    >>> bool((model.means - x.mean()).abs() < 0.05), len(history.objective)
    (True, 3)
    """

    epochs: int = 10
    batch_size: int = 1000
    exponent: float = 0.6
    delay: float = 10.0
    averaging: bool = True
    regularisation: Regularisation = field(default_factory=Local)
    restarts: int = 1
    start: Start | Present = field(default_factory=KMeansPlusPlus)
    progress: bool = True
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        settle_counts(self, "epochs", "batch_size", "restarts")
        if not 0.5 < self.exponent <= 1:
            raise ValueError(f"exponent must be in (0.5, 1], or the steps do not converge; got {self.exponent}")
        if not (math.isfinite(self.delay) and self.delay >= 0):
            raise ValueError(f"delay must be finite and at least 0; got {self.delay}")
        check_regularisation(self.regularisation)
        check_start(self.start, self.restarts)

    def in_words(self) -> str:
        return "StochasticEM, by rows"

    def climb(self, problem: Problem) -> Climbed[MixtureParameters]:
        """The best parameters of all starts, in float64, and how they were reached: a step of the climb is an epoch."""

        def expected(at: Running) -> tuple[float, Running]:
            if at.epochs < self.epochs:
                return self._epoch(problem, at)
            return of_all_rows(at.parameters, problem.rows, ridge=problem.ridge).mean_log_likelihood, at

        def finished(_: Running, at: Running) -> Running:
            if at.epochs < self.epochs or not at.averaged:
                return at
            return replace(at, parameters=at.average.maximise(at.parameters, problem.ridge))

        limits = Limits(
            steps=self.epochs, restarts=self.restarts, progress=self.progress, name="stochastic EM", unit="epochs"
        )
        climbed = climb(
            lambda: Running.begin(problem.first(self.start)),
            expected,
            finished,
            limits,
            problem.log(self),
            Running.begin(problem.present),
            CollapsedComponent,
        )
        reached = climbed.parameters
        return problem.ended(Climbed(None if reached is None else reached.parameters, climbed.history, climbed.error))

    def _epoch(self, problem: Problem, at: Running) -> tuple[float, Running]:
        """One pass over the rows; the mean log p(x) of each before the step that used it, and where it led.

        Where a look waits, there is one at the end; if something went wrong, the pass is made again with more.
        """
        device = problem.ridge.device
        seed = int(torch.randint(2**32, (), generator=problem.generator, device=device))
        seed = processes.from_main(lambda: seed)
        if not free_to_look(problem.ridge):
            value, reached = self._pass(problem, at, seed, unlooked)
            if math.isfinite(value):
                return value, reached
        return self._pass(problem, at, seed, summed)

    def _pass(self, problem: Problem, at: Running, seed: int, expect: Expect) -> tuple[float, Running]:
        """The epoch whose order of rows has this seed, by an E-step of a minibatch."""
        parameters, mean, average = at.parameters, at.mean, at.average
        seen, averaged = at.seen, at.averaged
        total = weight = problem.ridge.new_zeros(())
        most = max(self._sizes(n)[0] for n in problem.lengths)
        for rows, weights in self._batches(problem, seed):
            found = _of_batch(problem, parameters, rows, weights, expect)
            total, weight = total + found.log_likelihood, weight + found.total
            n = rows.shape[0]
            seen += n
            rate = n / most * (seen / most + self.delay) ** -self.exponent
            mean = mean.times(1 - rate) + found.times(rate / (n * problem.weight))
            parameters = mean.maximise(parameters, problem.ridge)
            if self.averaging and 2 * seen > self.epochs * problem.n:
                averaged += n
                average = average.times(1 - n / averaged) + mean.times(n / averaged)
        return (total / weight).item(), Running(parameters, mean, average, at.epochs + 1, seen, averaged)

    def _sizes(self, n: int) -> list[int]:
        """Sizes of the minibatches that n rows are cut into, the largest first."""
        pieces = math.ceil(n / self.batch_size)
        return [n // pieces + (piece < n % pieces) for piece in range(pieces)]

    def _batches(self, problem: Problem, seed: int) -> Iterator[Part]:
        """Minibatches of an epoch, alike on all processes, and of about one size."""
        device = problem.ridge.device
        order = Generator(device).manual_seed(seed)
        for rows, weights in problem.rows.pairs():
            n = rows.shape[0]
            shuffled = torch.randperm(n, generator=order, device=device)
            for index in shuffled.split(self._sizes(n)):
                yield rows[index], None if weights is None else weights[index]


@dataclass(frozen=True, eq=False)
class Running(Parameters):
    """The state of stochastic EM between two epochs.

    Attributes:
        parameters: those of the last M-step.
        mean: the running average of the statistics, of total weight 1.
        average: the average of that over the second half of the rows.
        epochs, seen, averaged: epochs done, rows read, and rows in the average.
    """

    parameters: MixtureParameters
    mean: Statistics
    average: Statistics
    epochs: int = 0
    seen: int = 0
    averaged: int = 0

    @staticmethod
    def begin(parameters: MixtureParameters) -> Running:
        """From these parameters, and statistics whose M-step gives them (without a ridge)."""
        structure, weights, covariances = parameters.structure, parameters.weights, parameters.covariances
        shares = weights.new_ones(()) if structure.shared else weights.reshape(-1, *[1] * (covariances.ndim - 1))
        implied = Statistics(structure, weights, parameters.means, shares * covariances, weights.new_zeros(()))
        return Running(parameters, implied, implied)

    def require_regular(self) -> None:
        self.parameters.require_regular()

    def tensors(self) -> tuple[Tensor, ...]:
        counts = torch.tensor([self.epochs, self.seen, self.averaged])
        return *self.parameters.tensors(), *self.mean.tensors(), *self.average.tensors(), counts

    def having(self, *tensors: Tensor) -> Running:
        structure = self.parameters.structure
        return Running(
            self.parameters.having(*tensors[:3]),
            Statistics(structure, *tensors[3:7]),
            Statistics(structure, *tensors[7:11]),
            *tensors[11].tolist(),
        )


def _of_batch(
    problem: Problem, at: MixtureParameters, rows: Tensor, weights: Tensor | None, expect: Expect
) -> Statistics:
    """The E-step on a minibatch, of which every process takes its share."""
    own = processes.share(rows.shape[0])
    part = rows[own], None if weights is None else weights[own]
    parts = [part] if own.stop > own.start else []
    return expect(at, parts, n=own.stop - own.start, ridge=problem.ridge)
