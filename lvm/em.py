"""Expectation maximisation: the one loop by which every EM algorithm here climbs.

The loop knows of tolerance, restarts, checkpoints and processes, and nothing of the model: that is two functions, the
E-step and the M-step, and a record of parameters (Dempster, Laird & Rubin 1977).

EM comes to rest at any stationary point of the likelihood, also at a saddle, and slows down beside one. So a fit that
rests is tested: the model proposes where else the likelihood may be higher, and only if it is nowhere, the fit has
converged.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import Tensor
from tqdm import tqdm

from density.data.digest import data_in_words
from density.fitting.checkpoint import Logbook
from density.history import History
from density.parallel import processes


class Parameters(ABC):
    """Parameters that EM climbs in: a record of tensors, in float64, that checkpoints hold and processes share."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in an order that :meth:`having` takes."""

    @abstractmethod
    def having(self, *tensors: Tensor) -> Self:
        """The same record of other tensors."""


class ModelParameters(Parameters):
    """Parameters of a model, of which some may stay what they are while EM maximises over the others.

    Attributes:
        names: of the tensors, in their order.
        fixed: the names of those that stay.
    """

    names: ClassVar[tuple[str, ...]]
    fixed: frozenset[str]

    def keeping(self, found: Self) -> Self:
        """Those found, but what is fixed stays."""
        if not self.fixed:
            return found
        pairs = zip(self.names, self.tensors(), found.tensors(), strict=True)
        return self.having(*(own if name in self.fixed else new for name, own, new in pairs))

    def fixed_in_words(self) -> dict[str, str]:
        """What is fixed, and where, by which a checkpoint knows it; nothing if nothing is."""
        if not self.fixed:
            return {}
        own = [tensor.flatten() for name, tensor in zip(self.names, self.tensors(), strict=True) if name in self.fixed]
        return {"fixed": f"{', '.join(sorted(self.fixed))} {data_in_words(own)}"}

    def require_free(self, owner: str) -> None:
        """Raise ValueError where nothing is left to fit."""
        if len(self.fixed) == len(self.names):
            raise ValueError(f"{owner} has no parameters to fit: none of them has requires_grad")


def frozen(**parameters: Tensor) -> frozenset[str]:
    """The names of parameters without ``requires_grad``."""
    return frozenset(name for name, parameter in parameters.items() if not parameter.requires_grad)


P = TypeVar("P", bound=Parameters)
S = TypeVar("S")

LEAST_RISE = 1e-9  # of the mean log-likelihood, nats: a smaller one is no reason to leave a point of rest
ROUNDING = 1e-12  # of the mean log-likelihood, in units of its size


class Degenerate(ValueError):
    """An M-step has no maximum: this start is given up, others may still do.

    Attributes:
        history: what happened until then, where a fit was under way.
        event: what it is called where a fit says how many starts ended so.
    """

    event: ClassVar[str] = "the likelihood has no maximum"

    def __init__(self, message: str, history: History | None = None) -> None:
        super().__init__(message)
        self.history = history


