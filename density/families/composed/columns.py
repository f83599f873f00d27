"""A likelihood for each column of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from density.contract import Density
from density.families.composed.featured import Featured
from density.families.composed.groups import Group, grouped, product_of
from density.families.composed.table_input import TableInput
from density.families.likelihoods.likelihood import Likelihood
from density.measure import ReferenceMeasure, product


@dataclass(frozen=True)
class Columns(Likelihood):
    """A table: a likelihood for each column, independent given the context.

    Numbers, counts, bits and categories side by side, each with its own share of one network's numbers. The measure is
    the product of theirs, so that a model of such a table is compared with models of the same columns alone. A network
    sees numbers standardised and categories as indicators.

    Attributes:
        likelihoods: of each column, in their order.

    Raises:
        TypeError: one of them is no Likelihood.
        ValueError: there is none.

    >>> from density.families.composed.category import Category
    >>> from density.families.likelihoods.gaussian import GaussianLikelihood
    >>> table = Columns([GaussianLikelihood(), Category(levels=3), GaussianLikelihood()])
    >>> table.width(3), table.measure.value
    (7, 'Lebesgue (columns 0, 2) × counting (column 1)')
    """

    likelihoods: Sequence[Likelihood]

    def __post_init__(self) -> None:
        object.__setattr__(self, "likelihoods", tuple(self.likelihoods))
        grouped(self.likelihoods, "Columns")

    @property
    def measure(self) -> ReferenceMeasure:  # type: ignore[override]  # it follows from the columns
        """The product of the columns' measures."""
        return product([factor for each in self.likelihoods for factor in each.measure.columns(1)])

    @property
    def numbers(self) -> int:
        raise TypeError("Columns take numbers of a network that are not the same for all; ask width(features)")

    def width(self, features: int) -> int:
        return sum(group.width for group in self.groups(features))

    def conditional(self, network: nn.Module, features: int, context_features: int) -> Density:
        return Featured(network, product_of(self.groups(features)), context_features)

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module:
        self.groups(features)
        return TableInput(self.likelihoods, beside)

    def groups(self, features: int) -> tuple[Group, ...]:
        """Those of equal likelihoods together; ValueError if there are others than so many columns."""
        if features != len(self.likelihoods):
            raise ValueError(f"Columns has {len(self.likelihoods)} likelihoods, and the table {features} columns")
        return grouped(self.likelihoods, "Columns")


def groups_of(likelihood: Likelihood, features: int) -> tuple[Group, ...]:
    """The groups of columns of a likelihood: one, of all columns, where it is the same for all."""
    return likelihood.groups(features) if isinstance(likelihood, Columns) else (Group(likelihood, (*range(features),)),)
