"""What stored differences prove: of the fits of some seeds, and of models fitted anew; decided together by Holm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bridge.comparison.spread import Spread
from bridge.comparison.standing import statements
from bridge.comparison.statement import Statement, Verdict, holm
from density.log_density import Kind

CHANCE = 0.05  # of telling any two equal models of a table apart


def over_seeds(
    means: Iterable[float],
    errors: Iterable[float],
    points: int,
    *,
    kind: Kind = Kind.EXACT,
    slack: float = 0.0,
    sampling: float = 0.0,
) -> tuple[Statement, Statement | None]:
    """Of numbers, one a seed: what is said of these fits, and of models fitted anew (None of one seed).

    Every seed has its own split, so the error over fits is beside that over points
    (:class:`~bridge.comparison.spread.Spread`).

    Args:
        means: over test points.
        errors: standard errors of them, over points.
        points: of the seed that has the fewest.
        slack: what is no matter of chance.
        sampling: error over draws, where points may have missed some of it.

    >>> fitted, anew = over_seeds([1.0, 1.2, 0.8], [0.01, 0.01, 0.01], 100)
    >>> round(fitted.error, 3), round(anew.error, 3), round(anew.p_value, 3)
    (0.01, 0.116, 0.013)
    """
    return statements(kind, Spread.of_means(list(means), list(errors), points), sampling, slack)


def of_all(
    means: Iterable[float], errors: Iterable[float], points: int, *, kind: Kind = Kind.EXACT, slack: float = 0.0
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
