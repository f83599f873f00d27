"""What a conditional transform sees of its context: features that a network makes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from density.checks import check_count
from density.families.network import network_output
from density.initialisation import StartingPoints, take_input
from density.support import Support
from flows.transform import Transform


class ContextSeen(Transform, ABC):
    """A conditional transform that sees something else than its context: z = f(x; h(c)). Subclasses say what h is.

    Args:
        transform: conditional.
        context_features: C, the size of c; that of h(c) if None.

    Raises:
        TypeError: not a Transform.
        ValueError: the transform takes no context.
    """

    def __init__(self, transform: Transform, context_features: int | None = None) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(transform, Transform):
            raise TypeError(f"{owner} takes a Transform; got a {type(transform).__name__}")
        if not transform.context_features:
            raise ValueError(f"{owner} expects a conditional transform; {type(transform).__name__} takes no context")
        own = transform.context_features
        self.transform = transform
        self.features = transform.features
        self.context_features = own if context_features is None else check_count(context_features, "context_features")

    @property
    def domain(self) -> Support | None:
        return self.transform.domain

    @property
    def image(self) -> Support | None:
        return self.transform.image

    @abstractmethod
    def _seen(self, context: Tensor) -> Tensor:
        """h(c) ``[*batch, H]`` for c ``[*batch, C]``."""

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._forward(x, self._rows(context))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse(z, self._rows(context))

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._forward_columns(x, self._columns(context))

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse_columns(z, self._columns(context))

    def _rows(self, context: Tensor | None) -> Tensor:
        assert context is not None, "the public methods have checked it"
        return self._seen(context)

    def _columns(self, context: Tensor | None) -> Tensor:
        assert context is not None, "the public methods have checked it"
        return self._seen(context.T).T


class EmbeddedContext(ContextSeen):
    r"""A conditional transform that sees features which a network makes of its context: z = f(x; h(c)).

    The network is trained with the rest: images, long vectors or one-hot labels become a few numbers. It runs once for
    all layers of the transform.

    Args:
        network: any module that maps rows ``[n, C]`` to ``[n, H]``, or to n events of H numbers; it sees contexts of
            any batch shape as rows.
        transform: with a context of H features.
        context_features: C.

    Raises:
        TypeError: not a module, or not a Transform.
        ValueError: the transform takes no context; on a call, the network returns anything else.

    Cost: that of the transform, and a pass of the network a point.

    >>> import torch
    >>> from density.families.gaussian import StandardNormal
    >>> from flows import Flow, glow
    >>> labels = nn.Linear(10, 3, bias=False)  # three numbers for each of ten labels
    >>> flow = Flow(StandardNormal(2), EmbeddedContext(labels, glow(2, 2, (4,), 3).transform, 10))
    >>> flow.sample(7, context=torch.eye(10)).shape
    torch.Size([7, 10, 2])
    """

    def __init__(self, network: nn.Module, transform: Transform, context_features: int) -> None:
        super().__init__(transform, context_features)
        if not isinstance(network, nn.Module):
            raise TypeError(f"{type(self).__name__} takes a network, an nn.Module; got a {type(network).__name__}")
        self.network = network

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        take_input(self.network, self.context_features, context)
        return self.transform._initialise(x, context.through(self.network, self._seen))

    def _seen(self, context: Tensor) -> Tensor:
        width = self.transform.context_features
        return network_output(self.network, context, width, type(self).__name__, "features")
