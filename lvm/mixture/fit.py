"""A fit of a Gaussian mixture by any algorithm: starts, checkpoints, several processes, and which start is kept."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from density.checks import check_count
from density.data.digest import data_in_words, parameters_in_words
from density.data.rows import Rows
from density.fitting.best_weights import Weights, weights_of
from density.fitting.checkpoint import Checkpoint, Logbook
from density.history import History
from density.parallel import processes
from density.parallel.random_streams import Randomness
from lvm.mixture.covariance import CollapsedComponent
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.regularisation import Relative, ridge_of, spread
from lvm.mixture.sample import sample
from lvm.mixture.starts import Present, Start
from lvm.mixture.statistics import Part, Statistics

if TYPE_CHECKING:
    from lvm.mixture.model import GaussianMixture


class Algorithm(ABC):
    """How a mixture climbs from one start: :class:`~lvm.mixture.em.EM`, or ``StochasticEM`` beside it.

    Attributes:
        regularisation: what every M-step adds to covariances.
        restarts: starts to try.
        start: where to start.
        progress: show a progress bar?
        checkpoint: where to write the state of the fit.
    """

    regularisation: float | Relative
    restarts: int
    start: Start
    progress: bool
    checkpoint: Checkpoint | None

    @abstractmethod
    def climb(self, run: Run) -> None:
        """Climb from the start, or from where a run that is resumed stands; the history's last value is that reached.

        Raises:
            CollapsedComponent: a covariance became singular.
        """


@dataclass(eq=False)
class Run:
    """One climb, as it stands.

    Attributes:
        model: a copy of the model in float64.
        rows: the data.
        n: how many rows it has, on all processes.
        weight: their mean weight.
        ridge: what the M-step adds to covariances, ``[D]``.
        generator: of starts and of the order of rows.
        history: what happened.
        step: what the algorithm calls when it could go on from here.
        own: what else the algorithm needs to go on.
        resumed: does this go on where an earlier run was cut?
    """

    model: GaussianMixture
    rows: Rows
    n: int
    weight: float
    ridge: Tensor
    generator: Generator | None
    progress: bool
    step: Callable[[], None] = lambda: None
    history: History = field(default_factory=History)
    own: dict[str, Any] = field(default_factory=dict)
    resumed: bool = False

    def begin(self, start: Start) -> None:
        """Set the first parameters, which every process takes from the first one."""
        model = self.model
        if isinstance(start, Present):
            first = MixtureParameters(model.weights, model.means.detach(), model.covariances)
        else:
            x, weights = sample(self.rows, self.n, model.components, self.generator)
            first = start.parameters(x, weights, model.components, model.covariance, self.ridge, self.generator)
            model._set(first)
        if processes.world() > 1:
            device = self.ridge.device
            own = [t.detach().cpu() for t in model.parameters()]
            with torch.no_grad():
                for parameter, given in zip(model.parameters(), processes.from_main(lambda: own), strict=True):
                    parameter.copy_(given.to(device))

    def expectation(self, rows_at_once: int | None = None) -> Statistics:
        """The E-step on all rows."""
        return self.model._expected(self.rows, self.ridge, rows_at_once)

    def bar(self, name: str, total: int) -> tqdm[Any]:
        """A progress bar that stands where the run stands."""
        hidden = None if self.progress and processes.is_main() else True
        return tqdm(desc=name, total=total, initial=len(self.history.objective), leave=False, disable=hidden)


@dataclass(frozen=True, eq=False)
class Climbed:
    """Where one climb ended, and by what error, if by one."""

    weights: Weights
    history: History
    error: str | None

    @property
    def rank(self) -> tuple[bool, float]:
        """The larger, the better."""
        return self.error is None, self.history.objective[-1] if self.history.objective else -math.inf

    def state(self) -> dict[str, Any]:
        return {"weights": self.weights, "history": asdict(self.history), "error": self.error}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Climbed:
        return cls(state["weights"], History(**state["history"]), state["error"])


class Fit:
    """One call of ``GaussianMixture.fit``: what it was given, and where it stands between two steps."""

    def __init__(
        self, model: GaussianMixture, rows: Rows, algorithm: Algorithm, generator: Generator | None = None
    ) -> None:
        self.model, self.rows, self.algorithm, self.generator = model, rows, algorithm, generator
        self.started = time.perf_counter()
        self.n, columns = survey(rows)
        if self.n < model.components:
            raise ValueError(
                f"GaussianMixture of {model.components} components needs at least as many rows; got {self.n}"
            )
        self.weight = columns.total.item() / self.n
        self.ridge = ridge_of(algorithm.regularisation, model.covariance, columns)
        self.randomness = Randomness(generator, rows.like.device)
        self.best: Climbed | None = None
        self.first = self.collapsed = 0

    def run(self) -> History:
        algorithm = self.algorithm
        task = {} if algorithm.checkpoint is None else _task(self.model, self.rows, algorithm)
        self.log = Logbook(algorithm.checkpoint, "mixture fit", task, self.randomness)
        entry = self.log.read()
        self.model.to(self.rows.like)
        present = deepcopy(self.model).double()
        resumed: dict[str, Any] | None = None
        if entry is not None:
            self.randomness.restore(entry.random)
            if entry.finished:
                return self._take(Climbed.of(entry.state["best"]))
            resumed = entry.state
            self.first, self.collapsed = resumed["start"], resumed["collapsed"]
            self.best = None if resumed["best"] is None else Climbed.of(resumed["best"])
            self.started -= resumed["seconds"]
        for index in range(self.first, algorithm.restarts):
            climbed = self._climb(index, deepcopy(present), resumed)
            resumed = None
            self.collapsed += climbed.error is not None
            self.best = climbed if self.best is None or climbed.rank > self.best.rank else self.best
        best = self.best
        assert best is not None, "there is at least one start"
        best.history.seconds = time.perf_counter() - self.started
        best.history.best = max(len(best.history.objective) - 1, 0)
        if self.collapsed:
            best.history.stopped += f"; a component collapsed in {self.collapsed} of {algorithm.restarts} starts"
        self.log.finish(lambda: {"best": best.state()})
        return self._take(best)

    def _climb(self, index: int, working: GaussianMixture, resumed: dict[str, Any] | None) -> Climbed:
        """Climb from one start, or from where a run that was cut stood."""
        run = Run(working, self.rows, self.n, self.weight, self.ridge, self.generator, self.algorithm.progress)
        if resumed is not None:
            working.load_state_dict(resumed["weights"])
            run.history, run.own, run.resumed = History(**resumed["history"]), resumed["own"], True

        def state() -> dict[str, Any]:
            return {
                "start": index,
                "best": None if self.best is None else self.best.state(),
                "collapsed": self.collapsed,
                "seconds": time.perf_counter() - self.started,
                "weights": weights_of(working),
                "history": asdict(run.history),
                "own": run.own,
            }

        run.step = lambda: self.log.step(state)
        try:
            self.algorithm.climb(run)
        except CollapsedComponent as collapse:
            run.history.stopped = "a component collapsed"
            return Climbed(weights_of(working), run.history, str(collapse))
        return Climbed(weights_of(working), run.history, None)

    def _take(self, climbed: Climbed) -> History:
        """Give the model what was climbed to, or the error that ended it."""
        self.model.load_state_dict(climbed.weights)
        if climbed.error is not None:
            raise CollapsedComponent(climbed.error, climbed.history)
        return climbed.history


def survey(rows: Rows) -> tuple[int, Statistics]:
    """How many rows there are, and the spread of every column, over all processes."""
    count = 0

    def counted() -> Iterator[Part]:
        nonlocal count
        for part in rows:
            count += part[0].shape[0]
            yield part

    columns = spread(counted(), rows.like).over_processes(rows.like.double())
    return int(processes.total(torch.tensor(count, device=rows.like.device))), columns


def check_starts(start: Start, restarts: int) -> None:
    """Raise unless it makes sense to try the start so many times."""
    check_count(restarts, "restarts")
    if not isinstance(start, Start):
        raise TypeError(f"start must be KMeansPlusPlus() or another Start; got {start!r}")
    if restarts > 1 and start.deterministic:
        raise ValueError(f"{type(start).__name__} starts alike every time: use restarts=1; got {restarts}")


def _task(model: GaussianMixture, rows: Rows, algorithm: Algorithm) -> dict[str, Any]:
    """What makes a fit this one."""
    settings = {
        name: value for name, value in vars(algorithm).items() if name not in ("checkpoint", "progress", "start")
    }
    start = algorithm.start.in_words()
    if isinstance(algorithm.start, Present):
        start += f" of {data_in_words(model.parameters())}"
    return {
        "model": f"{model.covariance!r} {parameters_in_words(model)}",
        "data": rows.in_words(),
        "algorithm": type(algorithm).__name__,
        "start": start,
    } | {name: value if isinstance(value, int | float) else repr(value) for name, value in settings.items()}
