r"""Columns on which a continuous density can be arbitrarily high: their likelihood has no maximum.

A density that puts a share π of its mass within ±ε of a value that a share of the rows repeat gains π log(1/ε) nats a
point, without end as ε → 0, and held-out rows gain as much: they repeat the value too. So do a constant column, and a
column that is a function of another one, along the direction in which nothing varies. Integers and rounded decimals are
such values; with uniform noise as wide as a level they have a density that is bounded by the mass of the level (Theis
et al. 2016, arXiv:1511.01844, section 3.1).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from density.contract import Model
from density.initialisation import initialisation_rows
from density.log_density import Measure

FEWEST_ROWS = 16  # of fewer, every row is a spike by itself
CHANCE = 1e-6  # of being called integers when it is by rounding that all values are
PEAK = 3 * 0.54  # of a density with interquartile range 1; a normal one's is 0.54
SHARE = 0.01  # of the rows may repeat others
COLUMNS_AT_ONCE = 256
NAMED = 12  # columns, and then how many more


class TiedColumns(UserWarning):
    """The data has columns of integers, of few values, constant ones or copies: a density can climb without end there.

    To silence it, ``warnings.simplefilter("ignore", density.TiedColumns)``.
    """


@dataclass(frozen=True)
class Ties:
    """What a data set has of columns on which a density has no maximum, by their numbers from 0.

    Attributes:
        rows: that were looked at.
        constant: columns of one value.
        integers: columns of integers alone, where rounding does not make every number one.
        repeated: of other columns that repeat values, how many different ones they have.
        copies: of columns that are others, but for a shift and a scale, which ones.
    """

    rows: int
    constant: tuple[int, ...]
    integers: tuple[int, ...]
    repeated: dict[int, int]
    copies: dict[int, int]

    def __bool__(self) -> bool:
        return bool(self.constant or self.integers or self.repeated or self.copies)

    def in_words(self, name: Callable[[int], str] = str) -> str:
        """All of them, each by the name that a column has.

        >>> Ties(500, (), (0, 2), {1: 12}, {3: 2}).in_words()
        'columns 0, 2 hold integers; column 1 (12 values) repeats values; column 3 (as 2) is a copy'
        """
        found = [
            _said([name(column) for column in self.integers], "holds integers", "hold integers"),
            _said([f"{name(c)} ({n} values)" for c, n in self.repeated.items()], "repeats values", "repeat values"),
            _said([name(column) for column in self.constant], "is constant", "are constant"),
            _said([f"{name(c)} (as {name(of)})" for c, of in self.copies.items()], "is a copy", "are copies"),
        ]
        return "; ".join(filter(None, found))


def ties(x: Tensor) -> Ties:
    r"""Look for ties in data ``[n, D]``: in up to 4096 rows, evenly spaced; in none of fewer than 16.

    - *Integers*: a number x is an integer by rounding alone with chance min(1, ulp(x)). A column of integers is called
      one where the product of these chances is below 10⁻⁶, and so not where numbers are so large that all are integers.
    - *Repeated*: n draws from a continuous density, rounded to steps of ulp, are at most λ = n ulp max p to a step on
      average, and so at most n (1 − (1 − e^−λ)/λ) repeat another. So many are let pass, with three times the peak
      0.54/IQR of a normal density for max p, and 1 % of the rows.
    - *Copies*: standardised columns that are equal up to sign and rounding, found by sorting one random projection.

    Cost: O(nD log n), memory of 256 columns.
    """
    columns = x[initialisation_rows(len(x))].detach().cpu().T.contiguous()
    n = columns.shape[1]
    if n < FEWEST_ROWS:
        return Ties(n, (), (), {}, {})
    eps = torch.finfo(x.dtype).eps
    different, whole, tied, projections, roundings = (
        torch.cat(parts) for parts in zip(*map(_looked_at, columns.split(COLUMNS_AT_ONCE)), strict=True)
    )
    constant = different == 1
    repeated = (tied & ~whole & ~constant).nonzero().flatten().tolist()
    return Ties(
        n,
        tuple(constant.nonzero().flatten().tolist()),
        tuple((whole & ~constant).nonzero().flatten().tolist()),
        {column: int(different[column]) for column in repeated},
        _copies(columns, projections.masked_fill(constant, torch.nan), 64 * eps * roundings),
    )


def _looked_at(columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of columns ``[D, n]``: how many different values, whether integers, whether repeating, projection, rounding."""
    n, eps = columns.shape[1], torch.finfo(columns.dtype).eps
    ordered = columns.sort(-1).values
    different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(-1)
    whole = (columns == columns.round()).all(-1)
    by_chance = (eps * columns[whole].abs().double().clamp_min(1)).clamp_max(1).log().sum(-1)
    whole[whole.clone()] = by_chance < math.log(CHANCE)
    low, high = ordered[:, n // 4].double(), ordered[:, n - 1 - n // 4].double()
    step = eps * torch.maximum(low.abs(), high.abs())
    tied = n - different > _repeats_by_rounding(n, step / (high - low)) + max(2.0, SHARE * n)
    values = columns.double()
    standard = _standardised(values)
    noise = torch.randn(n, generator=Generator().manual_seed(0), dtype=torch.float64, device="cpu") / math.sqrt(n)
    rounding = 1 + columns.abs().amax(-1) / values.std(-1, correction=0)
    return different, whole, tied, (standard @ noise).abs(), rounding


def _repeats_by_rounding(n: int, step: Tensor) -> Tensor:
    """How many of n draws may repeat another for steps in units of the interquartile range; none if that is 0."""
    crowd = (PEAK * n * step).nan_to_num(0, 0).clamp_min(torch.finfo(torch.float64).eps)
    return n * (1 + torch.expm1(-crowd) / crowd)


def warn_of_ties(x: Tensor, model: Model, *, depth: int = 2) -> None:
    """Warn, for the caller of a model's ``fit``, of columns on which its density can climb without end.

    Models of another than Lebesgue measure have masses there, and nothing to climb.

    Args:
        x: data ``[n, D]``.
        model: that is fitted to it.
        depth: functions between the warning and the caller.
    """
    if model.measure is not Measure.LEBESGUE:
        return
    found = ties(x)
    if found:
        warnings.warn(
            f"{type(model).__name__}.fit: the likelihood of a continuous density has no maximum on this data, and may "
            f"climb without end: {found.in_words()}. Add uniform noise as wide as a level to what is rounded "
            "(dequantise), or model integers as such (bridge.UniformDequantisation); drop constant columns, copies and "
            "repeated rows. Filter density.TiedColumns to fit all the same",
            TiedColumns,
            stacklevel=depth + 1,
        )


def _standardised(columns: Tensor) -> Tensor:
    """Columns ``[*, n]`` in units of their standard deviations; nan where that is 0."""
    return (columns - columns.mean(-1, keepdim=True)) / columns.std(-1, correction=0, keepdim=True)


def _copies(columns: Tensor, projections: Tensor, tolerances: Tensor) -> dict[int, int]:
    """Columns that are an earlier one but for shift and scale: of neighbours among projections, those that are."""
    order = [column for column in projections.argsort().tolist() if not math.isnan(projections[column])]
    alike = [[column] for column in order[:1]]
    for pair in pairwise(order):
        tolerance = float(tolerances[list(pair)].sum())
        near = float(projections[list(pair)].diff().abs()) <= tolerance * math.sqrt(columns.shape[1])
        if near and _equal_but_for_sign(columns[list(pair)]):
            alike[-1].append(pair[1])
        else:
            alike.append([pair[1]])
    return dict(sorted((column, min(group)) for group in alike for column in group if column != min(group)))


def _equal_but_for_sign(pair: Tensor) -> bool:
    """Whether two standardised columns are, entry by entry, up to the rounding of each: an outlier has its own."""
    values = pair.double()
    size = values.abs()
    units = (size + size.mean(-1, keepdim=True)) / values.std(-1, correction=0, keepdim=True)
    room = 16 * torch.finfo(pair.dtype).eps * units.sum(0)
    one, other = _standardised(values)
    return bool(((one - other).abs() <= room).all() | ((one + other).abs() <= room).all())


def _said(names: list[str], one: str, several: str) -> str:
    if not names:
        return ""
    if len(names) > NAMED:
        names = [*names[:NAMED], f"and {len(names) - NAMED} more"]
    return f"column {names[0]} {one}" if len(names) == 1 else f"columns {', '.join(names)} {several}"
