"""Reference measures of densities: nats with respect to different measures are different units.

>>> mixed = product([Measure.LEBESGUE, Measure.COUNTING])
>>> isinstance(mixed, ReferenceMeasure), mixed == product([Measure.COUNTING, Measure.LEBESGUE])
(True, False)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

TIMES = " × "


class Measure(Enum):
    """The reference measure of a density whose features are all alike.

    >>> Measure.COUNTING.words, Measure.LEBESGUE.columns(2)
    ('counting measure', (<Measure.LEBESGUE: 'Lebesgue'>, <Measure.LEBESGUE: 'Lebesgue'>))
    """

    LEBESGUE = "Lebesgue"
    COUNTING = "counting"
    RECTIFIED = "Lebesgue-with-an-atom-at-0"

    @property
    def words(self) -> str:
        """As a claim prints it."""
        return f"{self.value} measure"

    def columns(self, features: int) -> tuple[Measure, ...]:
        """The measure of each of so many features."""
        return (self,) * features


@dataclass(frozen=True)
class ProductMeasure:
    """The reference measure of a density over features of several kinds: the product of their measures.

    Two of them are equal where every column has the same measure; densities are comparable then and only then.

    Attributes:
        factors: the measure of each column, from 0.

    >>> mixed = ProductMeasure((Measure.LEBESGUE, Measure.COUNTING, Measure.LEBESGUE, Measure.LEBESGUE))
    >>> mixed.value
    'Lebesgue (columns 0, 2-3) × counting (column 1)'
    """

    factors: tuple[Measure, ...]

    @property
    def value(self) -> str:
        """Its name, by which files know it: which columns have which measure."""
        places = {measure: [c for c, own in enumerate(self.factors) if own is measure] for measure in self.factors}
        return TIMES.join(
            f"{measure.value} ({'columns' if len(columns) > 1 else 'column'} {in_ranges(columns)})"
            for measure, columns in places.items()
        )

    @property
    def words(self) -> str:
        """As a claim prints it."""
        return f"with respect to {self.value}"

    def columns(self, features: int) -> tuple[Measure, ...]:
        """The measure of each of its features; ValueError if there are others than so many."""
        if features != len(self.factors):
            raise ValueError(f"a product of measures of {len(self.factors)} columns is none of {features}")
        return self.factors


ReferenceMeasure = Measure | ProductMeasure
"""What a density can be with respect to: one measure for all its features, or the product of one a feature."""


def product(factors: Sequence[Measure]) -> ReferenceMeasure:
    """The measure of points whose columns have these: a plain one where they are alike.

    >>> product([Measure.COUNTING, Measure.COUNTING])
    <Measure.COUNTING: 'counting'>

    Raises:
        ValueError: there are no columns.
    """
    if not factors:
        raise ValueError("a product of measures needs at least one column; got none")
    return factors[0] if len(set(factors)) == 1 else ProductMeasure(tuple(factors))


def measure_named(name: str) -> ReferenceMeasure:
    """The measure of that ``value``; ValueError if there is none.

    >>> measure_named("counting (columns 1-2) × Lebesgue (columns 0, 3)").factors[0]
    <Measure.LEBESGUE: 'Lebesgue'>
    """
    if "(" not in name:
        return Measure(name)
    places: dict[int, Measure] = {}
    for factor in name.split(TIMES):
        found = re.fullmatch(r"(.+) \(columns? ([\d, -]+)\)", factor)
        if found is None:
            raise ValueError(f"{name!r} is no product of measures")
        for part in found[2].split(", "):
            first, _, last = part.partition("-")
            places |= dict.fromkeys(range(int(first), int(last or first) + 1), Measure(found[1]))
    if sorted(places) != list(range(len(places))):
        raise ValueError(f"{name!r} leaves out columns")
    return product([places[column] for column in range(len(places))])


def in_ranges(columns: Sequence[int]) -> str:
    """Columns in ascending order, those next to each other as a range.

    >>> in_ranges([0, 2, 3, 4, 9])
    '0, 2-4, 9'
    """
    starts = [0, *(place for place, (a, b) in enumerate(pairwise(columns), 1) if b != a + 1), len(columns)]
    runs = [columns[first:last] for first, last in pairwise(starts)]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
