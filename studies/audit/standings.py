"""What each method of `audit` comes to: rows averaged over seeds, in the order of the methods and of draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from studies.audit.settings import Method
from studies.kit.tables import averaged

LABELS: dict[Method, str] = {
    "exact": "mixture, exact",
    "quadrature": "quadrature",
    "compiled": "VAE as a mixture",
    "prior": "draws of the prior",
    "importance": "importance weights",
    "annealing": "annealing",
    "average": "average of log p(x|z)",
    "factor": "divided by K − 1",
}
EXACT: tuple[Method, ...] = ("exact", "quadrature", "compiled")  # sum to 1 up to rounding
UNBIASED: tuple[Method, ...] = ("prior", "importance", "annealing")  # their p̂ has p for its mean


@dataclass(frozen=True)
class Sum:
    """What the claims of a method about all states sum to, means over seeds.

    Attributes:
        method, draws: names.
        total, total_error: the sum, and its Monte Carlo error.
        departure: the largest, in errors, of any seed, with its sign.
        reliable: whether the errors may be believed at every seed.
        bias, bias_error: of the mean log p̂ of the test rows; nan where none is asked.
        stated: what the method says of its bias; nan where it says nothing.
    """

    method: Method
    draws: int
    total: float
    total_error: float
    departure: float
    reliable: bool
    bias: float
    bias_error: float
    stated: float

    @property
    def label(self) -> str:
        """In words."""
        return LABELS[self.method]

    @property
    def biased(self) -> bool:
        """Whether log p̂ was seen to be biased, by four errors or by what is not sampled."""
        return abs(self.bias) > max(4 * self.bias_error, 1e-6)


@dataclass(frozen=True)
class Width:
    """An interval for the mean log p(x) of the test rows, means over seeds and repeats.

    Attributes:
        draws, simulated: the work, latents a test row and rows of the model.
        low, high: its ends, less the truth.
        contained, tried: how many hold the truth, of how many.
        seconds: of CPU, of each.
    """

    draws: int
    simulated: int
    low: float
    high: float
    contained: int
    tried: int
    seconds: float

    @property
    def width(self) -> float:
        """In nats."""
        return self.high - self.low


def sums(rows: pd.DataFrame) -> list[Sum]:
    """One a method and number of draws."""
    found = []
    of_sums = rows[rows["part"] == "sum"]
    for method in get_args(Method):
        of = of_sums[of_sums["method"] == method]
        means = averaged(of, "draws", draws=("total_error", "bias_error")) if len(of) else of
        for draws, row in means.iterrows():
            each = of[of["draws"] == draws]
            found.append(
                Sum(
                    method,
                    int(str(draws)),
                    float(row["total"]),
                    float(row["total_error"]),
                    float(each.loc[each["departure"].abs().idxmax(), "departure"]),
                    bool(each["reliable"].all()),
                    float(row.get("bias", math.nan)),
                    float(row.get("bias_error", math.nan)),
                    float(row.get("stated_bias", math.nan)),
                )
            )
    return found


def widths(rows: pd.DataFrame) -> list[Width]:
    """One an amount of work, the least first."""
    of = rows[rows["part"] == "interval"]
    if of.empty:
        return []
    found = []
    for draws, each in of.groupby("draws"):
        means = each.mean(numeric_only=True)
        found.append(
            Width(
                int(str(draws)),
                int(means["simulated"]),
                float((each["low"] - each["truth"]).mean()),
                float((each["high"] - each["truth"]).mean()),
                int(each["contained"].sum()),
                int(each["repeats"].sum()),
                float(means["interval_seconds"]),
            )
        )
    return found
