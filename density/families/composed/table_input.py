"""The first layer of a network that reads tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.composed.groups import grouped
from density.families.likelihoods.likelihood import Likelihood
from density.families.network import InputLayer
from density.initialisation import Standardisation


class TableInput(Standardisation):
    """Rows of a table as a network takes them: each column as its likelihood says (``encoder_input``).

    Numbers are standardised, by mean and standard deviation of the data at the model's first fit, categories become
    indicators. Columns of one likelihood come out together. What is behind the columns, of a context, stays.

    Args:
        likelihoods: of each column.
        beside: how many features are behind the columns.

    Attributes:
        width: how many numbers come out.

    >>> from density.families.composed.category import Category
    >>> from density.families.likelihoods.gaussian import GaussianLikelihood
    >>> layer = TableInput([GaussianLikelihood(), Category(2)])
    >>> layer.match(torch.tensor([[10.0, 0.0], [30.0, 1.0]]))
    >>> layer(torch.tensor([[30.0, 0.0]])).tolist()
    [[1.0, 1.0, 0.0]]
    """

    numbers: Tensor
    order: Tensor

    def __init__(self, likelihoods: Sequence[Likelihood], beside: int = 0) -> None:
        groups = grouped(likelihoods, "TableInput")
        super().__init__(len(likelihoods) + check_count(beside, "beside", least=0))
        layers = [group.likelihood.encoder_input(len(group.columns)) for group in groups]
        numbers = torch.zeros(self.features, dtype=torch.bool)
        order: list[int] = []
        for group, layer in zip(groups, layers, strict=True):
            order += group.columns
            numbers[list(group.columns)] = isinstance(layer, Standardisation)
        order += range(len(order), self.features)
        self.register_buffer("numbers", numbers, persistent=False)
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.widths = [len(group.columns) for group in groups] + [beside]
        own = [nn.Identity() if layer is None or isinstance(layer, Standardisation) else layer for layer in layers]
        self.layers = nn.ModuleList([*own, nn.Identity()])
        self.width = int(self(torch.zeros(1, self.features)).shape[-1])

    def match(self, x: Tensor, what: str = "data") -> None:
        super().match(torch.where(self.numbers, x, 0.0), what)  # of the others nothing is taken, and they may change

    def blank(self, like: Tensor) -> Tensor:
        """Means of numbers; of all else what its layer says."""
        each = [
            layer.blank(like) if isinstance(layer, InputLayer) else self.shift.new_zeros(width)
            for layer, width in zip(self.layers, self.widths, strict=True)
        ]
        return self.shift + torch.cat([own.to(self.shift) for own in each])[self.order.argsort()]

    def forward(self, x: Tensor) -> Tensor:
        parts = super().forward(x)[..., self.order].split(self.widths, -1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], -1)

    def inverse(self, y: Tensor) -> Tensor:
        """Not there: categories have become indicators."""
        raise TypeError("TableInput has no inverse")
