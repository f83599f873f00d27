r"""Student's t distribution: the chance beyond a number, and the number beyond which a chance lies.

.. math:: P(T > t) = \tfrac12 I_{\nu/(\nu + t^2)}(\nu/2, 1/2), \qquad t \ge 0,

with I the regularised incomplete beta function, by its continued fraction (Abramowitz & Stegun 1964, 26.5.8).
"""

from __future__ import annotations

import math
from statistics import NormalDist

NORMAL_BEYOND = 1e7  # degrees of freedom, where t differs from a normal variable by less than 1e-7 of its tail
TERMS = 100_000
SMALL = 1e-300


def tail(t: float, freedom: float) -> float:
    """P(T > t) with that many degrees of freedom, to a relative error of about 1e-9; −∞ and ∞ are numbers too.

    >>> round(tail(2.0, 10), 6)
    0.036694
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    if t < 0:
        return 1 - tail(-t, freedom)
    if freedom > NORMAL_BEYOND:
        return 0.5 * math.erfc(t / math.sqrt(2))
    return 0.5 * _incomplete_beta(freedom / (freedom + t * t), t * t / (freedom + t * t), freedom / 2, 0.5)


def quantile(chance: float, freedom: float) -> float:
    """The t that T exceeds with a chance below 1/2, by Newton's method between bounds, as near as ``tail`` is.

    >>> round(quantile(0.025, 2), 4), round(quantile(0.025, 1e9), 4)
    (4.3027, 1.96)
    """
    if freedom > NORMAL_BEYOND:
        return -NormalDist().inv_cdf(chance)
    low, high = 0.0, 1.0
    while tail(high, freedom) > chance:
        low, high = high, 2 * high
    t, last = high, math.inf
    while abs(t - last) > 1e-12 * t:
        beyond, last = tail(t, freedom), t
        low, high = (t, high) if beyond > chance else (low, t)
        t += math.log(beyond / chance) * beyond / _density(t, freedom) if beyond > 0 else math.inf
        if not low < t < high:
            t = (low + high) / 2
    return t


def _density(t: float, freedom: float) -> float:
    log_norm = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return math.exp(log_norm - (freedom + 1) / 2 * math.log1p(t * t / freedom))


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """I_x(a, b), with rest = 1 − x, which is given because it may be tiny."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, the other tail
        return 1 - _incomplete_beta(rest, x, b, a)
    log_front = a * math.log(x) + b * math.log(rest) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    fraction, upper, lower = 1.0, 1.0, 0.0
    for term in range(TERMS):  # modified Lentz
        m = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 + numerator * lower
        lower = 1 / (lower if abs(lower) > SMALL else SMALL)
        upper = 1 + numerator / upper
        upper = upper if abs(upper) > SMALL else SMALL
        fraction *= upper * lower
        if abs(1 - upper * lower) < 1e-13:
            break
    return math.exp(log_front) * (fraction - 1) / a
