"""Rows as data frames, selected and averaged over seeds, and tables of them for a terminal of 80 columns."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from significance import Spread
from studies.kit.rows import Rows
from studies.kit.settings import CommonSettings
from studies.kit.study import Study


def frame(rows: Rows) -> pd.DataFrame:
    """All rows as a data frame: exact numbers where a whole column is numeric, NaN in empty cells."""
    texts = list(rows)
    return pd.DataFrame({column: _cells(column, [row.get(column, "") for row in texts]) for column in rows.columns})


def selected(study: Study, settings: CommonSettings, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that a run with these settings shows: of its seeds, and what the study's own ``selected`` leaves."""
    mine = rows[rows["seed"].isin(settings.seeds)]
    choose = getattr(study.report, "selected", None)
    return mine if choose is None else choose(settings, mine)


def averaged(rows: pd.DataFrame, *by: str, draws: Collection[str] = ()) -> pd.DataFrame:
    """Means over seeds of every number, one row for each value of some columns, which become the index.

    What ends in ``_error`` is taken for the standard error of one seed's number, and becomes that of the mean, the same
    that verdicts have: over test points by :func:`points_error`; of what ends in ``monte_carlo_error``, and of other
    columns that are named as errors over draws alone, by :func:`draws_error`.

    >>> rows = pd.DataFrame({"model": ["a", "a"], "seed": [0, 1], "gap": [1.0, 2.0], "gap_error": [0.1, 0.7]})
    >>> averaged(rows, "model").loc["a", ["gap", "gap_error"]].tolist()
    [1.5, 0.5]
    """
    groups = rows.groupby(list(by) if len(by) > 1 else by[0])
    numbers = groups.mean(numeric_only=True)
    for name in numbers.columns[numbers.columns.str.endswith("_error")]:
        over_draws = name in draws or name.endswith("monte_carlo_error")
        numbers[name] = groups[name].apply(draws_error if over_draws else points_error)
    return numbers


def points_error(errors: pd.Series[float]) -> float:
    """The standard error over test points of a mean over seeds, of numbers with these.

    Splits of other seeds share points, and where the test rows are given they are the same: several seeds are taken to
    say no more about chance among points than one (:meth:`significance.spread.Spread.of_means`).

    >>> points_error(pd.Series([0.1, 0.1, 0.1]))
    0.1
    """
    return Spread.of_means([0.0] * len(errors), list(errors), math.inf).points_error


def draws_error(errors: pd.Series[float]) -> float:
    """The standard error of a mean over seeds, of numbers with these, which come from random draws of each seed's own.

    >>> draws_error(pd.Series([0.3, 0.4]))
    0.25
    """
    return math.sqrt(float((errors**2).sum())) / len(errors)


def least_points(rows: pd.DataFrame, column: str = "test_rows") -> float:
    """Test rows of the seed that has the fewest; infinity of rows from before their number was kept.

    >>> least_points(pd.DataFrame({"test_rows": [360, 359]})), least_points(pd.DataFrame({"gain": [0.1]}))
    (359.0, inf)
    """
    known = [float(count) for count in rows[column].dropna()] if column in rows else []
    return min(known, default=math.inf)


def series(cell: str) -> NDArray[np.float64]:
    """The numbers of a curve that is kept in one cell, with blanks between them.

    >>> series("1 0.5 0.25").tolist()
    [1.0, 0.5, 0.25]
    """
    return np.array([float(number) for number in str(cell).split()])


def power(x: pd.Series[float], y: pd.Series[float]) -> float:
    """c in y ∝ xᶜ by least squares in logarithms; NaN of a single point.

    >>> round(power(pd.Series([1.0, 2.0, 4.0]), pd.Series([3.0, 6.0, 12.0])), 6)
    1.0
    """
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(x) > 1 else math.nan


@dataclass(frozen=True)
class Number:
    """A mean with its standard error; sums and differences are of independent ones, and ``str`` writes both.

    >>> print(Number(5.0, 0.3) - Number(4.0, 0.4))
    1.00 ± 0.50
    """

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"

    def __add__(self, other: Number) -> Number:
        return Number(self.mean + other.mean, math.hypot(self.error, other.error))

    def __sub__(self, other: Number) -> Number:
        return Number(self.mean - other.mean, math.hypot(self.error, other.error))


def with_error(value: float, error: float) -> str:
    """A number with its error to two significant digits, three where it is above 1, and at most 5 decimals.

    >>> with_error(-119.657, 1.013), with_error(0.0123456, 0.00123), with_error(-12345.6, 123.4)
    ('-119.66 ± 1.01', '0.0123 ± 0.0012', '-12346 ± 123')
    """
    digits = 2
    if 0 < error < math.inf:
        order = math.floor(math.log10(error))
        digits = max(0, min(5, max(1 - order, min(2, 2 - order))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def typeset(text: str) -> str:
    """A text with numbers as they are printed: minus signs, and powers of ten.

    >>> typeset("-119.66 ± 1.01, K^(-0.50), to 3e-15; seeds 0-2, --seeds")
    '−119.66 ± 1.01, K^(−0.50), to 3·10⁻¹⁵; seeds 0-2, --seeds'
    """
    return re.sub(r"(?<![\w.)\]-])-(?=[\d.∞])", "−", _POWERS.sub(_power_of_ten, text))


_POWERS = re.compile(r"(?<![\w.])([+-]?)(\d+(?:\.\d+)?)e([+-]?)0*(\d+)(?![\w.]*\w)")
_RAISED = str.maketrans("+-0123456789", "⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(found: re.Match[str]) -> str:
    sign, digits, below, order = found.groups()
    power = f"10{(below.replace('+', '') + order).translate(_RAISED)}"
    return f"{sign.replace('-', '−')}{'' if digits == '1' else f'{digits}·'}{power}"


def empty(title: str, words: Sequence[str], numbers: Sequence[str], *, wrap: bool = False) -> Table:
    """A table without rows: columns of words, then columns of numbers, on the right.

    >>> [column.justify for column in empty("Fits", ["model"], ["ELBO"]).columns]
    ['left', 'right']
    """
    table = Table(title=title, title_justify="left")
    for header in words:
        table.add_column(header, no_wrap=not wrap)
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=not wrap)
    return table


def narrow(title: str) -> Table:
    """An empty table that spends two blanks between columns and no lines, so that 80 columns hold its numbers."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )


def _cells(column: str, texts: list[str]) -> pd.Series[int] | pd.Series[float] | pd.Series[str]:
    if not column.endswith("hash"):  # one of digits alone is no number
        for number in (int, float):
            try:
                return pd.Series([number(text) if text or number is int else math.nan for text in texts])
            except ValueError:
                continue
    return pd.Series([text or None for text in texts], dtype="str")
