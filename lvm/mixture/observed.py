"""Gaussian mixtures of data with missing entries: density, posterior, imputation and fit (Ghahramani & Jordan 1994)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from density.checks import check_settings, free_to_look
from density.data.chunks import Source
from density.data.rows import Rows
from density.history import History
from lvm.em import Climbed
from lvm.missing.columns import means
from lvm.missing.observed import Observed
from lvm.missing.patterns import Patterns
from lvm.mixture.completion import Completion, completing
from lvm.mixture.covariance import Covariance, Spherical, Tied
from lvm.mixture.em import EM
from lvm.mixture.fit import Problem
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.statistics import Statistics, nothing

Part = tuple[Tensor, Tensor | None, Patterns]

DEFAULT = EM()


class Mixture(Protocol):
    """A Gaussian mixture as its view of incomplete rows needs it: parameters to read and to set."""

    features: int
    components: int

    @property
    def covariance(self) -> Covariance:
        """The structure of the covariances."""

    def in_float64(self) -> MixtureParameters:
        """The parameters, differentiable."""

    def parameters_on(self, device: torch.device) -> MixtureParameters:
        """A copy of the parameters."""

    def take(self, climbed: Climbed[MixtureParameters], like: Tensor) -> History:
        """Go where a fit ended."""

    @property
    def reference(self) -> Tensor:
        """A tensor of the model's dtype and device."""


