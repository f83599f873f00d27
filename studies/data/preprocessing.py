"""From the units of the data to the coordinates that models are fitted in, and what that does to log p(x).

And the widths of levels, for noise that makes a continuous column of one that holds few values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

ROWS_AT_ONCE = 4096
FEWEST_REPEATS = 3  # that make levels; of a continuous column no two values are equal
ALPHA = 1e-6  # keeps the logit finite, as in Papamakarios et al. 2017 for MNIST


def level_width(values: Floats) -> float | None:
    """The width of the levels that values ``[n]`` lie on: their smallest difference, 1 for an integer that is constant.

    x + width · u with u uniform on [0, 1) is then bounded in density, and tells x. None where values do not repeat, or
    one that is no integer is the only one, so that there is no level to speak of. O(n log n).

    >>> level_width(np.array([0.5, 1.5, 0.5, 0.5, 1.5, 1.0, 1.0])), level_width(np.array([0.1, 0.3, 0.7]))
    (0.5, None)
    """
    levels = np.unique(values)
    whole = bool((values == np.round(values)).all())
    if not whole and len(values) - len(levels) < FEWEST_REPEATS:
        return None
    if len(levels) == 1:
        return 1.0 if whole else None
    steps = np.diff(levels)
    # Decimals such as 0.1 + 0.2 and 0.3 are one level, that rounding has split.
    apart = steps[steps > 1e-12 * np.abs(levels).max()]
    return float(apart.min()) if len(apart) else None


@dataclass(frozen=True, eq=False)
class Preprocessing:
    r"""y = (h(x) − shift)/scale, with h the identity or, for pixels, the logit.

    .. math:: \log p(x) = \log p(y) + \log |\det \partial y / \partial x|, \qquad
              h(x) = \operatorname{logit}(\alpha + (1 - 2\alpha)\, x / \text{levels})

    Attributes:
        shift, scale: ``[D]``, from training rows; None: not standardised.
        levels: of dequantised pixels, whose logit is taken; None: it is not.

    >>> squeeze = Preprocessing(levels=256)
    >>> y, log_det = squeeze(np.array([[128.0, 128.0]]))
    >>> y.tolist(), round(float(log_det[0]), 4)
    ([[0.0, 0.0]], -8.3178)
    """

    shift: Floats | None = None
    scale: Floats | None = None
    levels: int | None = None

    @classmethod
    def standardise(cls, rows: Floats) -> Preprocessing:
        """By mean and standard deviation of training rows, missing values left out; constant columns keep scale 1."""
        if np.isnan(rows).any():
            mean, std = np.nanmean(rows, 0), np.nanstd(rows, 0)
        else:
            mean, std = rows.mean(0), rows.std(0)
        return cls(mean, np.where(std > 0, std, 1.0))

    def __call__(self, x: Floats) -> tuple[Floats, NDArray[np.float64]]:
        """y ``[n, D]``, nan where a value is missing, and log|det ∂y/∂x| ``[n]`` of those that are there. O(n·D)."""
        if self.levels is not None and len(x) > ROWS_AT_ONCE:
            parts = [self(x[start : start + ROWS_AT_ONCE]) for start in range(0, len(x), ROWS_AT_ONCE)]
            return np.concatenate([y for y, _ in parts]), np.concatenate([log_det for _, log_det in parts])
        log_det = np.zeros(len(x))
        if self.levels is not None:
            unit = ALPHA + (1 - 2 * ALPHA) * np.asarray(x, np.float64) / self.levels
            log_unit, log_rest = np.log(unit), np.log1p(-unit)
            log_det += x.shape[1] * math.log((1 - 2 * ALPHA) / self.levels) - (log_unit + log_rest).sum(1)
            x = (log_unit - log_rest).astype(x.dtype)
        if self.shift is not None and self.scale is not None:
            x = (x - self.shift) / self.scale
            missing = np.isnan(x)
            log_det -= float(np.log(self.scale).sum())
            if missing.any():  # log p is then of the values that are there
                log_det += missing @ np.log(self.scale)
        return x, log_det
