"""The decoder of a finite mixture: K products of families, each with parameters of its own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count
from density.data.states import Alphabet
from density.families.composed.columns import Columns, groups_of
from density.families.composed.groups import Group, product_of
from density.families.likelihoods.exponential import ExponentialFamily
from density.families.likelihoods.likelihood import Likelihood
from density.initialisation import UNKNOWN, StartingPoints
from density.support import Step, Support, preimage
from lvm.components import ComponentFamily

SCALARS_AT_ONCE = 2**20  # numbers of rows and components that are looked at together


class ProductComponents(ComponentFamily):
    r"""K products of families over the columns of a table, of which the one-hot context z picks one.

    .. math:: \log p(x|z_k = 1) = \sum_j \log p_j(x_j | \theta_{kj})

    Args:
        features: D.
        components: K, the size of the context.
        likelihood: of the features, or :class:`~density.families.composed.columns.Columns`. Where the maximum has a
            closed form in all columns, their numbers are taken as they come
            (:meth:`~density.families.likelihoods.exponential.ExponentialFamily.natural`): EM bounds them.

    Attributes:
        numbers: of every component ``[K, N]``, those of all columns side by side.

    Cost: O(KN) a point.

    >>> from density import BernoulliLikelihood
    >>> components = ProductComponents(3, 2, BernoulliLikelihood())
    >>> components.log_prob_of_each(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, features: int, components: int, likelihood: Likelihood) -> None:
        super().__init__()
        self.features = check_count(features, "features")
        self.context_features = check_count(components, "components")
        self.groups = _natural(groups_of(likelihood, self.features))
        self.product = product_of(self.groups)
        self.measure = self.product.measure
        self.numbers = nn.Parameter(0.5 * torch.randn(components, self.product.context_features))

    def of_columns(self, columns: list[int]) -> tuple[Columns, Tensor]:
        """The likelihoods of some columns, and the numbers of every component for them, ``[K, N]``."""
        likelihoods: dict[int, Likelihood] = {}
        numbers: dict[int, Tensor] = {}
        for group, block in zip(self.groups, self.numbers.split([own.width for own in self.groups], -1), strict=True):
            each = block.unflatten(-1, (-1, len(group.columns))).unbind(-1)
            likelihoods |= dict.fromkeys(group.columns, group.likelihood)
            numbers |= dict(zip(group.columns, each, strict=True))
        found = Columns([likelihoods[column] for column in columns])
        blocks = [
            torch.stack([numbers[columns[place]] for place in group.columns], -1).flatten(1)
            for group in found.groups(len(columns))
        ]
        return found, torch.cat(blocks, -1)

    def log_prob_of_each(self, x: Tensor) -> Tensor:
        rows = max(1, SCALARS_AT_ONCE // self.numbers.numel())
        parts = x.reshape(-1, self.features).split(rows)
        each = [self.product._log_prob_at_each(part, self.numbers) for part in parts]
        return torch.cat(each).reshape(*x.shape[:-1], self.context_features)

    @property
    def support(self) -> Support | None:
        return preimage([Step(type(self.product).__name__, self.product.support)])

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return self.product.alphabets

    def check_support(self, x: Tensor) -> None:
        self.product.check_support(x)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.product._initialise(x, UNKNOWN)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.product._log_prob(x, self._picked(context))

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.product._sample(n, self._picked(context), generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        return self.product._sample_with_log_prob(n, self._picked(context), generator)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.product._expectation(self._picked(context))

    def _picked(self, context: Tensor | None) -> Tensor:
        assert context is not None, "the base class has checked it"
        return self.numbers[context.argmax(-1)]


def _natural(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    found = [group.likelihood for group in groups if isinstance(group.likelihood, ExponentialFamily)]
    if len(found) < len(groups):
        return groups
    return tuple(Group(own.natural(), group.columns) for own, group in zip(found, groups, strict=True))
