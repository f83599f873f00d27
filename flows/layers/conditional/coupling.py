"""Coupling layers: some features pass, and say how the others are moved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.bounded import check_bound
from density.families.nets import mlp
from density.initialisation import StartingPoints, take_input
from flows.monotone.affine import LOG_SCALE_BOUND, ConditionalAffine
from flows.monotone.monotone import Monotone
from flows.monotone.spline import RationalQuadratic
from flows.networks.columns import by_columns, columns
from flows.transform import Transform

FEW = 8  # rows of log-derivatives that a chain may sum together with those of its other parts: one kernel for all


class Coupling(Transform):
    r"""A coupling: some features pass, each other one goes through an increasing function with parameters from those.

    .. math:: z_1 = x_1, \qquad z_2 = f(x_2; \theta(x_1, c)), \qquad
              \log|\det \partial z/\partial x| = \sum \log f'(x_2; \theta(x_1, c))

    Args:
        mask: D booleans, True for the features x_1 that pass unchanged.
        parameters: how many numbers P the network returns for each moved feature.
        hidden: widths of the network's hidden layers.
        context_features: width C of the context, which the network sees beside x_1.
        conditioner: any network to use instead of an ``mlp``: rows ``[n, d_1 + C]`` to ``[n, P d_2]``, or to n events
            of as many numbers, the first parameter of every moved feature, then the second, …
        activation: of the hidden layers. Bounded by default, so that θ is: unbounded ones throw a point that lies far
            outside the data ever further out, layer by layer (on digits, a few test images to −10⁹ nats).
        dropout: share of the network's hidden units that is dropped in training mode.

    Raises:
        ValueError: nothing to transform (all True), or nothing to condition on (all False and no context; with a
            context all False makes a map of each feature given the context).

    Cost: one pass of the network either way.

    >>> layer = AffineCoupling([True, False, True])
    >>> isinstance(layer, Coupling), layer.mask.tolist(), type(layer.monotone).__name__
    (True, [True, False, True], 'ConditionalAffine')
    """

    features: int
    passed: Tensor
    moved: Tensor

    def __init__(
        self,
        mask: Sequence[bool] | Tensor,
        parameters: int,
        hidden: Sequence[int],
        context_features: int,
        conditioner: nn.Module | None,
        activation: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        try:
            keep = torch.as_tensor(mask).cpu()
        except (RuntimeError, TypeError, ValueError) as error:
            raise TypeError(f"{owner} expects a mask of D booleans; got {mask!r}") from error
        if keep.dtype != torch.bool or keep.ndim != 1 or len(keep) == 0:
            raise ValueError(f"{owner} expects a mask of D booleans; got {keep.dtype} of shape {list(keep.shape)}")
        if keep.all():
            raise ValueError(f"{owner} expects a mask with a False; all True leaves nothing to transform")
        if not keep.any() and not context_features:
            raise ValueError(
                f"{owner} expects a mask with a True, or a context; all False leaves nothing to condition on. "
                "For a map without condition use ActNorm or Affine"
            )
        self.features = len(keep)
        self.context_features = context_features = check_count(context_features, f"{owner}: context_features", least=0)
        place = torch.get_default_device()
        self.register_buffer("passed", keep.nonzero()[:, 0].to(place))
        self.register_buffer("moved", (~keep).nonzero()[:, 0].to(place))
        inputs, outputs = len(self.passed) + context_features, parameters * len(self.moved)
        self.conditioner = (
            mlp(inputs, outputs, hidden, activation, zero_init=True, dropout=dropout)
            if conditioner is None
            else conditioner
        )
        self._arrange()
        self.register_load_state_dict_post_hook(_arrange_again)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        seen = x.mapped(lambda x: x[..., self.passed])
        seen = seen.beside(context) if self.context_features else seen
        take_input(self.conditioner, len(self.passed) + self.context_features, seen)
        return super()._initialise(x, context)

    @property
    @abstractmethod
    def monotone(self) -> Monotone:
        """The increasing function f."""

    @property
    def mask(self) -> Tensor:
        """The mask: D booleans, True for the features that pass unchanged."""
        mask = torch.zeros(self.features, dtype=torch.bool, device=self.passed.device)
        return mask.index_fill(0, self.passed, True)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._forward_columns, x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._inverse_columns, z, context)

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._move(x, context, inverse=False)

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._move(z, context, inverse=True)

    def _move(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if self._order:
            x_passed, x_moved = torch.split_with_sizes(x, self._sizes)[:: self._order]
        elif self._pairs and torch.is_grad_enabled():  # whose gradients are joined by one copy
            x_passed, x_moved = x.unflatten(0, (-1, 2)).unbind(1)[:: self._pairs]
        else:
            passed, moved = self._stripes or (self.passed, self.moved)
            x_passed, x_moved = x[passed], x[moved]
        seen = torch.cat([x_passed, context]) if context is not None and self.context_features else x_passed
        monotone, count = self.monotone, x_moved.shape[0]
        theta = columns(self.conditioner, seen, monotone.parameters * count, type(self).__name__, monotone.names)
        theta = theta.view(monotone.parameters, count, -1)
        z_moved, log_derivative = monotone.inverse(x_moved, theta) if inverse else monotone.forward(x_moved, theta)
        if self._order:
            z = torch.cat([x_passed, z_moved][:: self._order])
        elif self._pairs and torch.is_grad_enabled():
            z = torch.stack([x_passed, z_moved][:: self._pairs], 1).flatten(0, 1)
        else:
            z = x.index_copy(0, self.moved, z_moved)
        return z, log_derivative.sum(0) if count > FEW else log_derivative

    def _arrange(self) -> None:
        """Find whether the mask is two blocks, which are split and joined by one copy, or two stripes, which are views.

        An order of 1 has the block that passes first, −1 the block that is moved; 0 are no blocks. Likewise pairs, that
        are stripes of every other feature. Without stripes, features are picked by index.
        """
        passed, moved = self.passed.tolist(), self.moved.tolist()
        features = list(range(self.features))
        self._order = 1 if passed + moved == features else -1 if moved + passed == features else 0
        self._sizes = [len(passed), len(moved)][:: self._order or 1]
        stripes = _stripe(passed), _stripe(moved)
        self._stripes = None if None in stripes else stripes
        first = 1 if passed[:1] == [0] else -1
        paired = [passed, moved][::first] == [features[::2], features[1::2]] and self.features % 2 == 0
        self._pairs = first if paired else 0


class AffineCoupling(Coupling):
    r"""An affine coupling: some features pass, the others are shifted and scaled by functions of those.

    Dinh et al. 2017, arXiv:1605.08803, §3.

    .. math:: z_1 = x_1, \qquad z_2 = \frac{x_2 - \mu(x_1, c)}{\sigma(x_1, c)}, \qquad
              \log|\det \partial z/\partial x| = -\sum \log\sigma

    log σ = bound · tanh(raw/bound), so |log σ| < bound. With the network that the layer makes itself, a new layer is
    the identity.

    Args:
        mask: D booleans, True for the features x_1 that pass unchanged.
        hidden: widths of the network's hidden layers.
        context_features: width C of the context, which the network sees beside x_1.
        log_scale_bound: bound on |log σ|; None for none, log σ = raw, as networks trained elsewhere may mean it.
        conditioner: any network to use instead of an ``mlp``: rows ``[n, d_1 + C]`` to ``[n, 2 d_2]``, μ and then raw,
            or to n events of as many numbers.
        activation: of the hidden layers. Bounded by default, so that μ is: unbounded ones throw a point that lies far
            outside the data ever further out, layer by layer (on digits, a few test images to −10⁹ nats).
        dropout: share of the network's hidden units that is dropped in training mode.

    Raises:
        ValueError: nothing to transform (all True), or nothing to condition on (all False and no context; with a
            context all False makes an affine map given the context).

    Cost: one pass of the network either way; log-determinant O(D).

    >>> import torch
    >>> layer = AffineCoupling([True, False, False])
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0]))
    >>> z.tolist(), log_det.item() == 0.0
    ([1.0, 2.0, 3.0], True)
    """

    def __init__(
        self,
        mask: Sequence[bool] | Tensor,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        log_scale_bound: float | None = LOG_SCALE_BOUND,
        conditioner: nn.Module | None = None,
        *,
        activation: Callable[[], nn.Module] = nn.Tanh,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(mask, 2, hidden, context_features, conditioner, activation, dropout)
        check_bound(log_scale_bound, type(self).__name__)
        self.log_scale_bound = log_scale_bound

    @property
    def monotone(self) -> ConditionalAffine:
        return ConditionalAffine(self.log_scale_bound)


class SplineCoupling(Coupling):
    r"""A spline coupling: some features pass, the others go through rational-quadratic splines with knots from those.

    Durkan et al. 2019, arXiv:1906.04032. With the network that the layer makes itself, a new layer is the identity.

    Args:
        mask: D booleans, True for the features x_1 that pass unchanged.
        hidden: widths of the network's hidden layers.
        context_features: width C of the context, which the network sees beside x_1.
        spline: bins and bound.
        conditioner: any network to use instead of an ``mlp``: rows ``[n, d_1 + C]`` to ``[n, (3K − 1) d_2]``, or to n
            events of as many numbers, the first parameter of every moved feature, then the second, …, in the spline's
            order.
        activation: of the hidden layers.
        dropout: share of the network's hidden units that is dropped in training mode.

    Raises:
        ValueError: nothing to transform, or nothing to condition on, as in :class:`AffineCoupling`.

    Cost: one pass of the network either way, and O(DK) per point.

    >>> import torch
    >>> layer = SplineCoupling([True, False, False])
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0]))
    >>> [round(value, 4) for value in z.tolist()], round(log_det.abs().item(), 4)
    ([1.0, 2.0, 3.0], 0.0)
    """

    def __init__(
        self,
        mask: Sequence[bool] | Tensor,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        spline: RationalQuadratic = RationalQuadratic(),
        conditioner: nn.Module | None = None,
        *,
        activation: Callable[[], nn.Module] = nn.Tanh,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(mask, spline.parameters, hidden, context_features, conditioner, activation, dropout)
        self.spline = spline

    @property
    def monotone(self) -> RationalQuadratic:
        return self.spline


def _stripe(index: list[int]) -> slice | None:
    """The slice that picks the same features, if there is one."""
    whole = range(index[0], index[-1] + 1, index[1] - index[0] if len(index) > 1 else 1) if index else range(0)
    return slice(whole.start, whole.stop, whole.step) if index == list(whole) else None


def _arrange_again(layer: nn.Module, incompatible_keys: object) -> None:
    """Follow a loaded mask, which may be another one."""
    assert isinstance(layer, Coupling)
    layer._arrange()
