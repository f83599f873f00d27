"""A finite mixture to be fitted to a table by EM: its spread, its starts, and ways up from where EM rests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor

from density.data.digest import data_in_words
from density.data.rows import Rows
from density.fitting.checkpoint import Logbook
from density.parallel import processes
from density.parallel.random_streams import Randomness
from lvm.em import Climbed, Limits, Present, climb
from lvm.finite_mixture.components import ProductComponents
from lvm.finite_mixture.statistics import Bounds, FiniteParameters, Table, TableStatistics, expectation, maximised
from lvm.mixture.covariance import CollapsedComponent, Diagonal
from lvm.mixture.em import EM
from lvm.mixture.fit import some
from lvm.mixture.regularisation import noticed, ridge_of
from lvm.mixture.splits import pairs, shares
from lvm.mixture.starts import MOST_ROWS, sample
from lvm.mixture.statistics import Statistics

S = TypeVar("S")

STILL = 1e-6  # of the variance of a statistic, which clusters of equal values would not have
FEWEST_ROWS = 1.0  # of the whole table that a component sees at the start: no category is impossible from there


@dataclass(frozen=True, eq=False)
class Problem:
    """A finite mixture and the table that it is to be fitted to.

    Attributes:
        table: its columns.
        rows: the data.
        present: the model's parameters, in float64 on the device of the data.
        n: how many rows there are, on all processes.
        columns: the statistics of all rows together.
        scale: of all statistics, by which starts measure distances: standard deviations, 1 of what has less than
            1 and is no number.
        bounds: what keeps a component from a few rows.
        em: settings.
        generator: of the starts.
        gaps: which entries of the rows are missing, ``[n, D]``, where others stand for them; None if none is.
    """

    table: Table
    rows: Rows
    present: FiniteParameters
    n: int
    columns: TableStatistics
    scale: Tensor
    bounds: Bounds
    em: EM
    generator: Generator | None
    gaps: Tensor | None = None

    @staticmethod
    def of(
        decoder: ProductComponents,
        rows: Rows,
        present: FiniteParameters,
        em: EM,
        smoothing: float,
        generator: Generator | None,
    ) -> Problem:
        """Check the rows' values, count them and measure their spread, in one pass over the data.

        Raises:
            ValueError: a value that no component can have; fewer rows than components; or a column of numbers that is
                constant, so that the likelihood has no maximum.
        """
        present.require_free("FiniteMixture")
        components = len(present.logits)
        table = Table(decoder.groups, deepcopy(decoder.product).to(rows.like.device, torch.float64))
        n, columns = _survey(table, rows)
        if n < components:
            raise ValueError(f"FiniteMixture of {components} components needs at least as many rows; got {n}")
        x, weights = some(rows, n)
        numbers, others = table.statistics(x.double())
        moments, ridge = columns.dispersed, columns.origin
        if len(ridge):
            ridge = ridge_of(
                em.regularisation, Diagonal(), moments, (numbers, weights), components, "FiniteMixture", table.called
            )
        spread = (moments.scatter[0] / moments.total + ridge).sqrt()
        deviation = (others - others.mean(0)).square().mean(0).sqrt()
        scale = torch.cat([spread, deviation.clamp_min(1.0)])
        pooled = (columns.sums[0] + table.vague(scale)) / (moments.total + 1)
        return Problem(table, rows, present, n, columns, scale, Bounds(ridge, pooled, smoothing), em, generator)

    def climb(self) -> Climbed[FiniteParameters]:
        """The best parameters of all starts, in float64, and how they were reached."""

        def expected(at: FiniteParameters) -> tuple[float, TableStatistics]:
            found = expectation(at, self.table, self.rows, self.columns.origin, self.em.rows_at_once)
            return found.dispersed.mean_log_likelihood, found

        return self.climb_by(expected, lambda at, found: maximised(self.table, found, at, self.bounds))

    def climb_by(
        self,
        expected: Callable[[FiniteParameters], tuple[float, S]],
        maximise: Callable[[FiniteParameters, S], FiniteParameters],
    ) -> Climbed[FiniteParameters]:
        """The same by an E-step and an M-step."""
        em = self.em
        climbed = climb(
            self.first,
            expected,
            maximise,
            Limits(steps=em.max_iterations, tolerance=em.tolerance, restarts=em.restarts, progress=em.progress),
            Logbook(em.checkpoint, "EM fit", self._task(), Randomness(self.generator, self.rows.like.device)),
            self.present,
            CollapsedComponent,
            lambda at, found: self.ways_up(at),
        )
        if climbed.parameters is not None and len(self.bounds.ridge):
            share = self.bounds.ridge / self.table.variances(climbed.parameters)
            component, column = divmod(int(share.argmax()), share.shape[1])
            which = f"the variance of column {self.table.called(column)} in component {component}"
            climbed.history.stopped += noticed(share, which)
        return climbed

    def first(self) -> FiniteParameters:
        """Parameters to start from: clusters of the rows' statistics, each in units of its spread."""
        start, components = self.em.start, len(self.present.logits)
        if isinstance(start, Present):
            return self.present
        x, weights = sample(self.rows, self.n, components, self.generator)
        if len(x) > MOST_ROWS:
            chosen = torch.randperm(len(x), generator=self.generator, device=x.device)[:MOST_ROWS]
            x, weights = x[chosen], None if weights is None else weights[chosen]
        ridge = torch.full_like(self.scale, STILL)
        found = start.parameters(self._scaled(x), weights, components, Diagonal(), ridge, self.generator)
        widths = [len(self.bounds.ridge), len(self.bounds.pooled)]
        means, others = (found.means * self.scale).split(widths, -1)
        variances = (found.covariances * self.scale.square())[:, : widths[0]]
        count = (found.weights * self.n).unsqueeze(-1)
        moments = Statistics(
            Diagonal(), count.squeeze(-1), means + self.columns.origin, variances * count, count.new_zeros(())
        )
        bounds = Bounds(self.bounds.ridge, self.bounds.pooled, max(FEWEST_ROWS, self.bounds.rows))
        first = maximised(self.table, TableStatistics(moments, others * count), self.present, bounds)
        first.require_regular()
        return first

    @torch.no_grad()
    def ways_up(self, at: FiniteParameters) -> Iterator[FiniteParameters]:
        """Parameters in which two components that coincide share their rows by where these lie (lvm.mixture.splits)."""
        if at.fixed:
            return
        x, weights = some(self.rows, self.n)
        x = x.double()
        w = torch.ones_like(x[:, 0]) if weights is None else weights.double()
        log_joint, seen = self.table.log_joint(at, x), self._scaled(x)
        owned = log_joint.softmax(0) * w
        for pair in pairs(log_joint, owned):
            both = owned[pair].sum(0)
            best, least = None, -torch.inf
            for share in shares(seen, both):
                parted = self._parted(at, pair, x, torch.stack([both * share, both * (1 - share)]))
                if parted is None:
                    continue
                replaced = log_joint.clone()
                replaced[pair] = self.table.log_joint(parted, x)[pair]
                value = (w @ replaced.logsumexp(0)).item()
                if value > least:
                    best, least = parted, value
            if best is not None:
                yield best

    def _parted(self, at: FiniteParameters, pair: list[int], x: Tensor, owned: Tensor) -> FiniteParameters | None:
        """The mixture where two components have the rows x with weights ``[2, m]``; None where that has no maximum."""
        two = at.having(at.logits[pair], at.numbers[pair])
        try:
            two = maximised(self.table, self.table.of(x, owned, self.columns.origin), two, self.bounds)
            two.require_regular()
        except CollapsedComponent:
            return None
        logits, numbers = at.logits.log_softmax(-1), at.numbers.clone()
        logits[pair] = logits[pair].logsumexp(-1) + two.logits.log_softmax(-1)
        numbers[pair] = two.numbers
        return at.having(logits, numbers)

    def _scaled(self, x: Tensor) -> Tensor:
        """The statistics of rows ``[n, D]``, each in units of its spread: ``[n, A + B]``."""
        numbers, others = self.table.statistics(x.double())
        return torch.cat([numbers - self.columns.origin, others], -1) / self.scale

    def _task(self) -> dict[str, Any]:
        """What makes a fit this one, by which a checkpoint knows it; nothing where there is none."""
        em, present = self.em, self.present
        if em.checkpoint is None:
            return {}
        settings = {name: v for name, v in vars(em).items() if name not in ("checkpoint", "progress", "start")}
        start = f"{em.start} {data_in_words(present.tensors())}" if isinstance(em.start, Present) else repr(em.start)
        columns = ", ".join(f"{group.likelihood!r} of {list(group.columns)}" for group in self.table.groups)
        return (
            {
                "model": f"FiniteMixture of {len(present.logits)} components: {columns}",
                "data": self.rows.in_words(),
                "algorithm": em.in_words(),
                "start": start,
                "smoothing": self.bounds.rows,
            }
            | ({} if self.gaps is None else {"missing": data_in_words([self.gaps])})
            | {name: value if isinstance(value, int | float) else repr(value) for name, value in settings.items()}
            | present.fixed_in_words()
        )


def _survey(table: Table, rows: Rows) -> tuple[int, TableStatistics]:
    """How many rows there are, and the statistics of all of them, on all processes; their values are checked."""
    n = 0
    origin = table.statistics(rows.like.double())[0][0]
    total = table.nothing(1, origin)
    for chunk, weights in rows.pairs():
        table.product.check_support(chunk)
        n += len(chunk)
        own = processes.share(len(chunk))
        if own.stop > own.start:
            part = chunk[own].double()
            w = part.new_ones(len(part)) if weights is None else weights[own].double()
            total = total + table.of(part, w.unsqueeze(0), origin)
    return n, total.over_processes(origin.unsqueeze(0))
