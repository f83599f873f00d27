"""Stochastic expectation maximisation: an M-step after every minibatch (Cappé & Moulines 2009)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.fitting.checkpoint import Checkpoint
from density.parallel import processes
from lvm.mixture.expectation import expectation
from lvm.mixture.fit import Algorithm, Run, check_starts
from lvm.mixture.regularisation import Relative, check_regularisation
from lvm.mixture.starts import KMeansPlusPlus, Start
from lvm.mixture.statistics import Part, Statistics


@dataclass(frozen=True)
class StochasticEM(Algorithm):
    r"""Online EM of Cappé & Moulines (2009, On-line expectation-maximization algorithm for latent data models).

    Statistics are kept as a running average over minibatches, and parameters follow from them after each,

    .. math:: \hat s_t = (1 - \gamma_t)\,\hat s_{t-1} + \gamma_t\,\bar s(x_t; \theta_{t-1}), \quad
        \theta_t = \operatorname{M}(\hat s_t), \quad \gamma_t = (t + t_0)^{-\alpha}.

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
    regularisation: float | Relative = field(default_factory=Relative)
    restarts: int = 1
    start: Start = field(default_factory=KMeansPlusPlus)
    progress: bool = True
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        check_count(self.epochs, "epochs")
        check_count(self.batch_size, "batch_size")
        if not 0.5 < self.exponent <= 1:
            raise ValueError(f"exponent must be in (0.5, 1], or the steps do not converge; got {self.exponent}")
        if not (math.isfinite(self.delay) and self.delay >= 0):
            raise ValueError(f"delay must be finite and at least 0; got {self.delay}")
        check_regularisation(self.regularisation)
        check_starts(self.start, self.restarts)

    def climb(self, run: Run) -> None:
        model, history = run.model, run.history
        if run.resumed:
            step, seen, averaged = run.own["step"], run.own["seen"], run.own["averaged"]
            mean = _unpacked(run.own["mean"], run)
            average = _unpacked(run.own["average"], run)
        else:
            run.begin(self.start)
            step = seen = averaged = 0
            mean = average = _implied(run)
        with run.bar("stochastic EM", self.epochs) as bar:
            while len(history.objective) < self.epochs:
                total = weight = 0.0
                for rows, weights in self._batches(run):
                    step += 1
                    size = rows.shape[0]
                    found = self._of_batch(run, rows, weights)
                    total, weight = total + found.log_likelihood.item(), weight + found.total.item()
                    rate = (step + self.delay) ** -self.exponent
                    mean = mean.times(1 - rate) + found.times(rate / (size * run.weight))
                    model.update(mean, ridge=run.ridge)
                    seen += size
                    if self.averaging and 2 * seen > self.epochs * run.n:
                        averaged += 1
                        average = average.times(1 - 1 / averaged) + mean.times(1 / averaged)
                history.objective.append(total / weight)
                bar.update()
                run.own = {
                    "step": step,
                    "seen": seen,
                    "averaged": averaged,
                    "mean": _packed(mean),
                    "average": _packed(average),
                }
                run.step()
        if averaged:
            model.update(average, ridge=run.ridge)
        history.objective.append(run.expectation().mean_log_likelihood)
        history.stopped = f"{self.epochs} epochs done"

    def _of_batch(self, run: Run, rows: Tensor, weights: Tensor | None) -> Statistics:
        """The E-step on a minibatch, of which every process takes its share."""
        own = processes.share(rows.shape[0])
        part = rows[own], None if weights is None else weights[own]
        at = run.model._gaussians()
        found = expectation(at, [part] if own.stop > own.start else [], n=own.stop - own.start, ridge=run.ridge)
        return run.model._checked(found.over_processes(at.means))

    def _batches(self, run: Run) -> Iterator[Part]:
        """Minibatches of an epoch, alike on all processes, and of about one size."""
        device = run.ridge.device
        seed = int(torch.randint(2**32, (), generator=run.generator, device=device))
        order = Generator(device).manual_seed(processes.from_main(lambda: seed))
        for rows, weights in run.rows.pairs():
            n = rows.shape[0]
            shuffled = torch.randperm(n, generator=order, device=device)
            for index in shuffled.tensor_split(math.ceil(n / self.batch_size)):
                yield rows[index], None if weights is None else weights[index]


def _implied(run: Run) -> Statistics:
    """Statistics, of total weight 1, whose M-step gives the parameters that the model has (without a ridge)."""
    model = run.model
    weights, covariances = model.weights.detach(), model.covariances.detach()
    shares = weights.new_ones(()) if model.covariance.shared else weights.reshape(-1, *[1] * (covariances.ndim - 1))
    means = model.means.detach().clone()  # the parameter itself will move
    return Statistics(model.covariance, weights, means, shares * covariances, weights.new_zeros(()))


def _packed(statistics: Statistics) -> list[Tensor]:
    return [statistics.count, statistics.mean, statistics.scatter, statistics.log_likelihood]


def _unpacked(tensors: list[Tensor], run: Run) -> Statistics:
    count, mean, scatter, log_likelihood = (t.to(run.ridge.device) for t in tensors)
    return Statistics(run.model.covariance, count, mean, scatter, log_likelihood)
