"""Finite mixtures of data with missing entries: density, posterior, imputation and fit."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from density.checks import check_incomplete
from density.data.rows import Rows, check_weights
from density.families.categorical import Categorical, draw_classes
from density.families.composed.observed_entries import ObservedEntries
from density.families.likelihoods.exponential import ExponentialFamily
from density.history import History
from density.log_density import LogDensity
from density.measure import ReferenceMeasure
from lvm.em import Climbed
from lvm.finite_mixture.components import ProductComponents
from lvm.finite_mixture.fit import Problem
from lvm.finite_mixture.incomplete import IncompleteStatistics, IncompleteTable, log_joint
from lvm.finite_mixture.statistics import FiniteParameters
from lvm.missing.columns import completed
from lvm.missing.observed import Observed
from lvm.mixture.em import EM

SCALARS_AT_ONCE = 2**20
DEFAULT = EM()


class Mixture(Protocol):
    """A finite mixture as its view of incomplete rows needs it: parameters to read and to set."""

    features: int
    components: int
    measure: ReferenceMeasure
    prior: Categorical
    decoder: ProductComponents

    @property
    def reference(self) -> Tensor:
        """A tensor of the model's dtype and device."""

    def parameters_on(self, device: torch.device) -> FiniteParameters:
        """A copy of the parameters."""

    def check_settings(self, em: EM, smoothing: float, owner: str) -> None:
        """Raise unless they are settings of its EM."""

    def take(self, climbed: Climbed[FiniteParameters], like: Tensor) -> History:
        """Go where a fit ended."""


