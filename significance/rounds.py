"""What stored differences prove: of the fits of some seeds, and of models fitted anew; decided together by Holm.

>>> alone = Statement(Kind.EXACT, 0.25, 0.1, 999)
>>> round(alone.p_value, 3) < CHANCE, verdicts([alone])[0].value, verdicts([alone] * 5)[0].value  # by Holm, of five
(True, 'better', 'open')
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from significance.kind import Kind
from significance.spread import Spread
from significance.statement import Statement, Verdict, holm

CHANCE = 0.05
"""The chance of telling any two equal models of a table apart, which verdicts keep to unless they are told another."""
K = TypeVar("K")


def over_seeds(
    means: Iterable[float],
    errors: Iterable[float],
    points: float,
    *,
    kind: Kind = Kind.EXACT,
    slack: float = 0.0,
    sampling: float = 0.0,
) -> tuple[Statement, Statement | None]:
    """Of numbers, one a seed: what is said of these fits, and of models fitted anew (None of one seed).

    Every seed has its own split, so the error over fits is beside that over points
    (:class:`~significance.spread.Spread`).

    Args:
        means: over test points.
        errors: standard errors of them, over points.
        points: of the seed that has the fewest; infinity where that is not known, and there were many.
        slack: what is no matter of chance.
        sampling: error over draws, where points may have missed some of it.

    >>> fitted, anew = over_seeds([1.0, 1.2, 0.8], [0.01, 0.01, 0.01], 100)
    >>> round(fitted.error, 3), round(anew.error, 3), round(anew.p_value, 3)
    (0.01, 0.116, 0.013)
    """
    return statements(kind, Spread.of_means(list(means), list(errors), points), sampling, slack)


def statements(kind: Kind, spread: Spread, sampling: float, slack: float) -> tuple[Statement, Statement | None]:
    """Of these fits, and of fits made anew: no error is less than that of the draws.

    >>> spread = Spread.of_means([1.0, 1.2, 0.8], [0.01, 0.01, 0.01], 100)
    >>> fitted, anew = statements(Kind.EXACT, spread, sampling=0.05, slack=0.0)
    >>> fitted.error, round(anew.error, 3)
    (0.05, 0.116)
    """
    fitted = Statement(kind, spread.mean, max(spread.points_error, sampling), spread.points_freedom, slack)
    if math.isnan(spread.error):
        return fitted, None
    error, apart = max(spread.error, sampling), (spread.fits_error, spread.fits_freedom)
    return fitted, Statement(kind, spread.mean, error, spread.freedom, slack, *apart)


def of_all(
    means: Iterable[float], errors: Iterable[float], points: float, *, kind: Kind = Kind.EXACT, slack: float = 0.0
) -> Statement:
    """The same, of models fitted anew where there are several seeds, else of these fits: the most that can be said.

    >>> [round(of_all([1.0] * seeds, [0.1] * seeds, 100).freedom) for seeds in (1, 2)]
    [99, 99]
    """
    fitted, anew = over_seeds(means, errors, points, kind=kind, slack=slack)
    return fitted if anew is None else anew


def verdicts(family: Sequence[Statement | None], chance: float = CHANCE) -> list[Verdict]:
    """Which of several statements are decided, by Holm's procedure over all of them.

    >>> sure, open_ = Statement(Kind.EXACT, -1.0, 0.1, 99), Statement(Kind.EXACT, 0.1, 0.1, 99)
    >>> [verdict.value for verdict in verdicts([sure, open_, None])]
    ['worse', 'open', 'open']
    """
    fallen = holm([math.nan if each is None else each.p_value for each in family], chance)
    return [
        each.leaning if each is not None and fell else Verdict.OPEN for each, fell in zip(family, fallen, strict=True)
    ]


@dataclass(frozen=True)
class Decision:
    """What is said of one difference among several that are judged together.

    Attributes:
        fitted, verdict: of these fits.
        anew, verdict_anew: of models fitted anew; None and OPEN of one seed.

    >>> decision = Decision(Statement(Kind.EXACT, 1.0, 0.1, 99), None, Verdict.FIRST, Verdict.OPEN)
    >>> decision.statement.mean, decision.of_all.value
    (1.0, 'better')
    """

    fitted: Statement
    anew: Statement | None
    verdict: Verdict
    verdict_anew: Verdict

    @property
    def statement(self) -> Statement:
        """Of models fitted anew where there are several seeds, else of these fits: the most that can be said."""
        return self.fitted if self.anew is None else self.anew

    @property
    def of_all(self) -> Verdict:
        """The verdict on that statement."""
        return self.verdict if self.anew is None else self.verdict_anew

    def holds(self) -> bool | None:
        """Whether the first is better, by ``of_all``; None where that is open."""
        return None if self.of_all is Verdict.OPEN else self.of_all is Verdict.FIRST


def decisions(family: Mapping[K, tuple[Statement, Statement | None]], chance: float = CHANCE) -> dict[K, Decision]:
    """Differences by name, each of :func:`over_seeds`, decided by Holm over all of them: these fits, then fits anew.

    >>> found = decisions({"a": over_seeds([1.0], [0.1], 100), "b": over_seeds([0.1], [0.1], 100)})
    >>> {name: each.verdict.value for name, each in found.items()}
    {'a': 'better', 'b': 'open'}
    """
    fitted, anew = ([pair[place] for pair in family.values()] for place in (0, 1))
    judged = zip(family.items(), verdicts(fitted, chance), verdicts(anew, chance), strict=True)
    return {name: Decision(*pair, *both) for (name, pair), *both in judged}
