r"""What a number and its error say of a difference: an interval, a p-value, and by Holm's procedure a verdict.

An error that is made of two independent ones, of ν and of μ degrees of freedom, has no distribution that is known. With

.. math:: \text{reach}^2 = t_\nu(\alpha)^2 s_1^2 + t_\mu(\alpha)^2 s_2^2

an interval holds it with at least the confidence that it says, whatever the two variances are (Banerjee 1960).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from significance.kind import Kind
from significance.student import quantile, tail

POWER = 0.8416  # standard deviations: the normal quantile of a chance of 4 in 5
LEAST = -300.0  # the logarithm of a chance that is not told from 0


class Verdict(Enum):
    """Which of two models has the higher log p(x).

    >>> Statement(Kind.LOWER, 2.0, 0.1, 99).leaning
    <Verdict.FIRST: 'better'>
    """

    FIRST = "better"
    SECOND = "worse"
    EQUAL = "equal"
    OPEN = "open"


@dataclass(frozen=True)
class Statement:
    """A mean in nats with its kind and errors, and what follows from it.

    Attributes:
        kind: of the mean.
        mean, error: and standard error of it; nan where there is none.
        freedom: degrees of freedom of the error, or of the rest of it where a part is kept apart.
        slack: what is no matter of chance, on either side: quadrature's error, rounding, a margin.
        fits_error: the part of the error that is over fits, where that is kept apart; else 0.
        fits_freedom: degrees of freedom of that part.
    """

    kind: Kind
    mean: float
    error: float
    freedom: float
    slack: float = 0.0
    fits_error: float = 0.0
    fits_freedom: float = math.inf

    def interval(self, level: float) -> tuple[float, float]:
        """Where the quantity lies with that confidence: to one side of a bound, to both sides of other numbers.

        >>> [round(end, 2) for end in Statement(Kind.EXACT, 1.0, 0.1, 1e9).interval(0.95)]
        [0.8, 1.2]
        >>> [round(end, 2) for end in Statement(Kind.LOWER, 1.0, 0.1, 1e9).interval(0.95)]
        [0.84, inf]
        """
        if math.isnan(self.error):
            return -math.inf, math.inf
        sided = self.kind in (Kind.LOWER, Kind.UPPER)
        reach = self._reach((1 - level) / (1 if sided else 2)) + self.slack
        low = -math.inf if self.kind is Kind.UPPER else self.mean - reach
        return low, math.inf if self.kind is Kind.LOWER else self.mean + reach

    @property
    def p_value(self) -> float:
        """The chance of a mean at least so far on its side of 0 if the quantity is 0, or within the slack of it.

        Of both sides where the number has two; nan where there is no error.
        """
        if math.isnan(self.error):
            return math.nan
        sided = self.kind in (Kind.LOWER, Kind.UPPER)
        signed = self.mean if self.kind is Kind.LOWER else -self.mean if self.kind is Kind.UPPER else abs(self.mean)
        beyond = signed - self.slack
        if self.error == 0:
            return 0.0 if beyond > 0 else 1.0
        return min(1.0, (1 if sided else 2) * _chance_beyond(self, beyond))

    @property
    def leaning(self) -> Verdict:
        """What it says if it is not by chance."""
        return Verdict.FIRST if self.mean > 0 else Verdict.SECOND

    def points_needed(self, points: int, chance: float) -> float:
        """How many test points make a difference of this size seen, 4 times in 5, at a two-sided level; ∞ for none."""
        size = abs(self.mean) - self.slack
        if size <= 0 or math.isnan(self.error):
            return math.inf
        return points * ((self._reach(chance / 2) + POWER * self.error) / size) ** 2

    def _reach(self, chance: float) -> float:
        """How far the mean is from the quantity, to one side, with at most this chance below 1/2."""
        if self.fits_error == 0:
            return quantile(chance, self.freedom) * self.error
        rest = math.sqrt(max(0.0, self.error**2 - self.fits_error**2))
        return math.hypot(quantile(chance, self.freedom) * rest, quantile(chance, self.fits_freedom) * self.fits_error)

    def _beyond(self, size: float) -> float:
        """The chance, at most, of a mean that is further than this to one side: the inverse of ``_reach``."""
        if self.fits_error == 0:
            return tail(size / self.error, self.freedom)
        if size < 0:
            return 1 - self._beyond(-size)
        high = math.log(0.5)
        while high > LEAST and self._reach(math.exp(2 * high)) < size:
            high *= 2
        low = 2 * high
        while high - low > 1e-9 * abs(high):
            middle = (low + high) / 2
            low, high = (middle, high) if self._reach(math.exp(middle)) > size else (low, middle)
        return math.exp(high)


@lru_cache(maxsize=4096)
def _chance_beyond(statement: Statement, size: float) -> float:
    """Kept, since a report asks of one statement many times, and an inverse takes a millisecond."""
    return statement._beyond(size)


def holm(p_values: Sequence[float], chance: float) -> list[bool]:
    """Which hypotheses fall, so that a true one is among them with at most this chance, whatever depends on what.

    The smallest of m p-values must be at most chance/m, the next chance/(m − 1), and so on, until one is not (Holm
    1979). One that is nan cannot be judged, and does not count.

    >>> holm([0.01, 0.04, 0.03, float("nan")], 0.05)
    [True, False, False, False]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    fallen = [False] * len(p_values)
    for rank, (p, index) in enumerate(order):
        if p > chance / (len(order) - rank):
            break
        fallen[index] = True
    return fallen