@dataclass(frozen=True)
class Present:
    """A start from the model's own parameters: go on with more iterations, other settings or other data.

    >>> from lvm import EM, GaussianMixture, Present
    >>> x, mixture = GaussianMixture(2, components=1).sample(100).detach(), GaussianMixture(2, components=2)
    >>> first = mixture.fit(x, EM(max_iterations=3, progress=False))
    >>> more = mixture.fit(x, EM(start=Present(), max_iterations=3, progress=False))
    >>> abs(more.objective[0] - first.objective[-1]) < 1e-5  # begins where the first ended
    True
    """


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a climb ends, and what it shows.

    Args:
        steps: M-steps at most.
        tolerance: stop when the mean log-likelihood changes by no more than this, nats per point; None never
            to stop early.
        restarts: starts to try.
        progress: show a progress bar, if there is a terminal to show it on.
        name: of the algorithm, on the progress bar.
        unit: what a step is called.
    """

    steps: int
    tolerance: float | None = None
    restarts: int = 1
    progress: bool = True
    name: str = "EM"
    unit: str = "iterations"


def check_tolerance(tolerance: float) -> None:
    """Raise ValueError unless it is finite and at least 0."""
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be finite and at least 0; got {tolerance}")


@dataclass(frozen=True, eq=False)
class Climbed(Generic[P]):
    """The end of a fit.

    Attributes:
        parameters: the best that were reached; None if no start had any.
        history: of the start that led there: the mean log-likelihood before every M-step and after the last.
        error: by what every start was ended; None if one was not.
    """

    parameters: P | None
    history: History
    error: str | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        """The larger, the better."""
        return self.error is None, self.history.objective[-1] if self.history.objective else -math.inf


@dataclass(eq=False)
class _Stand(Generic[P]):
    """The state of a fit between two M-steps: which start it is at, the best before it, and how far this one is."""

    start: int = 0
    failures: int = 0
    best: Climbed[P] | None = None
    parameters: P | None = None
    history: History = field(default_factory=History)
    seconds: float = 0.0
    saddles: int = 0


def climb(
    start: Callable[[], P],
    expect: Callable[[P], tuple[float, S]],
    maximise: Callable[[P, S], P],
    limits: Limits,
    log: Logbook,
    like: P,
    failure: type[Degenerate] = Degenerate,
    ways_up: Callable[[P, S], Iterable[P]] = lambda at, found: (),
) -> Climbed[P]:
    """Climb from each start until the objective rests at a maximum, and keep the best.

    Args:
        start: the first parameters, drawn anew at every call. On several processes those of the first count.
        expect: the E-step: the mean log-likelihood at these parameters, and what the M-step needs.
        maximise: the M-step, from the parameters before it and what the E-step found.
        limits: when to stop, and how many starts to try.
        log: the checkpoint of this fit.
        like: parameters of any value; those in a checkpoint come back as such a record, on its device.
        failure: the error of a start or an M-step that ends one start and not the fit.
        ways_up: where the objective may be higher, asked when it has come to rest: parameters, from those at rest and
            what the E-step found there, which decide them (alike in all processes). The highest is gone on from.

    Returns:
        The best parameters, their history, and the error if every start was ended by one.

    Raises:
        CheckpointMismatch: the checkpoint is that of another fit.
        UnusableFile: it is none, or not a whole one.
        ProcessLost: another process has ended.
    """
    began = time.perf_counter()
    stand: _Stand[P] = _Stand()
    entry = log.read()
    if entry is not None:
        log.randomness.restore(entry.random)
        stand = _read(entry.state, like)
        if entry.finished:
            assert stand.best is not None
            return stand.best
        began -= stand.seconds

    def state() -> dict[str, Any]:
        return _written(replace(stand, seconds=time.perf_counter() - began))

    while stand.start < limits.restarts:
        error = None
        try:
            if stand.parameters is None:
                stand.parameters = _shared(start())
            _ascend(stand, expect, maximise, ways_up, limits, lambda: log.step(state))
        except failure as found:
            stand.history.stopped, error = failure.event, str(found)
        reached = Climbed(stand.parameters, stand.history, error)
        kept = reached if stand.best is None or reached.rank > stand.best.rank else stand.best
        stand = _Stand(stand.start + 1, stand.failures + (error is not None), kept)
    best = stand.best
    assert best is not None, "there is at least one start"
    best.history.seconds, best.history.best = time.perf_counter() - began, max(len(best.history.objective) - 1, 0)
    if stand.failures:
        best.history.stopped += f"; {failure.event} in {stand.failures} of {limits.restarts} starts"
    log.finish(state)
    return best


def _ascend(
    stand: _Stand[P],
    expect: Callable[[P], tuple[float, S]],
    maximise: Callable[[P, S], P],
    ways_up: Callable[[P, S], Iterable[P]],
    limits: Limits,
    step: Callable[[], None],
) -> None:
    """Climb from where one start stands."""
    assert stand.parameters is not None
    history, values = stand.history, stand.history.objective
    hidden = None if limits.progress and processes.is_main() else True
    with tqdm(desc=limits.name, total=limits.steps + 1, initial=len(values), leave=False, disable=hidden) as bar:
        while True:
            value, found = expect(stand.parameters)
            values.append(value)
            bar.update()
            if len(values) > 1 and limits.tolerance is not None and abs(value - values[-2]) <= limits.tolerance:
                higher = _highest(ways_up(stand.parameters, found), expect, value, limits.tolerance)
                if higher is None:
                    history.converged = True
                    history.stopped = f"the mean log-likelihood changed by at most {limits.tolerance:g}{_left(stand)}"
                    return
                stand.parameters, values[-1], found = higher
                stand.saddles += 1
            if len(values) > limits.steps:
                history.stopped = f"{limits.steps} {limits.unit} done{_left(stand)}"
                return
            stand.parameters = maximise(stand.parameters, found)
            step()


def _highest(
    ways: Iterable[P], expect: Callable[[P], tuple[float, S]], value: float, tolerance: float
) -> tuple[P, float, S] | None:
    """The highest of the parameters proposed, its objective and E-step; None if none is higher than a value."""
    best: tuple[P, float, S] | None = None
    least = value + max(tolerance, LEAST_RISE, ROUNDING * abs(value))
    for way in ways:
        reached, found = expect(way)
        if reached > (least if best is None else best[1]):
            best = way, reached, found
    return best


def _left(stand: _Stand[P]) -> str:
    return f", after leaving {stand.saddles} saddle point{'s' * (stand.saddles > 1)}" if stand.saddles else ""


def _shared(parameters: P) -> P:
    """The parameters of the first process, in every one."""
    if processes.world() == 1:
        return parameters
    own = parameters.tensors()
    given = processes.from_main(lambda: [tensor.cpu() for tensor in own])
    return parameters.having(*(there.to(here.device) for there, here in zip(given, own, strict=True)))


def _written(stand: _Stand[P]) -> dict[str, Any]:
    """The state in plain values, for a checkpoint."""

    def tensors(parameters: P | None) -> list[Tensor] | None:
        return None if parameters is None else list(parameters.tensors())

    best = stand.best
    return {
        "start": stand.start,
        "failures": stand.failures,
        "best": best and {"at": tensors(best.parameters), "history": asdict(best.history), "error": best.error},
        "at": tensors(stand.parameters),
        "history": asdict(stand.history),
        "seconds": stand.seconds,
        "saddles": stand.saddles,
    }


def _read(state: dict[str, Any], like: P) -> _Stand[P]:
    """Inverse of :func:`_written`."""
    device = like.tensors()[0].device

    def parameters(tensors: list[Tensor] | None) -> P | None:
        return None if tensors is None else like.having(*(tensor.to(device) for tensor in tensors))

    best = state["best"]
    return _Stand(
        state["start"],
        state["failures"],
        best and Climbed(parameters(best["at"]), History(**best["history"]), best["error"]),
        parameters(state["at"]),
        History(**state["history"]),
        state["seconds"],
        state.get("saddles", 0),
    )
