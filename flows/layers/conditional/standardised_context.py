"""Contexts in units of their own."""

from __future__ import annotations

from torch import Tensor

from density.initialisation import Standardisation, StartingPoints
from flows.layers.conditional.embedded_context import ContextSeen
from flows.transform import Transform


class StandardisedContext(ContextSeen):
    r"""A conditional transform that sees its context standardised: z = f(x; (c − mean)/std), feature by feature.

    Mean and standard deviation are buffers, taken from contexts once, by :meth:`initialise`: a year and a price in
    thousands are then as good a context as numbers of size 1. Until then the context is seen as it is.

    Args:
        transform: conditional.

    Raises:
        TypeError: not a Transform.
        ValueError: the transform takes no context.

    Cost: that of the transform, and O(C) a point.

    >>> import torch
    >>> from flows import AffineCoupling
    >>> transform = StandardisedContext(AffineCoupling([False, False], context_features=1))
    >>> years = torch.tensor([[1990.0], [2010.0]])
    >>> z = transform.initialise(torch.zeros(2, 2), years)
    >>> transform.standardise(years).tolist()
    [[-1.0], [1.0]]
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__(transform)
        self.standardise = Standardisation(transform.context_features)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        self.standardise.take(context)
        return self.transform._initialise(x, context.mapped(self.standardise))

    def _seen(self, context: Tensor) -> Tensor:
        return self.standardise(context)
