"""Transforms: invertible maps that know their log-determinants."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from density.checks import check_batches, check_context, check_data, check_points, find_reference
from density.evaluating import evaluating
from density.initialisation import UNKNOWN, StartingPoints
from density.own_precision import in_own_precision
from density.rebuildable import Rebuildable
from density.support import Support


class Transform(Rebuildable, nn.Module, ABC):
    r"""A differentiable bijection of vectors; forward takes data to noise.

    .. math:: z = f(x; c), \qquad \log p(x) = \log p(z) + \log|\det \partial f/\partial x|.

    Subclasses write ``_forward`` and ``_inverse`` for checked arguments whose batch shapes agree; the public methods
    check shapes and dtypes. A hook may be handed a context that its transform ignores.

    Where forward is not defined everywhere, :attr:`domain` says so. Data is held against it where it enters
    (:meth:`check_domain`); forward itself looks at no value: outside, its log-determinant is −∞, and so is log p(x),
    and z is some finite point. The same holds for :attr:`image` and inverse.

    Attributes:
        features: width D of the points; None for any width.
        context_features: width C of the vector that the map is conditioned on; 0 for an unconditional one.

    >>> class Shift(Transform):
    ...     features = 2
    ...
    ...     def _forward(self, x, context):
    ...         return x + 1, x.new_zeros(x.shape[:-1])
    ...
    ...     def _inverse(self, z, context):
    ...         return z - 1, z.new_zeros(z.shape[:-1])
    >>> z, log_det = Shift().forward(torch.zeros(5, 2))
    >>> z[0].tolist(), log_det.shape
    ([1.0, 1.0], torch.Size([5]))
    """

    features: int | None = None
    context_features: int = 0

    @in_own_precision
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Take data to noise.

        Args:
            x: shape ``[*batch, D]``; a single vector ``[D]`` will do.
            context: shape ``[*batch, C]``; batch shapes broadcast against each other.

        Returns:
            z of shape ``[*batch, D]`` and log|det ∂z/∂x| of shape ``[*batch]``, nats.

        Raises:
            TypeError: x is not a floating-point tensor of the transform's dtype.
            ValueError: a shape does not fit, or a context is missing or superfluous.
        """
        return self._forward(*self._checked(x, context))

    @in_own_precision
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take noise to data: x of shape ``[*batch, D]`` and log|det ∂x/∂z| of shape ``[*batch]``, nats.

        Arguments and errors as in :meth:`forward`.
        """
        return self._inverse(*self._checked(z, context))

    @property
    def domain(self) -> Support | None:
        """The points that forward takes, an open set; None for all of ℝᴰ."""
        return None

    @property
    def image(self) -> Support | None:
        """The points that inverse takes, an open set; None for all of ℝᴰ."""
        return None

    def check_domain(self, x: Tensor) -> None:
        """Raise ValueError, naming the part and the value, where forward does not take points ``[*batch, D]``.

        The parts of a chain after one that takes a context are not asked. Cost: O(nD), and the forward passes of the
        parts before the last one that does not take everything.
        """
        if (domain := self.domain) is not None:
            domain.check(x, type(self).__name__)

    def check_image(self, z: Tensor) -> None:
        """Raise ValueError where inverse does not take points ``[*batch, D]``; as :meth:`check_domain`."""
        if (image := self.image) is not None:
            image.check(z, f"{type(self).__name__}.inverse")

    def initialise(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialise from data ``[*batch, D]``, and return where the data goes: z ``[*batch, D]``.

        Most transforms have nothing to set. :class:`~flows.ActNorm` has, and :class:`Chain`
        hands each part the data as the parts before it leave it. No gradients are recorded.

        Raises:
            ValueError: no points, a value is not finite or outside the domain, or data in other units than before
                (:func:`~density.initialisation.check_units`).
        """
        x, context = self._checked(x, context)
        check_data(x.reshape(-1, x.shape[-1]), x.shape[-1], type(self).__name__)
        given = UNKNOWN if context is None else StartingPoints.all(context, "contexts")
        with torch.no_grad(), evaluating(self):
            self.check_domain(x)
            return self._initialise(StartingPoints.all(x), given).points

    @property
    def reference(self) -> Tensor | None:
        """A tensor of the transform's dtype and device; None where it has no floating-point state and takes any."""
        return find_reference(self)

    @abstractmethod
    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]: ...

    def _forward_points(self, x: Tensor, context: Tensor | None) -> Tensor:
        """z of ``_forward`` alone, where the log-determinant is what costs."""
        return self._forward(x, context)[0]

    def _inverse_points(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self._inverse(z, context)[0]

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """``_forward`` of points as columns: x ``[D, n]`` and context ``[C, n]`` to z ``[D, n]`` and ``[n]``.

        Instead of ``[n]``, a few rows ``[k, n]`` whose sum it is.
        """
        z, log_det = self._forward(x.T, None if context is None else context.T)
        return z.T, log_det

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self._inverse(z.T, None if context is None else context.T)
        return x.T, log_det

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        """Set what this transform takes from the points that reach it and from their contexts; where the points go."""
        return self._onward(x, context)

    def _onward(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        return x.through(self, lambda x: self._forward_points(x, context.points if self.context_features else None))

    def _checked(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
        owner, reference = type(self).__name__, self.reference
        check_points(x, self.features, owner, reference=reference)
        check_context(context, self.context_features, owner, reference=x if reference is None else reference)
        check_batches(x, context, owner)
        return broadcast(x, context)


class Inverse(Transform):
    """The inverse of a transform, as a transform.

    ``Inverse(GaussianAutoregressive(D))`` is inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934): fast
    to sample, slow to evaluate. Of data-dependent initialisation contexts reach inside, points do not: what the
    transform would have set itself from is not the data. What follows is set as after any transform.

    Cost: that of the transform, forward and inverse exchanged.

    >>> import torch
    >>> from flows import Affine
    >>> z, log_det = Inverse(Affine(1.0, 2.0))(torch.tensor([3.0]))
    >>> z.item(), round(log_det.item(), 4)
    (7.0, 0.6931)
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        if not isinstance(transform, Transform):
            raise TypeError(f"{type(self).__name__} takes a Transform; got a {type(transform).__name__}")
        self.transform = transform
        self.features = transform.features
        self.context_features = transform.context_features

    @property
    def domain(self) -> Support | None:
        return self.transform.image

    @property
    def image(self) -> Support | None:
        return self.transform.domain

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        self.transform._initialise(UNKNOWN, context)
        return self._onward(x, context)

    def _forward_points(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.transform._inverse_points(x, context)

    def _inverse_points(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.transform._forward_points(z, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._inverse(x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform._forward(z, context)


def broadcast(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Points ``[*batch, D]`` and contexts ``[*batch, C]`` with one batch shape, of batch shapes that broadcast."""
    if context is None or x.shape[:-1] == context.shape[:-1]:
        return x, context
    batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    return x.expand(*batch, x.shape[-1]), context.expand(*batch, context.shape[-1])
