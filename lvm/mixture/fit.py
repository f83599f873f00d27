"""A Gaussian mixture to be fitted to data: what its EM algorithms have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from density.checks import check_count, in_words
from density.data.digest import data_in_words
from density.data.rows import Rows
from density.fitting.checkpoint import Checkpoint, Logbook
from density.parallel import processes
from density.parallel.random_streams import Randomness
from lvm.em import Climbed, Present
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.regularisation import Regularisation, felt, ridge_of, spread
from lvm.mixture.starts import Given, Start, sample
from lvm.mixture.statistics import Part, Statistics

SOME_ROWS = 2**13  # by which the ridge and the shares of split components are chosen

Expect = Callable[[MixtureParameters], Statistics]


class Algorithm(ABC):
    """A way to climb: :class:`~lvm.mixture.em.EM` or :class:`~lvm.mixture.stochastic_em.StochasticEM`.

    Attributes:
        regularisation: what every M-step adds to covariances.
        restarts: starts to try.
        start: where to start.
        progress: show a progress bar?
        checkpoint: where to write the state of the fit.
    """

    regularisation: Regularisation
    restarts: int
    start: Start | Present
    progress: bool
    checkpoint: Checkpoint | None

    def in_words(self) -> str:
        """What a checkpoint knows it by, beside its settings."""
        return type(self).__name__

    @abstractmethod
    def climb(self, problem: Problem) -> Climbed[MixtureParameters]:
        """The best parameters of all starts, in float64, and how they were reached."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A mixture and the data that it is to be fitted to.

    Attributes:
        rows: the data.
        complete: the same without missing entries, which starts are made from.
        present: the model's parameters, in float64 on the device of the data.
        n: how many rows there are, on all processes.
        lengths: of the chunks that they come in.
        weight: their mean weight.
        ridge: what the M-step adds to the diagonal of covariances, ``[D]``.
        generator: of starts and of the order of rows.
    """

    rows: Rows
    complete: Rows
    present: MixtureParameters
    n: int
    lengths: set[int]
    weight: float
    ridge: Tensor
    generator: Generator | None

    @staticmethod
    def of(
        rows: Rows, complete: Rows, present: MixtureParameters, algorithm: Algorithm, generator: Generator | None
    ) -> Problem:
        """Count the rows and measure their spread, in one pass over the data.

        Raises:
            ValueError: fewer rows than components, or so alike that even one component for all has no density.
        """
        present.require_free("GaussianMixture")
        lengths, columns = _survey(complete)
        n = sum(lengths)
        components = present.means.shape[0]
        if n < components:
            raise ValueError(f"GaussianMixture of {components} components needs at least as many rows; got {n}")
        ridge = ridge_of(algorithm.regularisation, present.structure, columns, some(rows, n), components)
        return Problem(rows, complete, present, n, set(lengths), columns.total.item() / n, ridge, generator)

    def first(self, start: Start | Present) -> MixtureParameters:
        """Parameters to start from; where the means are fixed, from the rows next to each."""
        if isinstance(start, Present):
            return self.present
        if "means" in self.present.fixed:
            start = Given(self.present.means)
        components = self.present.means.shape[0]
        x, weights = sample(self.complete, self.n, components, self.generator)
        found = start.parameters(x, weights, components, self.present.structure, self.ridge, self.generator)
        return self.present.keeping(found)

    def ended(self, climbed: Climbed[MixtureParameters]) -> Climbed[MixtureParameters]:
        """The same; its history says so where the ridge is felt."""
        at = climbed.parameters
        if at is not None and climbed.error is None and "factor" not in at.fixed:
            climbed.history.stopped += felt(self.ridge, at)
        return climbed

    def log(self, algorithm: Algorithm) -> Logbook:
        """The checkpoint of this fit."""
        task = {} if algorithm.checkpoint is None else self._task(algorithm)
        randomness = Randomness(self.generator, self.rows.like.device)
        return Logbook(algorithm.checkpoint, "EM fit", task, randomness)

    def _task(self, algorithm: Algorithm) -> dict[str, Any]:
        """What makes a fit this one."""
        present, start = self.present, algorithm.start
        settings = {
            name: value for name, value in vars(algorithm).items() if name not in ("checkpoint", "progress", "start")
        }
        return (
            {
                "model": f"GaussianMixture with {present.structure!r} and means {list(present.means.shape)}",
                "data": self.rows.in_words(),
                "algorithm": algorithm.in_words(),
                "start": f"{start} {data_in_words(present.tensors())}"
                if isinstance(start, Present)
                else start.in_words(),
            }
            | {name: value if isinstance(value, int | float) else repr(value) for name, value in settings.items()}
            | present.fixed_in_words()
        )


def check_start(start: Start | Present, restarts: int) -> None:
    """Raise unless it makes sense to try the start so many times."""
    check_count(restarts, "restarts")
    if not isinstance(start, Start | Present):
        raise TypeError(f"start must be KMeansPlusPlus() or another Start; got {in_words(start)}")
    if restarts > 1 and (isinstance(start, Present) or start.deterministic):
        raise ValueError(f"{type(start).__name__} starts alike every time: use restarts=1; got {restarts}")


def some(rows: Rows, n: int) -> Part:
    """At most 2¹³ of n rows, at equal distances, with their weights: alike in all processes, and in every call."""
    step = max(1, math.ceil(n / SOME_ROWS))
    if rows.whole is not None:
        return rows.whole[::step], None if rows.weights is None else rows.weights[::step]
    kept = rows.like.new_empty(-(-n // step), *rows.like.shape[1:])
    weights: Tensor | None = None
    before = done = 0
    for x, own in rows.pairs():
        found = x[-before % step :: step]
        place = slice(done, done + len(found))
        kept[place] = found
        if own is not None:
            weights = own.new_empty(len(kept)) if weights is None else weights
            weights[place] = own[-before % step :: step]
        before, done = before + len(x), place.stop
    return kept, weights


def _survey(rows: Rows) -> tuple[list[int], Statistics]:
    """The lengths of all chunks, and the spread of every column, over all processes."""
    lengths: list[int] = []

    def noted() -> Iterator[Part]:
        for chunk, weights in rows.pairs():
            lengths.append(chunk.shape[0])
            own = processes.share(chunk.shape[0])
            if own.stop > own.start:
                yield chunk[own], None if weights is None else weights[own]

    columns = spread(noted(), rows.like).over_processes(rows.like.double())
    return lengths, columns
