"""Turns within a budget of time, those worth most first: each starts if it is expected to fit."""

from __future__ import annotations

import math
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from studies.kit.errors import InputError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
ENDED = {0: "all is well", 1: "a fit or a check failed", 2: "the request makes no sense", 130: "cut off, rows are kept"}
BROKEN = "broke off: "
NOT_STARTED = "not started: too little left"


@dataclass
class Pace:
    """Seconds taken for a second stated, over the turns that have ended; 1 before.

    >>> pace = Pace()
    >>> pace.took(stated=60, seconds=15)
    >>> pace.expected(120)
    30.0
    """

    pairs: list[tuple[float, float]] = field(default_factory=list)

    def took(self, stated: float, seconds: float) -> None:
        """A turn has ended."""
        self.pairs.append((stated, seconds))

    def expected(self, stated: float) -> float:
        """Seconds that a turn is expected to take."""
        return stated * (sum(s for _, s in self.pairs) / sum(s for s, _ in self.pairs) if self.pairs else 1.0)


@dataclass(frozen=True)
class Turn:
    """What may be started, the seconds it is said to take, and how to start it, which returns an exit status."""

    name: str
    stated: float
    start: Callable[[], int]


@dataclass(frozen=True)
class Outcome:
    """How a turn went: seconds expected and taken (None where it was not started), and how it ended, in words."""

    turn: Turn
    expected: float
    seconds: float | None
    ended: str


def seconds_of(budget: str) -> float:
    """Of a time such as "8m".

    >>> seconds_of("8m"), seconds_of("90")
    (480.0, 90.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", budget.strip())
    if not found or not float(found[1]):
        raise InputError(f"--budget expects a positive time such as 480s, 8m or 0.5h; got {budget}")
    return float(found[1]) * SECONDS[found[2] or "s"]


def in_turns(turns: Iterable[Turn], seconds: float, clock: Callable[[], float] = time.monotonic) -> Iterator[Outcome]:
    """Start those that fit, one after the other; an outcome as soon as each is known.

    A turn is started if as much time is left as it states, times the pace measured so far; what is under way at the end
    is interrupted as from the keyboard. Whatever befalls one turn, the others have theirs.

    Args:
        turns: in order.
        seconds: in all; infinity for no end.
        clock: seconds.
    """
    end, pace = clock() + seconds, Pace()
    for turn in turns:
        begun, expected = clock(), pace.expected(turn.stated)
        if expected > end - begun:
            yield Outcome(turn, expected, None, NOT_STARTED)
            continue
        try:
            with _cut_off(end - begun):
                code = turn.start()
            ended = ENDED[code]
        except KeyboardInterrupt:
            if clock() < end:  # from the keyboard itself
                raise
            code, ended = 130, ENDED[130]
        except Exception as error:
            traceback.print_exc()
            code, ended = -1, f"{BROKEN}{type(error).__name__}: {error}"
        taken = clock() - begun
        if code in (0, 1):
            pace.took(turn.stated, taken)
        yield Outcome(turn, expected, taken, " ".join(ended.split()))


def status(ends: Iterable[str]) -> int:
    """Exit status of all: 1 if one failed or broke off, else 2 if the request of one made no sense, else 0.

    >>> status([ENDED[0], NOT_STARTED]), status([ENDED[2], "broke off: TypeError: x"])
    (0, 1)
    """
    found = list(ends)
    if ENDED[1] in found or any(end.startswith(BROKEN) for end in found):
        return 1
    return 2 if ENDED[2] in found else 0


@contextmanager
def _cut_off(seconds: float) -> Iterator[None]:
    """An interrupt as from the keyboard after so many seconds; a study answers it with status 130."""
    if math.isinf(seconds):
        yield
        return
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
