"""Contexts in units of their own."""

from __future__ import annotations

from torch import Tensor

from density.initialisation import Standardisation, StartingPoints
from density.support import Support
from flows.transform import Transform


class StandardisedContext(Transform):
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
        super().__init__()
        owner = type(self).__name__
        if not isinstance(transform, Transform):
            raise TypeError(f"{owner} takes a Transform; got a {type(transform).__name__}")
        if not transform.context_features:
            raise ValueError(f"{owner} expects a conditional transform; {type(transform).__name__} takes no context")
        self.transform = transform
        self.features = transform.features
        self.context_features = transform.context_features
        self.standardise = Standardisation(transform.context_features)

    @property
    def domain(self) -> Support | None:
        return self.transform.domain

    @property
    def image(self) -> Support | None:
        return self.transform.image

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._forward(x, self._seen(context))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse(z, self._seen(context))

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._forward_columns(x, self._seen(context, columns=True))

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse_columns(z, self._seen(context, columns=True))

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        self.standardise.take(context)
        return self.transform._initialise(x, context.mapped(self.standardise))

    def _seen(self, context: Tensor | None, *, columns: bool = False) -> Tensor:
        """The context as the transform sees it, points as rows or as columns."""
        assert context is not None, "the public methods have checked it"
        return self.standardise(context.T).T if columns else self.standardise(context)
