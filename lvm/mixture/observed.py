"""Gaussian mixtures of data with missing entries: density, posterior, imputation and fit (Ghahramani & Jordan 1994)."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from density.checks import check_incomplete
from density.data.rows import Rows
from density.history import History
from density.parallel import processes
from lvm.missing.observed import Observed
from lvm.missing.patterns import Patterns
from lvm.mixture.completion import Completion, MixtureAt
from lvm.mixture.covariance import CollapsedComponent, Spherical, Tied
from lvm.mixture.em import EM
from lvm.mixture.starts import Present
from lvm.mixture.statistics import Statistics, nothing

if TYPE_CHECKING:
    from lvm.mixture.model import GaussianMixture

DEFAULT = EM()


class ObservedMixture(Observed):
    r"""What a Gaussian mixture says of rows with missing entries, marked by nan.

    .. math:: p(x_o) = \sum_k \pi_k N(x_o; \mu_{k,o}, \Sigma_{k,oo})

    O(KD²) a row and O(KD³) a pattern for full and tied covariances; O(KD) a row for diagonal and spherical ones.

    Args:
        model: whose face this is.

    >>> from lvm.mixture.model import GaussianMixture
    >>> means = torch.tensor([[0.0, 0.0], [4.0, 8.0]])
    >>> model = GaussianMixture.from_parameters(torch.tensor([0.5, 0.5]), means, torch.eye(2).expand(2, 2, 2))
    >>> observed = ObservedMixture(model)
    >>> x = torch.tensor([[2.0, torch.nan]])  # half-way between the two
    >>> observed.posterior(x).tolist()
    [[0.5, 0.5]]
    >>> observed.impute(x).mean.tolist(), observed.impute(x).variance.tolist()
    ([[2.0, 4.0]], [[0.0, 17.0]])
    """

    def __init__(self, model: GaussianMixture) -> None:
        self.model = model
        self.features = model.features

    @property
    def reference(self) -> Tensor:
        return self.model.means

    def posterior(self, x: Tensor) -> Tensor:
        """Responsibilities p(k|x_o), ``[*batch, K]``, differentiable; π where nothing is observed."""
        each = self._of_each(self._rows(x), lambda completion: completion.log_joint.movedim(0, -1))
        return each.softmax(-1).to(x.dtype).reshape(*x.shape[:-1], self.model.components)

    def fit(
        self, x: Tensor, em: EM = DEFAULT, *, weights: Tensor | None = None, generator: Generator | None = None
    ) -> History:
        """Expectation maximisation of log p(x_o), in float64: without regularisation it never decreases.

        Components and missing entries are both completed; the M-step is that of complete data, with the covariance of
        what was missing added to the scatter. Starts and regularisation are those of the data with every missing entry
        at its column's mean. Rows without any entry say nothing and are left out. On complete data it is
        ``GaussianMixture.fit``.

        Args:
            x: points ``[n, D]``, nan where an entry is missing.
            em: settings; without a checkpoint; ``rows_at_once`` and ``progress`` have no effect here.
            weights: positive weights ``[n]`` of the rows; a weight of 3 is the row three times.
            generator: of the starts, on the device of x.

        On several processes each is given the same data and works on its share; all end with the same parameters.

        Returns:
            History with the mean log p(x_o) before every M-step and after the last, nats per row that has an entry.

        Raises:
            TypeError: the settings are of another algorithm, or have a checkpoint.
            TypeError, ValueError: x is no floating-point data ``[n, D]``, or is infinite somewhere, or a column has no
                entry; or the weights do not fit it; or n < K.
            CollapsedComponent: (a ValueError) a component collapsed in every start; the model is left as it was.
        """
        started = time.perf_counter()
        model = self.model
        if not isinstance(em, EM) or em.checkpoint is not None:
            raise TypeError(f"a fit to observed entries takes EM(), without a checkpoint; got {em!r}")
        check_incomplete(x, self.features, "GaussianMixture")
        Rows(x, self.features, "GaussianMixture", weights, incomplete=True)
        if x.shape[0] < model.components:
            raise ValueError(f"GaussianMixture of {model.components} components needs as many rows; got {x.shape[0]}")
        x = x.detach()
        filled = filled_with_means(x, weights)
        ridge, everyones = em.ridge(model.covariance, filled, weights), weights
        own = processes.share(x.shape[0])  # starts are made of all rows, alike on every process
        x, weights = x[own], None if weights is None else weights[own]
        patterns = self._patterns(~x.isnan())
        best: tuple[GaussianMixture, History] | None = None
        collapsed: CollapsedComponent | None = None
        failures = 0
        for _ in range(em.restarts):
            working = deepcopy(model).to(x.device).double()
            history = History(stopped=f"{em.max_iterations} iterations done")
            try:
                if not isinstance(em.start, Present):
                    given = em.start.parameters(filled, everyones, model.components, model.covariance, ridge, generator)
                    working._set(given)
                _climb(working, x, weights, patterns, em, ridge, history)
            except CollapsedComponent as error:
                collapsed, failures = error, failures + 1
                continue
            if best is None or history.objective[-1] > best[1].objective[-1]:
                best = working, history
        if best is None:
            assert collapsed is not None, "every start collapsed"
            raise collapsed
        fitted, history = best
        model.to(x)
        with torch.no_grad():
            for parameter, found in zip(model.parameters(), fitted.parameters(), strict=True):
                parameter.copy_(found)
        history.best = len(history.objective) - 1
        if failures:
            history.stopped += f"; a component collapsed in {failures} of {em.restarts} starts"
        history.seconds = time.perf_counter() - started
        return history

    def summarise(self, x: Tensor, weights: Tensor | None = None) -> Statistics:
        """E-step: statistics of x ``[n, D]``, completed under the present parameters, in float64; they add."""
        check_incomplete(x, self.features, "GaussianMixture")
        Rows(x, self.features, "GaussianMixture", weights, incomplete=True)
        own = processes.share(x.shape[0])
        x, weights = x[own], None if weights is None else weights[own]
        return summarise(self.model, x, weights, self._patterns(~x.isnan()))

    def _patterns(self, observed: Tensor, draws: int = 1) -> Patterns:
        k, d = self.model.components, self.features
        return Patterns.of(observed, 4 * k * d * draws, 4 * k * d * (d if self.model.covariance.dense else 1))

    def _of_each(self, rows: Tensor, what: Callable[[Completion], Tensor], draws: int = 1) -> Tensor:
        """Something ``[B, R, ...]`` of every block's completion, for all rows: ``[n, ...]``."""
        at = MixtureAt.of(self.model)
        patterns = self._patterns(~rows.isnan(), draws)
        return patterns.collect([what(at.complete(block, block.rows(rows))) for block in patterns.blocks])

    def _log_prob(self, rows: Tensor) -> Tensor:
        return self._of_each(rows, lambda completion: completion.log_joint.logsumexp(0))

    def _impute(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        means = self.model.means.double()[:, None, None]

        def moments(completion: Completion) -> Tensor:
            r = completion.log_joint.softmax(0).unsqueeze(-1)
            each = means + completion.deviation
            mean = (r * each).sum(0)
            variance = (r * (completion.variance().unsqueeze(2) + (each - mean).square())).sum(0)
            return torch.stack([mean, variance], -1)

        mean, variance = self._of_each(rows, moments).unbind(-1)
        return mean, torch.where(rows.isnan(), variance, 0.0)

    def _draw(self, rows: Tensor, n: int, generator: Generator | None) -> Tensor:
        means = self.model.means.double()[:, None, None, None]

        def drawn(completion: Completion) -> Tensor:
            components, patterns, repeats = completion.log_joint.shape
            r = completion.log_joint.softmax(0).movedim(0, -1).reshape(-1, components)
            chosen = torch.multinomial(r, n, replacement=True, generator=generator)
            shape = (components, patterns, repeats * n, self.features)
            noise = torch.randn(shape, generator=generator, dtype=torch.float64, device=r.device)
            each = completion.remainder(noise).unflatten(2, (repeats, n)) + completion.deviation.unsqueeze(3) + means
            index = chosen.reshape(1, patterns, repeats, n, 1).expand(1, *each.shape[1:])
            return each.gather(0, index).squeeze(0)

        return self._of_each(rows, drawn, draws=n).movedim(1, 0)


@torch.no_grad()
def summarise(model: GaussianMixture, x: Tensor, weights: Tensor | None, patterns: Patterns) -> Statistics:
    """E-step for this process's rows, of known patterns: the statistics of all processes."""
    at = MixtureAt.of(model)
    total = nothing(model.covariance, at.means)
    for block in patterns.blocks:
        completion = at.complete(block, block.rows(x))
        w = block.weights(weights) * block.mask.any(-1, keepdim=True)
        log_p = completion.log_joint.logsumexp(0)
        responsibility = w * (completion.log_joint - log_p).exp()
        part = Statistics.of(
            model.covariance,
            completion.deviation.flatten(1, 2),
            responsibility.flatten(1, 2),
            at.means,
            (w * log_p).sum(),
        )
        missing = completion.scatter(responsibility.sum(-1))
        if isinstance(model.covariance, Tied):
            missing = missing.sum(0)
        elif isinstance(model.covariance, Spherical):
            missing = missing.mean(-1)
        total = total + replace(part, scatter=part.scatter + missing)
    total = total.over_processes(at.means)
    if not bool(total.log_likelihood.isfinite()):
        raise ValueError(
            f"the log-likelihood of the data is {total.log_likelihood.item()}: some rows are so far from every "
            "component that their density is 0. Start from the data (KMeansPlusPlus), or rescale it"
        )
    return total


def filled_with_means(x: Tensor, weights: Tensor | None) -> Tensor:
    """x with every missing entry at the mean of its column's entries.

    Raises:
        ValueError: a column has no entry.
    """
    observed = ~x.isnan()
    empty = ~observed.any(0)
    if bool(empty.any()):
        raise ValueError(
            f"GaussianMixture: column {int(empty.nonzero()[0])} has no entry in any row, so it cannot be fitted. "
            "Drop it"
        )
    first = x.gather(0, observed.byte().argmax(0, keepdim=True)).double()
    w = observed.double() if weights is None else observed.double() * weights.double().unsqueeze(1)
    centred = torch.where(observed, x.double() - first, 0.0)
    mean = first + (w * centred).sum(0) / w.sum(0)
    return torch.where(observed, x, mean.to(x.dtype))


def _climb(
    model: GaussianMixture,
    x: Tensor,
    weights: Tensor | None,
    patterns: Patterns,
    em: EM,
    ridge: Tensor,
    history: History,
) -> None:
    """EM from one start."""
    for iteration in range(em.max_iterations + 1):
        statistics = summarise(model, x, weights, patterns)
        history.objective.append(statistics.mean_log_likelihood)
        if iteration and abs(history.objective[-1] - history.objective[-2]) <= em.tolerance:
            history.converged = True
            history.stopped = f"the mean log-likelihood changed by at most {em.tolerance:g}"
            return
        if iteration < em.max_iterations:
            model.update(statistics, ridge=ridge)
