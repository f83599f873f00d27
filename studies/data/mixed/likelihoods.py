"""The likelihood of each kind of column."""

from __future__ import annotations

from collections.abc import Sequence

from density import Category, Columns, GaussianLikelihood, Likelihood, NegativeBinomial
from studies.data.raw import Column


def likelihoods(columns: Sequence[Column]) -> Columns:
    """Gaussian of numbers, negative binomial of counts, categorical of categories.

    >>> likelihoods([Column("1", "number"), Column("2", "category", ("no", "yes"))]).measure.value
    'Lebesgue (column 0) × counting (column 1)'
    """
    return Columns([_likelihood(column) for column in columns])


def _likelihood(column: Column) -> Likelihood:
    match column.kind:
        case "number":
            return GaussianLikelihood()
        case "count":
            return NegativeBinomial()
    return Category(len(column.levels))
