"""E-step and M-step of a finite mixture of exponential families: moments of their statistics, which add."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from density.families.composed.groups import Group
from density.families.composed.product import Product
from density.families.likelihoods.exponential import ExponentialFamily
from density.parallel import processes
from lvm.em_parameters import ModelParameters
from lvm.mixture.covariance import Diagonal, require_regular
from lvm.mixture.expectation import posterior
from lvm.mixture.statistics import EMPTY, Part, Statistics, pieces, rows_for


@dataclass(frozen=True, eq=False)
class FiniteParameters(ModelParameters):
    """Weights and numbers of K components, as a mixture stores them.

    Attributes:
        logits: log π up to a constant, ``[K]``.
        numbers: ``[K, N]``.
        fixed: the names of those that stay what they are in a fit.
    """

    names: ClassVar[tuple[str, ...]] = ("logits", "numbers")

    logits: Tensor
    numbers: Tensor
    fixed: frozenset[str] = frozenset()

    def tensors(self) -> tuple[Tensor, ...]:
        return self.logits, self.numbers

    def having(self, *tensors: Tensor) -> FiniteParameters:
        logits, numbers = tensors
        return FiniteParameters(logits, numbers, self.fixed)

    def marked(self, regular: Tensor) -> FiniteParameters:
        """The same, where a component is not regular, ``[K]``, with numbers of nan, which say so."""
        return self.having(self.logits, torch.where(regular.unsqueeze(-1), self.numbers, torch.nan))

    def require_regular(self) -> None:
        """Raise CollapsedComponent if a component was marked."""
        require_regular(~self.numbers.isnan().any(-1), "FiniteMixture")


@dataclass(frozen=True, eq=False)
class TableStatistics:
    """What the M-step needs to know of a table, in float64.

    Attributes:
        dispersed: count, mean and scatter of the columns whose families have a mean and a variance, and Σᵢ log p(xᵢ).
        sums: Σᵢ wᵢ r_ik T(xᵢ) of the statistics of all others, ``[K, B]``.
    """

    dispersed: Statistics
    sums: Tensor

    def __add__(self, other: TableStatistics) -> TableStatistics:
        return TableStatistics(self.dispersed + other.dispersed, self.sums + other.sums)

    def over_processes(self, origin: Tensor) -> TableStatistics:
        """The sum over all processes, the same in every one."""
        if processes.world() == 1:
            return self
        return TableStatistics(self.dispersed.over_processes(origin), processes.total(self.sums))

    @property
    def origin(self) -> Tensor:
        """The mean of the columns that have a variance, in the first component's rows: ``[A]``."""
        return self.dispersed.mean[0]


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a table as EM sees them.

    Attributes:
        groups: columns of one exponential family each.
        product: of their densities, in float64.
    """

    groups: tuple[Group, ...]
    product: Product

    def families(self) -> Iterator[tuple[ExponentialFamily, tuple[int, ...]]]:
        """Each family, and its columns."""
        for group in self.groups:
            assert isinstance(group.likelihood, ExponentialFamily), "the model has checked it"
            yield group.likelihood, group.columns

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows ``[n, D]``: the columns that have a variance ``[n, A]``, and the statistics of the others."""
        empty = x[:, :0]
        found: tuple[list[Tensor], list[Tensor]] = ([empty], [empty])
        for (family, _), own in zip(self.families(), self.product.split(x), strict=True):
            found[not family.dispersed].append(family.statistics(own))
        return torch.cat(found[0], -1), torch.cat(found[1], -1)

    def known(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Which of these follow from the entries that are observed, ``[n, D]``: booleans ``[n, A]`` and ``[n, B]``."""
        empty = observed[:, :0]
        found: tuple[list[Tensor], list[Tensor]] = ([empty], [empty])
        for (family, _), own in zip(self.families(), self.product.split(observed), strict=True):
            found[not family.dispersed].append(own if family.dispersed else own.repeat(1, family.moments))
        return torch.cat(found[0], -1), torch.cat(found[1], -1)

    def variances(self, at: FiniteParameters) -> Tensor:
        """Those of the columns that have one, in every component: ``[K, A]``."""
        found, first = [at.numbers[:, :0]], 0
        for family, columns in self.families():
            own = slice(first, first + family.width(len(columns)))
            found += [family.variance(at.numbers[:, own])] if family.dispersed else []
            first = own.stop
        return torch.cat(found, -1)

    def called(self, number: int) -> str:
        """The column in the table of one of those that have a variance."""
        return str([c for family, columns in self.families() if family.dispersed for c in columns][number])

    def vague(self, like: Tensor) -> Tensor:
        """The means of the other statistics in a row that knows nothing, ``[B]``."""
        each = [like.new_full((f.moments * len(c),), f.vague) for f, c in self.families() if not f.dispersed]
        return torch.cat([like[:0], *each])

    def nothing(self, components: int, origin: Tensor) -> TableStatistics:
        """Statistics of no rows."""
        return self.of(origin.new_empty(0, self.product.features), origin.new_empty(components, 0), origin)

    def of(self, rows: Tensor, weight: Tensor, origin: Tensor, log_likelihood: Tensor | None = None) -> TableStatistics:
        """Statistics of rows ``[n, D]`` with weights w r ``[K, n]``, formed about an origin ``[A]``."""
        dispersed, others = self.statistics(rows)
        residual = (dispersed - origin).expand(len(weight), -1, -1)
        value = rows.new_zeros(()) if log_likelihood is None else log_likelihood
        about = origin.expand(len(weight), -1)
        return TableStatistics(Statistics.of(Diagonal(), residual, weight, about, value), weight @ others)

    def numbers(self, mean: Tensor, variance: Tensor, others: Tensor) -> Tensor:
        """The numbers ``[K, N]`` at which columns have mean and variance ``[K, A]``, and the others' statistics a mean
        ``[K, B]``.
        """
        numbers, first, other = [], 0, 0
        for family, columns in self.families():
            if family.dispersed:
                own = slice(first, first + len(columns))
                numbers.append(family.maximum(mean[:, own], variance[:, own]))
                first = own.stop
            else:
                own = slice(other, other + family.moments * len(columns))
                numbers.append(family.maximum(others[:, own]))
                other = own.stop
        return torch.cat(numbers, -1)

    def of_numbers(self, of_moments: Tensor, of_others: Tensor) -> Tensor:
        """For each of the numbers ``[K, N]`` what is said of its column: ``[K, A]``, and of the others' statistics."""
        found, first, other = [], 0, 0
        for family, columns in self.families():
            width = len(columns)
            if family.dispersed:
                own, first = of_moments[:, first : first + width], first + width
            else:
                own, other = of_others[:, other : other + width], other + family.moments * width
            found.append(own.repeat(1, family.width(width) // width))
        return torch.cat(found, -1)

    def log_joint(self, at: FiniteParameters, x: Tensor) -> Tensor:
        """log π_k p(x|k), ``[K, n]``."""
        each = self.product._log_prob_at_each(x, at.numbers)
        return (at.logits.log_softmax(-1) + each).mT.contiguous()


@dataclass(frozen=True, eq=False)
class Bounds:
    """What keeps a component from a few rows: EM maximises the likelihood of the table and of this beside it.

    Attributes:
        ridge: added to every variance, ``[A]``.
        pooled: the mean of the other statistics in the whole table, and in one row more that knows nothing, ``[B]``.
        rows: how many rows of that mean every component sees beside its own.
    """

    ridge: Tensor
    pooled: Tensor
    rows: float


@torch.no_grad()
def expectation(
    at: FiniteParameters, table: Table, parts: Iterable[Part], origin: Tensor, rows_at_once: int | None = None
) -> TableStatistics:
    """E-step on this process's parts of the data: the statistics of all processes. O(nKN), memory free of n.

    Raises:
        CollapsedComponent: the M-step before marked a component.
        ValueError: a row has density 0 in every component.
    """
    total = table.nothing(len(at.logits), origin)
    components, numbers = at.numbers.shape
    scalars = max(numbers, components * table.product.features)
    for rows, weights in pieces(parts, rows_at_once or rows_for(scalars, origin.device)):
        x = rows.double()
        responsibilities, log_p = posterior(table.log_joint(at, x))
        if weights is not None:
            responsibilities, log_p = responsibilities * weights, log_p * weights
        total = total + table.of(x, responsibilities, origin, log_p.sum())
    total = total.over_processes(origin.expand(len(at.logits), -1))
    require_possible(total.dispersed.mean_log_likelihood, total.dispersed, at)
    return total


def require_possible(value: float, moments: Statistics, at: FiniteParameters) -> None:
    """Raise what a log-likelihood that is no number means: a component that the M-step marked, or a density of 0."""
    if not math.isfinite(value):
        at.require_regular()
        moments.possible()


def maximised(table: Table, found: TableStatistics, before: FiniteParameters, bounds: Bounds) -> FiniteParameters:
    r"""M-step: matched moments, variances with a ridge, and the others' means with some rows of the whole table beside.

    .. math:: \bar T_k = \frac{\sum_i w_i r_{ik} T(x_i) + \alpha \bar T}{N_k + \alpha}

    It is the maximum of the expected log-joint and of α rows of mean T̄ for each component: without them, a category
    that a component has not seen would be impossible in it. A component without rows keeps its numbers.

    Where a variance would be 0, the component is marked, for the E-step to say so.
    """
    moments, count = found.dispersed, found.dispersed.count
    empty = (count < EMPTY).unsqueeze(-1)
    logits = (count.clamp_min(EMPTY) / moments.total).log()
    rows = count.clamp_min(EMPTY).unsqueeze(-1)
    variances = moments.scatter / rows + bounds.ridge
    resolution = torch.finfo(variances.dtype).eps * moments.mean.abs()  # below it a variance is rounding error
    regular = ((variances > resolution.square()) | empty).all(-1)
    means = (found.sums + bounds.rows * bounds.pooled) / (rows + bounds.rows)
    numbers = table.numbers(moments.mean, variances, means)
    after = before.having(logits, torch.where(empty, before.numbers, numbers))
    return before.keeping(after.marked(regular))