class ObservedFiniteMixture(Observed):
    r"""What a finite mixture says of rows with missing entries, marked by nan.

    .. math:: p(x_o) = \sum_k \pi_k \prod_{j \in o} p_j(x_j | \theta_{kj})

    O(KN) a row, for N numbers of a component.

    Args:
        model: the mixture; ``model.observed`` is the short way to it.

    >>> from density.families.likelihoods.bernoulli import BernoulliLikelihood
    >>> from lvm.finite_mixture.model import FiniteMixture
    >>> model = FiniteMixture(2, 2, BernoulliLikelihood())
    >>> with torch.no_grad():
    ...     _ = model.decoder.numbers.copy_(torch.tensor([[9.0, 9.0], [-9.0, -9.0]]))
    >>> x = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
    >>> model.observed.log_prob(x).exp()
    tensor([0.5000, 1.0000], grad_fn=<ExpBackward0>)
    >>> round(model.observed.impute(x).mean[0, 1].item(), 3)
    1.0
    """

    def __init__(self, model: Mixture) -> None:
        self.model = model
        self.features, self.measure = model.features, model.measure

    @property
    def reference(self) -> Tensor:
        return self.model.reference

    def posterior(self, x: Tensor) -> Tensor:
        """Responsibilities p(k|x_o), ``[*batch, K]``, differentiable; π where nothing is observed."""
        rows = self._rows(x)
        return self._log_joint(rows).softmax(-1).to(x.dtype).reshape(*x.shape[:-1], self.model.components)

    def fit(
        self,
        x: Tensor,
        em: EM = DEFAULT,
        *,
        smoothing: float = 1.0,
        weights: Tensor | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Expectation maximisation of log p(x_o), in float64, of families whose maximum has a closed form.

        It never decreases without regularisation and smoothing: the M-step matches the moments of each column over the
        rows that have it. Starts, ways up and the spread that regularises are those of the data in which other rows'
        entries stand for missing ones. Rows without any entry say nothing and are left out. On complete data it is
        ``FiniteMixture.fit``. O(nKN) an iteration.

        Args:
            x: points ``[n, D]``, nan where an entry is missing.
            em, smoothing, weights, generator: as in ``FiniteMixture.fit``.

        Returns:
            History with the mean log p(x_o) before every M-step and after the last, nats per row that has an entry.

        Raises:
            TypeError: settings of another algorithm, or a family without a closed form.
            TypeError, ValueError: x is no floating-point data ``[n, D]``, or is infinite somewhere, or holds what no
                component can have; a column has no entry; the weights do not fit it; n < K.
            CollapsedComponent: (a ValueError) a variance became 0 in every start.
        """
        owner, decoder = "FiniteMixture", self.model.decoder
        self.model.check_settings(em, smoothing, f"{owner}.observed.fit")
        for group in decoder.groups:
            if not isinstance(group.likelihood, ExponentialFamily):
                raise TypeError(
                    f"{owner}.observed.fit needs families whose maximum has a closed form; got "
                    f"{type(group.likelihood).__name__} in columns {list(group.columns)}"
                )
        check_incomplete(x, self.features, owner)
        there = ~x.isnan().all(-1)
        kept = None if weights is None else check_weights(weights, owner, len(x))[there]
        own = Rows(x[there], self.features, owner, kept, incomplete=True)
        assert own.whole is not None, "it is a tensor"
        filled = Rows(completed(own.whole, owner), self.features, owner, own.weights)
        present = self.model.parameters_on(own.like.device)
        problem = Problem.of(decoder, filled, present, em, float(smoothing), generator)
        problem = replace(problem, gaps=own.whole.isnan())
        table = IncompleteTable(problem.table, problem.columns.origin)

        def expected(at: FiniteParameters) -> tuple[float, IncompleteStatistics]:
            found = table.expectation(at, own, em.rows_at_once)
            return found.mean_log_likelihood, found

        climbed = problem.climb_by(expected, lambda at, found: table.maximised(found, at, problem.bounds))
        return self.model.take(climbed, own.like)

    def log_density(self, x: Tensor) -> LogDensity:
        """The claim that ``log_prob`` makes for data ``[n, D]``; ValueError where no component can have an entry."""
        check_incomplete(x, self.features, type(self).__name__, reference=self.reference)
        ObservedEntries(self.model.decoder.product).check_support(x)
        return super().log_density(x)

    def _in_float64(self) -> tuple[FiniteParameters, ObservedEntries]:
        """Parameters, differentiable, and the density that takes them."""
        decoder = self.model.decoder
        return (
            FiniteParameters(self.model.prior.logits.double(), decoder.numbers.double()),
            ObservedEntries(deepcopy(decoder.product).to(self.reference.device, torch.float64)),
        )

    def _log_joint(self, rows: Tensor) -> Tensor:
        """log π_k p(x_o|k), ``[n, K]``, float64."""
        at, entries = self._in_float64()
        most = max(1, SCALARS_AT_ONCE // at.numbers.numel())
        return torch.cat([log_joint(at, entries, part.double()).mT for part in rows.split(most)])

    def _log_prob(self, rows: Tensor) -> Tensor:
        return self._log_joint(rows).logsumexp(-1)

    def _impute(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        at, entries = self._in_float64()
        each = entries._expectation(at.numbers)
        r = self._log_joint(rows).softmax(-1)
        mean = r @ each
        spread = self._of_columns(at.numbers, lambda family, own: family.variance(own))
        variance = r @ (spread + each.square()) - mean.square()
        return mean, torch.where(rows.isnan(), variance.clamp_min(0.0), 0.0)

    def _of_columns(self, numbers: Tensor, what: Callable[[ExponentialFamily, Tensor], Tensor]) -> Tensor:
        """Something that families say of their numbers, of every component and column, ``[K, D]``."""
        product = self.model.decoder.product
        found = []
        widths = [group.width for group in self.model.decoder.groups]
        for group, own in zip(self.model.decoder.groups, numbers.split(widths, -1), strict=True):
            if not isinstance(group.likelihood, ExponentialFamily):
                raise TypeError(
                    f"FiniteMixture.observed.impute needs families whose variance has a closed form; got "
                    f"{type(group.likelihood).__name__}. Use draw"
                )
            found.append(what(group.likelihood, own))
        return product._joined(found)

    def _draw(self, rows: Tensor, n: int, generator: Generator | None) -> Tensor:
        at, entries = self._in_float64()
        log_r = self._log_joint(rows).log_softmax(-1)
        chosen = draw_classes(n, log_r, generator, "FiniteMixture")
        return entries._sample(1, at.numbers[chosen], generator).squeeze(0)
