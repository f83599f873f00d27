"""The relation of a number to the quantity that it is about: exact, a bound, an estimate."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Kind(Enum):
    """The relation of a number to the quantity that it is about.

    >>> Kind.EXACT.minus(Kind.LOWER), Kind.LOWER.flipped()
    (<Kind.UPPER: 'upper bound'>, <Kind.UPPER: 'upper bound'>)
    """

    EXACT = "exact"
    LOWER = "lower bound"
    UPPER = "upper bound"
    ESTIMATE = "estimate"

    def flipped(self) -> Kind:
        """The kind of −a when a has this kind."""
        return {Kind.LOWER: Kind.UPPER, Kind.UPPER: Kind.LOWER}.get(self, self)

    def minus(self, other: Kind) -> Kind:
        """The kind of a − b when a has this kind and b the other; bounds on the same side are an error."""
        if Kind.ESTIMATE in (self, other):
            return Kind.ESTIMATE
        signs = {self, other.flipped()} - {Kind.EXACT}
        if len(signs) > 1:
            raise ValueError(
                f"the difference of two {self.value}s is neither a bound nor an estimate of anything; "
                "compare exact values, or bounds on opposite sides. How far a lower bound may be off, a sandwich of "
                "lvm.evidence shows on points simulated from its model"
            )
        return signs.pop() if signs else Kind.EXACT


def joint(kinds: Iterable[Kind]) -> Kind:
    """The kind of the mean of numbers of these kinds; of bounds on opposite sides it is an estimate.

    >>> joint([Kind.EXACT, Kind.LOWER])
    <Kind.LOWER: 'lower bound'>
    """
    different = set(kinds)
    if len(different) > 1:
        different.discard(Kind.EXACT)
    return different.pop() if len(different) == 1 else Kind.ESTIMATE
