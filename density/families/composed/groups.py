"""Columns of a table that share a family, and the product of the families that a table has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from density.checks import in_words
from density.families.composed.product import Product
from density.families.likelihoods.likelihood import Likelihood


@dataclass(frozen=True)
class Group:
    """Columns of one likelihood.

    Attributes:
        likelihood: of each of them.
        columns: their places in the table, from 0.
    """

    likelihood: Likelihood
    columns: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many numbers of a network they take together."""
        return self.likelihood.width(len(self.columns))


def grouped(likelihoods: Sequence[Likelihood], owner: str) -> tuple[Group, ...]:
    """The columns of a table by their likelihoods, those of equal ones together; in the order of their first columns.

    >>> from density.families.likelihoods.bernoulli import BernoulliLikelihood
    >>> from density.families.likelihoods.gaussian import GaussianLikelihood
    >>> [group.columns for group in grouped([GaussianLikelihood(), BernoulliLikelihood(), GaussianLikelihood()], "")]
    [(0, 2), (1,)]

    Raises:
        TypeError: something is no Likelihood.
        ValueError: there is none.
    """
    places: dict[Likelihood, list[int]] = {}
    for column, likelihood in enumerate(likelihoods):
        if not isinstance(likelihood, Likelihood):
            raise TypeError(
                f"{owner} expects a likelihood for each column, such as GaussianLikelihood() or Category(levels=3); "
                f"got {in_words(likelihood)} for column {column}"
            )
        places.setdefault(likelihood, []).append(column)
    if not places:
        raise ValueError(f"{owner} expects a likelihood for each column; got none")
    return tuple(Group(likelihood, tuple(columns)) for likelihood, columns in places.items())


def product_of(groups: Sequence[Group]) -> Product:
    """The product of the groups' densities, given the numbers of all of them side by side."""
    parts = [group.likelihood.conditional(nn.Identity(), len(group.columns), group.width) for group in groups]
    return Product(parts, [group.columns for group in groups])
