r"""The mean of log-densities over test points and over fits, and how far chance may have moved it.

Of R fits at the same n points, :math:`v_{rj} = \mu + s_r + p_j + e_{rj}` with independent effects of fit, point and
both, the variance of the mean is :math:`\sigma_s^2/R + \sigma_p^2/n + \sigma_e^2/(nR)`. That of the fits' means, over
R, estimates its first and last term, that of the points' means, over n, the last two; what both have is taken off once,
but never so that less than the larger of them is left.

Of two models with three fits or more each, the degrees of freedom of the whole are Satterthwaite's (1946). With fewer
variances over fits, or two fits alone, these believe a variance that is small by chance: equal models are then told
apart up to 12 times in 100 at 5 %. There the errors over points and over fits are kept apart
(:class:`~significance.statement.Statement`), which never says more than it may.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEW = 3  # fits of each of two models, with fewer of which their error has no one number of degrees of freedom


@dataclass(frozen=True)
class Spread:
    """A mean in nats and its standard errors.

    Attributes:
        mean: over points and fits.
        points_error: its standard error over test points, these fits given; scatter of independent draws is part of it.
            nan for a single point.
        points_freedom: degrees of freedom of that error.
        error: over points and over fits that are made anew; nan where a model was fitted once.
        freedom: degrees of freedom of that one, or, where the next is not 0, of its part over points.
        fits_error: its part over fits, where this is kept apart; else 0.
        fits_freedom: degrees of freedom of that part.

    >>> spread = Spread.rounds([[1.0, 1.2, 1.1], [0.7, 0.9, 0.8]])
    >>> round(spread.mean, 2), round(spread.points_error, 3), round(spread.error, 2)
    (0.95, 0.058, 0.16)
    """

    mean: float
    points_error: float
    points_freedom: float
    error: float
    freedom: float
    fits_error: float = 0.0
    fits_freedom: float = math.inf

    @staticmethod
    def crossed(ours: ArrayLike, theirs: ArrayLike | None = None) -> Spread:
        """Of values ``[R, n]`` of fits at the same points, less those ``[S, n]`` of other fits at these points."""
        groups = [np.asarray(values, dtype=np.float64) for values in (ours, theirs) if values is not None]
        each = groups[0].mean(0) if theirs is None else groups[0].mean(0) - groups[1].mean(0)
        mean, n = float(each.mean()), len(each)
        if n < 2:
            return Spread(mean, math.nan, math.nan, math.nan, math.nan)
        fits, both = [], 0.0
        for values in groups:
            count = len(values)
            if count > 1:
                means = values.mean(1)
                fits.append((_variance(means) / count, count - 1))
                rest = values - values.mean(0) - means[:, np.newaxis] + means.mean()
                both += float(np.square(rest).sum()) / ((count - 1) * (n - 1)) / (n * count)
        return _spread(mean, _variance(each) / n, n - 1, fits, both, all(len(values) > 1 for values in groups))

    @staticmethod
    def rounds(values: Sequence[ArrayLike]) -> Spread:
        """Of R fits, each at points of its own, as other splits have them: values ``[n_r]``.

        Points that several splits share make their means alike, so no more is made of R splits than of one.
        """
        own = [np.asarray(each, dtype=np.float64) for each in values]
        errors = [math.sqrt(_variance(each) / len(each)) if len(each) > 1 else math.nan for each in own]
        return Spread.of_means([float(each.mean()) for each in own], errors, min(map(len, own)))

    @staticmethod
    def of_means(means: Sequence[float], errors: Sequence[float], points: float) -> Spread:
        """The same, of the means of R fits, their standard errors over points, and the least number of points."""
        count, mean = len(means), math.fsum(means) / len(means)
        if points < 2:
            return Spread(mean, math.nan, math.nan, math.nan, math.nan)
        variance = math.fsum(error**2 for error in errors) / count
        if count == 1:
            return _spread(mean, variance, points - 1, [], 0.0, False)
        between = math.fsum((each - mean) ** 2 for each in means) / (count - 1) / count
        return _spread(mean, variance, points - 1, [(between, count - 1)], variance / count, True)


def _variance(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1))


def _spread(
    mean: float, points: float, freedom: float, fits: Sequence[tuple[float, int]], both: float, several: bool
) -> Spread:
    """A mean, the variances that its errors have, and whether every model was fitted more than once."""
    points_error = math.sqrt(points)
    if not several:
        return Spread(mean, points_error, freedom, math.nan, math.nan)
    between = sum(variance for variance, _ in fits)
    total = max(points + between - both, points, between)
    over_fits = sum(variance**2 / own for variance, own in fits)
    if between > 0 and (len(fits) < 2 or min(own for _, own in fits) < FEW - 1):
        fewest, most = min(own for _, own in fits), max(own for _, own in fits)
        # Satterthwaite's number of degrees of freedom is too large where one group has few fits and another many.
        apart = math.sqrt(between), between**2 / over_fits if fewest == most else fewest
        return Spread(mean, points_error, freedom, math.sqrt(total), freedom, *apart)
    parts = points**2 / freedom + over_fits
    return Spread(mean, points_error, freedom, math.sqrt(total), total**2 / parts if parts else freedom)
