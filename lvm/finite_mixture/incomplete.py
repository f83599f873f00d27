"""E-step and M-step of a finite mixture on rows with missing entries: what each column has, which adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from density.families.composed.observed_entries import ObservedEntries
from density.parallel import processes
from lvm.finite_mixture.statistics import Bounds, FiniteParameters, Table, require_possible
from lvm.mixture.covariance import Diagonal
from lvm.mixture.expectation import posterior
from lvm.mixture.statistics import EMPTY, Part, Statistics, pieces, rows_for


@dataclass(frozen=True, eq=False)
class IncompleteStatistics:
    """What the M-step needs to know of a table with holes, in float64.

    Attributes:
        count: of rows in each component, ``[K]``.
        cells: count, mean and scatter of every component and column that has a variance, each by itself: K·A of one
            number; and Σᵢ log p(x_i,o).
        seen: of how many rows the statistics of the other columns are known, ``[K, B]``.
        sums: of those statistics, ``[K, B]``.
    """

    count: Tensor
    cells: Statistics
    seen: Tensor
    sums: Tensor

    def __add__(self, other: IncompleteStatistics) -> IncompleteStatistics:
        return IncompleteStatistics(
            self.count + other.count, self.cells + other.cells, self.seen + other.seen, self.sums + other.sums
        )

    @cached_property
    def mean_log_likelihood(self) -> float:
        """Nats for each row."""
        return (self.cells.log_likelihood / self.count.sum()).item()


def log_joint(at: FiniteParameters, entries: ObservedEntries, x: Tensor) -> Tensor:
    """log π_k p(x_o|k), ``[K, n]``, of rows ``[n, D]``."""
    each = entries._log_prob(x.unsqueeze(1), at.numbers)
    return (at.logits.log_softmax(-1) + each).mT.contiguous()


@dataclass(frozen=True, eq=False)
class IncompleteTable:
    """The columns of a table as EM sees them where entries are missing.

    Attributes:
        table: the columns.
        origin: about which numbers are summed, ``[A]``.
    """

    table: Table
    origin: Tensor

    def of(self, x: Tensor, weight: Tensor, log_likelihood: Tensor) -> IncompleteStatistics:
        """Statistics of rows ``[n, D]`` in float64 with weights w r ``[K, n]``."""
        components = len(weight)
        numbers, others = self.table.statistics(ObservedEntries(self.table.product)._completed(x))
        known, known_others = self.table.known(~x.isnan())
        residual = torch.where(known, numbers - self.origin, 0.0).mT.repeat(components, 1)
        cells = (weight.unsqueeze(1) * known.mT).flatten(0, 1)
        about = self.origin.repeat(components).unsqueeze(-1)
        return IncompleteStatistics(
            weight.sum(-1),
            Statistics.of(Diagonal(), residual.unsqueeze(-1), cells, about, log_likelihood),
            weight @ known_others.double(),
            weight @ torch.where(known_others, others, 0.0),
        )

    @torch.no_grad()
    def expectation(
        self, at: FiniteParameters, parts: Iterable[Part], rows_at_once: int | None = None
    ) -> IncompleteStatistics:
        """E-step on this process's parts of the data: the statistics of all processes. O(nKN), memory free of n.

        Raises:
            CollapsedComponent: the M-step before marked a component.
            ValueError: a row has density 0 in every component.
        """
        components, features = len(at.numbers), self.table.product.features
        nothing = at.numbers.new_zeros(components, 0)
        total = self.of(nothing.new_empty(0, features), nothing, nothing.new_zeros(()))
        entries = ObservedEntries(self.table.product)
        scalars = components * max(at.numbers.shape[1], 2 * features)
        for rows, weights in pieces(parts, rows_at_once or rows_for(scalars, self.origin.device)):
            x = rows.double()
            responsibilities, log_p = posterior(log_joint(at, entries, x))
            if weights is not None:
                responsibilities, log_p = responsibilities * weights, log_p * weights
            total = total + self.of(x, responsibilities, log_p.sum())
        cells = total.cells.over_processes(self.origin.repeat(components).unsqueeze(-1))
        found = IncompleteStatistics(
            processes.total(total.count), cells, processes.total(total.seen), processes.total(total.sums)
        )
        require_possible(found.mean_log_likelihood, cells, at)
        return found

    def maximised(self, found: IncompleteStatistics, before: FiniteParameters, bounds: Bounds) -> FiniteParameters:
        r"""M-step: as that of complete rows, each column over the rows that have it.

        .. math:: \bar T_{kj} = \frac{\sum_{i: j \in o_i} w_i r_{ik} T(x_{ij}) + \alpha \bar T_j}
                                     {\sum_{i: j \in o_i} w_i r_{ik} + \alpha}

        Within a component columns are independent, so that missing ones need not be completed. A component keeps the
        numbers of columns that none of its rows has.

        Where a variance would be 0, the component is marked, for the E-step to say so.
        """
        components = len(found.count)
        rows = found.cells.count.clamp_min(EMPTY)
        mean, scatter = (each.squeeze(-1) for each in (found.cells.mean, found.cells.scatter))
        variance = scatter / rows + bounds.ridge.repeat(components)
        unseen = found.cells.count < EMPTY
        resolution = torch.finfo(mean.dtype).eps * mean.abs()  # below it a variance is rounding error
        regular = (variance > resolution.square()) | unseen
        others = (found.sums + bounds.rows * bounds.pooled) / (found.seen + bounds.rows).clamp_min(EMPTY)
        shape = components, -1
        numbers = self.table.numbers(mean.reshape(shape), variance.reshape(shape), others)
        empty = (found.count < EMPTY).unsqueeze(-1)
        kept = self.table.of_numbers(unseen.reshape(shape), empty | ((found.seen < EMPTY) & (bounds.rows == 0)))
        logits = (found.count.clamp_min(EMPTY) / found.count.sum()).log()
        after = before.having(logits, torch.where(kept, before.numbers, numbers))
        return before.keeping(after.marked(regular.reshape(shape).all(-1)))
