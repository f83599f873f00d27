"""The density of those entries of a point that are there."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from density.contract import Density
from density.data.states import Alphabet
from density.initialisation import StartingPoints
from density.support import Step, Support, preimage


class ObservedEntries(Density):
    r"""The density of the entries that are observed, where nan marks a missing one, of independent features.

    .. math:: \log p(x_o|c) = \sum_{j \in o} \log p(x_j|c)

    What a decoder says of incomplete rows: a density over as many dimensions as a row has entries, 0 nats for one that
    has none. No value stands for a missing entry, and no gradient comes from one. Draws are complete.

    Args:
        density: of independent features given its context (``factorises``).

    Raises:
        TypeError: not a Density, or one whose features are not independent, or that does not say so.

    Cost: that of the density.

    >>> from density.families.gaussian import StandardNormal
    >>> density = ObservedEntries(StandardNormal(2))
    >>> density.log_prob(torch.tensor([[0.0, 0.0], [torch.nan, 0.0], [torch.nan, torch.nan]]))
    tensor([-1.8379, -0.9189,  0.0000])
    """

    def __init__(self, density: Density) -> None:
        super().__init__()
        if not isinstance(density, Density):
            raise TypeError(f"ObservedEntries takes a Density; got {type(density).__name__}")
        if not density.factorises:
            raise TypeError(
                f"ObservedEntries takes a density of independent features, whose shares in log p(x) are known; "
                f"{type(density).__name__} does not say that it is one"
            )
        self.features, self.context_features = density.features, density.context_features
        self.measure = density.measure
        self.density = density

    @property
    def support(self) -> Support | None:
        inside = Step(type(self.density).__name__, self.density.support)
        return preimage([Step("the observed entries", None, self._completed), inside])

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return self.density.alphabets

    def check_support(self, x: Tensor) -> None:
        self.density.check_support(self._completed(x))

    def _completed(self, x: Tensor) -> Tensor:
        """Points of the density's support, with the same observed entries."""
        return torch.where(x.isnan(), self.density._inside().to(x), x)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.density._initialise(x, context)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        each = self.density._log_prob_by_feature(self._completed(x), context)
        return each.masked_fill(x.isnan(), 0.0).sum(-1)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.density._sample(n, context, generator)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.density._expectation(context)