class ObservedMixture(Observed):
    r"""What a Gaussian mixture says of rows with missing entries, marked by nan.

    .. math:: p(x_o) = \sum_k \pi_k N(x_o; \mu_{k,o}, \Sigma_{k,oo})

    O(KD²) a row and O(KD³) a pattern for full and tied covariances; O(KD) a row for diagonal and spherical ones.

    Args:
        model: the mixture; ``model.observed`` is the short way to it.

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

    def __init__(self, model: Mixture) -> None:
        self.model = model
        self.features = model.features

    @property
    def reference(self) -> Tensor:
        return self.model.reference

    def posterior(self, x: Tensor) -> Tensor:
        """Responsibilities p(k|x_o), ``[*batch, K]``, differentiable; π where nothing is observed."""
        each = self._of_each(self._rows(x), lambda completion: completion.responsibilities().movedim(0, -1))
        return each.to(x.dtype).reshape(*x.shape[:-1], self.model.components)

    def fit(
        self, x: Source, em: EM = DEFAULT, *, weights: Tensor | None = None, generator: Generator | None = None
    ) -> History:
        """Expectation maximisation of log p(x_o), in float64: without regularisation it never decreases.

        Components and missing entries are both completed; the M-step is that of complete data, with the covariance of
        what was missing added to the scatter. Starts are those of the data with every missing entry at its column's
        mean. Rows without any entry say nothing and are left out. On complete data it is
        ``GaussianMixture.fit``. O(nKD²) an iteration, and O(KD³) for every pattern (full, tied).

        Args:
            x: points ``[n, D]``, nan where an entry is missing: a tensor, or data in chunks.
            em: settings; ``rows_at_once`` has no effect here, where blocks of patterns bound the memory.
            weights: of the rows, ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.
            generator: of the starts, on the device of x.

        On several processes each is given the same data and works on its share; all end with the same parameters.

        Returns:
            History with the mean log p(x_o) before every M-step and after the last, nats per row that has an entry.

        Raises:
            TypeError: the settings are of another algorithm.
            TypeError, ValueError: x is no floating-point data ``[n, D]``, or is infinite somewhere, or a column has no
                entry; or the weights do not fit it; or n < K.
            CollapsedComponent: (a ValueError) a component collapsed in every start; the model holds the last
                parameters before that.
        """
        check_settings(em, EM, "em", "lvm.EM()", "GaussianMixture.observed.fit")
        rows = Rows(x, self.features, "GaussianMixture", weights, incomplete=True)
        filled = rows.filled(means(rows, "GaussianMixture"))
        present = self.model.parameters_on(rows.like.device)
        problem = Problem.of(rows, filled, present, em, generator)
        parts = self._parts(rows)
        climbed = em.climb(problem, lambda at: of_incomplete_rows(at, parts()))
        return self.model.take(climbed, rows.like)

    def summarise(self, x: Source, weights: Tensor | None = None) -> Statistics:
        """E-step: statistics of x ``[n, D]``, completed under the present parameters, in float64; they add."""
        rows = Rows(x, self.features, "GaussianMixture", weights, incomplete=True)
        return of_incomplete_rows(self.model.parameters_on(rows.like.device), self._parts(rows)())

    def _parts(self, rows: Rows) -> Callable[[], Iterable[Part]]:
        """Parts of the rows with their patterns, which are found once where the rows are a tensor."""

        def found() -> Iterator[Part]:
            for x, weights in rows:
                yield x, weights, self._patterns(~x.isnan())

        if rows.whole is None:
            return found
        kept = list(found())
        return lambda: kept

    def _patterns(self, observed: Tensor, draws: int = 1) -> Patterns:
        k, d = self.model.components, self.features
        return Patterns.of(observed, 4 * k * d * draws, 4 * k * d * (d if self.model.covariance.dense else 1))

    def _of_each(self, rows: Tensor, what: Callable[[Completion], Tensor], draws: int = 1) -> Tensor:
        """Something ``[B, R, ...]`` of every block's completion, for all rows: ``[n, ...]``."""
        complete = completing(self.model.in_float64())
        patterns = self._patterns(~rows.isnan(), draws)
        return patterns.collect([what(complete(block, block.rows(rows))) for block in patterns.blocks])

    def _log_prob(self, rows: Tensor) -> Tensor:
        return self._of_each(rows, lambda completion: completion.log_joint.logsumexp(0))

    def _impute(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        means = self.model.in_float64().means[:, None, None]

        def moments(completion: Completion) -> Tensor:
            r = completion.responsibilities().unsqueeze(-1)
            each = means + completion.deviation
            mean = (r * each).sum(0)
            spread = (each - mean).square().masked_fill(r == 0, 0.0)  # which may have overflowed
            variance = (r * (completion.variance().unsqueeze(2) + spread)).sum(0)
            return torch.stack([mean, variance], -1)

        mean, variance = self._of_each(rows, moments).unbind(-1)
        return mean, torch.where(rows.isnan(), variance, 0.0)

    def _draw(self, rows: Tensor, n: int, generator: Generator | None) -> Tensor:
        means = self.model.in_float64().means[:, None, None, None]

        def drawn(completion: Completion) -> Tensor:
            components, patterns, repeats = completion.log_joint.shape
            r = completion.responsibilities().movedim(0, -1).reshape(-1, components)
            chosen = torch.multinomial(r, n, replacement=True, generator=generator)
            shape = (components, patterns, repeats * n, self.features)
            noise = torch.randn(shape, generator=generator, dtype=torch.float64, device=r.device)
            each = completion.remainder(noise).unflatten(2, (repeats, n)) + completion.deviation.unsqueeze(3) + means
            index = chosen.reshape(1, patterns, repeats, n, 1).expand(1, *each.shape[1:])
            return each.gather(0, index).squeeze(0)

        return self._of_each(rows, drawn, draws=n).movedim(1, 0)


@torch.no_grad()
def of_incomplete_rows(at: MixtureParameters, parts: Iterable[Part]) -> Statistics:
    """E-step on this process's parts of incomplete data: the statistics of all processes.

    Raises:
        CollapsedComponent: the M-step before marked a covariance.
        ValueError: a row is so far from every component that its density is 0.
    """
    if free_to_look(at.means):
        at.require_regular()
    structure, complete = at.structure, completing(at)
    total = nothing(structure, at.means)
    for x, weights, patterns in parts:
        for block in patterns.blocks:
            completion = complete(block, block.rows(x))
            w = block.weights(weights) * block.mask.any(-1, keepdim=True)
            log_p = completion.log_joint.logsumexp(0)
            responsibility = w * (completion.log_joint - log_p).exp()
            part = Statistics.of(
                structure,
                completion.deviation.flatten(1, 2),
                responsibility.flatten(1, 2),
                at.means,
                (w * log_p).sum(),
            )
            missing = completion.scatter(responsibility.sum(-1))
            if isinstance(structure, Tied):
                missing = missing.sum(0)
            elif isinstance(structure, Spherical):
                missing = missing.mean(-1)
            total = total + replace(part, scatter=part.scatter + missing)
    total = total.over_processes(at.means)
    if not math.isfinite(total.mean_log_likelihood):
        at.require_regular()
    return total.possible()
