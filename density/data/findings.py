r"""What a data set has on which a continuous density can be arbitrarily high: its likelihood has no maximum there.

A density that puts a share π of its mass within ±ε of a value that a share of the rows repeat gains π log(1/ε) nats a
point, without end as ε → 0, and held-out rows gain as much: they repeat the value too. So do a constant column, and a
column that is a function of others, along the direction in which nothing varies. Integers and rounded decimals are
such values; with uniform noise as wide as a level they have a density that is bounded by the mass of the level (Theis
et al. 2016, arXiv:1511.01844, section 3.1). Rows that are there twice are such values in all columns at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from density.data.dependence import combinations, copies, standardised
from density.initialisation import initialisation_rows

FEWEST_ROWS = 16  # of fewer, every row is a spike by itself
CHANCE = 1e-6  # of being called integers when it is by rounding that all values are
PEAK = 3 * 0.54  # of a density with interquartile range 1; a normal one's is 0.54
ROWS_COMPARED = 1 << 18
SHARE = 0.01  # of the rows may repeat others
ATOM = 0.05  # of the rows, and
ABOVE = 3  # times as many as have the next value: an atom, and no level among levels
COLUMNS_AT_ONCE = 256
NAMED = 12  # columns, and then how many more


@dataclass(frozen=True)
class Atom:
    """A value that stands out: the share of rows that have it, and the value."""

    share: float
    value: float

    def __str__(self) -> str:
        return f"{self.share:.0%} are {self.value:g}"


@dataclass(frozen=True)
class Findings:
    """What a data set has on which a density has no maximum, columns by their numbers from 0; false if it has nothing.

    Attributes:
        rows: that were looked at.
        constant: columns of one value.
        integers: columns of integers alone, where rounding does not make every number one.
        repeated: of other columns that repeat values, how many different ones they have.
        copies: of columns that are others, but for a shift and a scale, which ones.
        atoms: of columns that repeat values, the commonest, where it stands out.
        combinations: of columns that are linear combinations of several others, which ones.
        duplicates: rows that repeat an earlier one, where columns that repeat values do not make that likely.
        steps: of columns of integers or repeated values, the smallest difference of two of them: the width of noise.
    """

    rows: int
    constant: tuple[int, ...]
    integers: tuple[int, ...]
    repeated: dict[int, int]
    copies: dict[int, int]
    atoms: dict[int, Atom] = field(default_factory=dict)
    combinations: dict[int, tuple[int, ...]] = field(default_factory=dict)
    duplicates: int = 0
    steps: dict[int, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        lists = (self.constant, self.integers, self.repeated, self.copies, self.combinations)
        return any(lists) or self.duplicates > 0

    @property
    def deficient(self) -> bool:
        """Whether a column is constant or follows from others linearly, so that covariances are singular."""
        return bool(self.constant or self.copies or self.combinations)

    @property
    def parts(self) -> frozenset[tuple[str, int]]:
        """Each of them by its kind and column, whatever its counts; repeated rows have the column −1.

        >>> sorted(Findings(500, (), (0, 2), {1: 12}, {}, duplicates=9).parts)
        [('duplicates', -1), ('integers', 0), ('integers', 2), ('repeated', 1)]
        """
        kinds = ("constant", "integers", "repeated", "copies", "combinations")
        found = {(kind, column) for kind in kinds for column in getattr(self, kind)}
        return frozenset(found | ({("duplicates", -1)} if self.duplicates else set()))

    def in_words(self, name: Callable[[int], str] = str) -> str:
        """All of them, each by the name that a column has.

        >>> found = Findings(500, (), (0, 2), {1: 12, 4: 300}, {3: 2}, {4: Atom(0.4, 0.0)}, duplicates=9)
        >>> print(found.in_words().replace("; ", ";\\n"))
        columns 0, 2 hold integers;
        column 1 (12 values) repeats values;
        column 4 (40% are 0) has an atom;
        column 3 (as 2) is a copy;
        9 rows repeat another
        """
        atoms = {column: atom for column, atom in self.atoms.items() if column in self.repeated}
        levels = {column: count for column, count in self.repeated.items() if column not in atoms}
        sums = {
            c: ", ".join(map(name, of[:NAMED])) + ("" if len(of) <= NAMED else ", …")
            for c, of in self.combinations.items()
        }
        found = [
            _said([name(column) for column in self.integers], "holds integers", "hold integers"),
            _said([f"{name(c)} ({n} values)" for c, n in levels.items()], "repeats values", "repeat values"),
            _said([f"{name(c)} ({atom})" for c, atom in atoms.items()], "has an atom", "have atoms"),
            _said([name(column) for column in self.constant], "is constant", "are constant"),
            _said([f"{name(c)} (as {name(of)})" for c, of in self.copies.items()], "is a copy", "are copies"),
            _said(
                [f"{name(c)} (of {of})" for c, of in sums.items()], "is a linear combination", "are linear combinations"
            ),
            f"{self.duplicates} rows repeat another" if self.duplicates else "",
        ]
        return "; ".join(filter(None, found))

    def cures(self, name: Callable[[int], str] = str) -> list[str]:
        """What to do about each kind, by the names that columns have.

        >>> Findings(500, (), (0,), {}, {3: 2}, steps={0: 1.0}).cures()
        ['add uniform noise as wide as a level (dequantise) to 0 (1)', 'drop 3: constant, or known from others']
        """
        found = []
        levels = [c for c in sorted({*self.integers, *self.repeated}) if c in self.integers or c not in self.atoms]
        noise = [f"{name(c)} ({self.steps[c]:g})" if c in self.steps else name(c) for c in levels]
        if noise:
            found.append(f"add uniform noise as wide as a level (dequantise) to {_listed(noise)}")
        if atoms := [name(column) for column in self.repeated if column in self.atoms]:
            found.append(
                f"leave out {_listed(atoms)}, or model apart which rows have the common value; noise (dequantise) "
                "needs a step that you choose"
            )
        if known := [name(column) for column in sorted({*self.constant, *self.copies, *self.combinations})]:
            found.append(f"drop {_listed(known)}: constant, or known from others")
        if self.duplicates:
            found.append("drop repeated rows")
        return found


def examine(x: Tensor) -> Findings:
    r"""Look at data ``[n, D]`` for what gives a continuous density no maximum: in up to 4096 rows, evenly spaced.

    Repeated rows are looked for among the first 2¹⁸, since rows and their copies may stand anywhere.

    - *Integers*: a number x is an integer by rounding alone with chance min(1, ulp(x)). A column of integers is called
      one where the product of these chances is below 10⁻⁶, and so not where numbers are so large that all are integers.
    - *Repeated*: n draws from a continuous density, rounded to steps of ulp, are at most λ = n ulp max p to a step on
      average, and so at most n (1 − (1 − e^−λ)/λ) repeat another. So many are let pass, with three times the peak
      0.54/IQR of a normal density for max p, and 1 % of the rows. Where one value has 5 % of the rows, and three times
      as many as the next, it is an *atom*.
    - *Copies*: standardised columns that are equal up to sign and rounding, found by sorting one random projection.
    - *Combinations*: columns that others give up to rounding, by :func:`~density.data.dependence.combinations`.
    - *Duplicates*: equal rows, found by sorting one random projection, where columns that repeat values independently
      of each other would not have a quarter as many, and 1 % of the rows are. Columns are then judged without them.

    Of fewer rows than 16 nothing is said. Cost: O(nD log n), and O(nD²) of up to 256 columns, whatever their number.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    >>> bool(examine(x))
    False
    >>> examine(torch.cat([x, x[:, :1] - x[:, 1:2]], 1)).combinations
    {3: (0, 1)}
    """
    columns = x[initialisation_rows(len(x))].detach().cpu().T.contiguous()
    n = columns.shape[1]
    if n < FEWEST_ROWS:
        return Findings(n, (), (), {}, {})
    every = columns if n == len(x) else x[:ROWS_COMPARED].detach().cpu().T
    first = _first_of_each(every) if len(every) > 1 else torch.arange(every.shape[1])
    duplicates = every.shape[1] - len(first)
    few = duplicates <= max(2.0, SHARE * every.shape[1])
    if few or duplicates <= 4 * _by_chance(every) or len(first) < FEWEST_ROWS:
        duplicates = 0
    else:
        columns = every[:, first[initialisation_rows(len(first))]].contiguous()
        n = columns.shape[1]
    eps = torch.finfo(x.dtype).eps
    different, whole, tied, projections, roundings = (
        torch.cat(parts) for parts in zip(*map(_looked_at, columns.split(COLUMNS_AT_ONCE)), strict=True)
    )
    constant = different == 1
    repeated = (tied & ~whole & ~constant).nonzero().flatten().tolist()
    integers = (whole & ~constant).nonzero().flatten().tolist()
    alike = copies(columns, projections.masked_fill(constant, torch.nan), 64 * eps * roundings)
    others = [column for column in range(len(columns)) if not constant[column] and column not in alike]
    runs = {column: columns[column].unique(return_counts=True) for column in sorted({*integers, *repeated})}
    return Findings(
        n,
        tuple(constant.nonzero().flatten().tolist()),
        tuple(integers),
        {column: int(different[column]) for column in repeated},
        alike,
        {column: atom for column, (values, counts) in runs.items() if (atom := _atom(values, counts)) is not None},
        combinations(columns, others),
        duplicates,
        {column: step for column, (values, _) in runs.items() if (step := _step(values)) is not None},
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
    standard = standardised(values)
    noise = torch.randn(n, generator=Generator().manual_seed(0), dtype=torch.float64, device="cpu") / math.sqrt(n)
    rounding = 1 + columns.abs().amax(-1) / values.std(-1, correction=0)
    return different, whole, tied, (standard @ noise).abs(), rounding


def _repeats_by_rounding(n: int, step: Tensor) -> Tensor:
    """How many of n draws may repeat another for steps in units of the interquartile range; none if that is 0."""
    crowd = (PEAK * n * step).nan_to_num(0, 0).clamp_min(torch.finfo(torch.float64).eps)
    return n * (1 + torch.expm1(-crowd) / crowd)


def _first_of_each(columns: Tensor) -> Tensor:
    """The first of all rows that are equal, in their order, of columns ``[D, n]``."""
    n = columns.shape[1]
    random = torch.randn(len(columns), 1, generator=Generator().manual_seed(1), dtype=torch.float64, device="cpu")
    order = (columns.double() * random).nan_to_num().sum(0).argsort(stable=True)
    again = torch.zeros(n, dtype=torch.bool)
    again[order[1:]] = (columns[:, order[1:]] == columns[:, order[:-1]]).all(0)
    return (~again).nonzero().flatten()


def _by_chance(columns: Tensor) -> float:
    """How many pairs of equal rows there are on average if columns ``[D, n]`` are independent of each other."""
    n = columns.shape[1]
    log_pairs = math.log(n * (n - 1) / 2)
    for column in columns:
        counts = column.unique(return_counts=True)[1].double()
        equal = (counts * (counts - 1)).sum().item() / (n * (n - 1))
        if equal == 0:
            return 0.0
        log_pairs += math.log(equal)
    return math.exp(log_pairs)


def _atom(values: Tensor, counts: Tensor) -> Atom | None:
    """The commonest of different values, if it stands out."""
    if len(counts) < 3:
        return None
    common, second = counts.topk(2).values.tolist()
    if common < ATOM * counts.sum().item() or common < ABOVE * second:
        return None
    return Atom(common / counts.sum().item(), values[counts.argmax()].item())


def _step(values: Tensor) -> float | None:
    """The smallest difference of sorted values that rounding has not made."""
    steps = values.double().diff()
    apart = steps[steps > 8 * torch.finfo(values.dtype).eps * values.abs().max()]
    return apart.min().item() if len(apart) else None


def _said(names: list[str], one: str, several: str) -> str:
    if not names:
        return ""
    return f"column {names[0]} {one}" if len(names) == 1 else f"columns {_listed(names)} {several}"


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) <= NAMED else [*names[:NAMED], f"and {len(names) - NAMED} more"])
