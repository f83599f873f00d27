"""Autoregressive layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.bounded import check_bound
from density.families.network import network_output
from density.initialisation import StartingPoints, take_input
from flows.layers.linear_maps.permutation import as_order
from flows.monotone.affine import LOG_SCALE_BOUND, ConditionalAffine
from flows.monotone.monotone import Monotone
from flows.monotone.spline import RationalQuadratic
from flows.networks.columns import is_watched
from flows.networks.incremental import inverse_by_degree
from flows.networks.masked import MaskedMLP, MaskedNetwork
from flows.transform import Transform


class Autoregressive(Transform):
    r"""An autoregressive layer: each feature goes through an increasing function with parameters from those before it.

    .. math:: z_j = f(x_j; \theta_j(x_{<j}, c)), \qquad
              \log|\det \partial z/\partial x| = \sum_j \log f'(x_j; \theta_j(x_{<j}, c))

    Args:
        features: width D.
        parameters: how many numbers P the network returns for each feature.
        hidden: widths of the network's hidden layers.
        order: ``order[k]`` is the feature in place k; by default 0 … D−1.
        context_features: width C of the context; it reaches every feature, the first too.
        conditioner: any network to use instead of a :class:`~flows.networks.masked.MaskedMLP`: rows ``[n, D + C]`` to
            ``[n, P D]``, or to n events of as many numbers, the first parameter of every feature, then the second, …,
            those of feature j from features before j in the order. This is not checked.
        activation: of the hidden layers; bounded by default, as in a coupling layer.
        dropout: share of the network's hidden units that is dropped in training mode.

    Raises:
        ValueError: features is not a positive int, or order no permutation of as many.

    Cost: forward one pass of the network. The inverse takes about one pass too, in O(D) steps one after the other, with
    a masked network of elementwise activations (:func:`~flows.networks.incremental.inverse_by_degree`), and D passes
    with another network, or with one whose layers have hooks.

    >>> layer = GaussianAutoregressive(3)
    >>> isinstance(layer, Autoregressive), layer(torch.zeros(2, 3))[0].shape
    (True, torch.Size([2, 3]))
    """

    features: int
    order: Tensor

    def __init__(
        self,
        features: int,
        parameters: int,
        hidden: Sequence[int],
        order: Sequence[int] | Tensor | None,
        context_features: int,
        conditioner: nn.Module | None,
        activation: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        features = check_count(features, f"{owner}: features")
        context_features = check_count(context_features, f"{owner}: context_features", least=0)
        places = as_order(range(features) if order is None else order, owner)
        if len(places) != features:
            raise ValueError(f"{owner} expects an order of its {features} features; got one of {len(places)}")
        self.features = features
        self.context_features = context_features
        self.register_buffer("order", places.to(torch.get_default_device()))
        self.conditioner = (
            MaskedMLP(places, parameters, hidden, context_features, activation, dropout=dropout)
            if conditioner is None
            else conditioner
        )
        self.register_load_state_dict_post_hook(_arrange_conditioner)

    @property
    @abstractmethod
    def monotone(self) -> Monotone:
        """The increasing function f."""

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        seen = x.beside(context) if self.context_features else x
        take_input(self.conditioner, self.features + self.context_features, seen)
        return super()._initialise(x, context)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self.monotone.forward(x, self._condition(x, context))
        return z, log_derivative.sum(-1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        network = self.conditioner
        if isinstance(network, MaskedNetwork) and network.sizes is not None and not is_watched(network.modules()):
            given = context if self.context_features else None
            return inverse_by_degree(network, z, given, self.monotone)
        # Features that are not computed yet stand at 0: by the mask nothing that is read depends on them.
        columns = [torch.zeros_like(z[..., 0])] * self.features
        log_det = torch.zeros_like(z[..., 0])
        for feature in self.order.tolist():
            theta = self._condition(torch.stack(columns, -1), context)
            columns[feature], log_derivative = self.monotone.inverse(z[..., feature], theta[..., feature])
            log_det = log_det + log_derivative
        return torch.stack(columns, -1), log_det

    def _condition(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The parameters θ, shape ``[P, *batch, D]``."""
        if context is not None and self.context_features:
            x = torch.cat([x, context], -1)
        monotone = self.monotone
        width = monotone.parameters * self.features
        theta = network_output(self.conditioner, x, width, type(self).__name__, monotone.names)
        return theta.unflatten(-1, (-1, self.features)).movedim(-2, 0)


class GaussianAutoregressive(Autoregressive):
    r"""An affine autoregressive layer: each feature is standardised given those before it.

    Papamakarios et al. 2017, arXiv:1705.07057, eqs. 4-5.

    .. math:: z_j = \frac{x_j - \mu_j(x_{<j}, c)}{\sigma_j(x_{<j}, c)}, \qquad
              \log|\det \partial z/\partial x| = -\sum_j \log\sigma_j

    log σ = bound · tanh(raw/bound), so |log σ| < bound. With the network that the layer makes itself, a new layer is
    the identity. ``Inverse(GaussianAutoregressive(D))`` is inverse autoregressive flow.

    Args:
        features: width D.
        hidden: widths of the network's hidden layers.
        order: ``order[k]`` is the feature in place k; by default 0 … D−1.
        context_features: width C of the context; it reaches every feature, the first too.
        log_scale_bound: bound on |log σ|; None for none, log σ = raw, as networks trained elsewhere may mean it.
        conditioner: any network to use instead of a :class:`MaskedMLP`: rows ``[n, D + C]`` to ``[n, 2D]``, μ and then
            raw, with outputs of feature j that see only features before j in the order. This is not checked.
        activation: of the hidden layers; bounded by default, as in a coupling layer.
        dropout: share of the network's hidden units that is dropped in training mode.

    Raises:
        ValueError: features is not a positive int, or order no permutation of as many.

    Cost: that of :class:`Autoregressive`; log-determinant O(D).

    >>> layer = GaussianAutoregressive(3, order=[2, 1, 0])
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0]))
    >>> z.tolist(), log_det.item() == 0.0
    ([1.0, 2.0, 3.0], True)
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        context_features: int = 0,
        log_scale_bound: float | None = LOG_SCALE_BOUND,
        conditioner: nn.Module | None = None,
        *,
        activation: Callable[[], nn.Module] = nn.Tanh,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(features, 2, hidden, order, context_features, conditioner, activation, dropout)
        check_bound(log_scale_bound, type(self).__name__)
        self.log_scale_bound = log_scale_bound

    @property
    def monotone(self) -> ConditionalAffine:
        return ConditionalAffine(self.log_scale_bound)


class SplineAutoregressive(Autoregressive):
    r"""An autoregressive layer of rational-quadratic splines: each feature's knots come from the features before it.

    Durkan et al. 2019, arXiv:1906.04032. With the network that the layer makes itself, a new layer is the identity.

    Args:
        features: width D.
        hidden: widths of the network's hidden layers.
        order: ``order[k]`` is the feature in place k; by default 0 … D−1.
        context_features: width C of the context; it reaches every feature, the first too.
        spline: bins and bound.
        conditioner: a network to use instead of a :class:`~flows.networks.masked.MaskedMLP`, as in
            :class:`Autoregressive`.
        activation: of the hidden layers; bounded by default, as in a coupling layer.
        dropout: share of the network's hidden units that is dropped in training mode.

    Raises:
        ValueError: features is not a positive int, or order no permutation of as many.

    Cost: that of :class:`GaussianAutoregressive`, and O(DK) per point.

    >>> layer = SplineAutoregressive(3, order=[2, 1, 0])
    >>> z, log_det = layer(torch.tensor([1.0, 2.0, 3.0]))
    >>> [round(value, 4) for value in z.tolist()], round(log_det.abs().item(), 4)
    ([1.0, 2.0, 3.0], 0.0)
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        context_features: int = 0,
        spline: RationalQuadratic = RationalQuadratic(),
        conditioner: nn.Module | None = None,
        *,
        activation: Callable[[], nn.Module] = nn.Tanh,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(features, spline.parameters, hidden, order, context_features, conditioner, activation, dropout)
        self.spline = spline

    @property
    def monotone(self) -> RationalQuadratic:
        return self.spline


def _arrange_conditioner(layer: nn.Module, incompatible_keys: object) -> None:
    """Follow a loaded order, which may be another one."""
    assert isinstance(layer, Autoregressive)
    if isinstance(layer.conditioner, MaskedNetwork):
        layer.conditioner.arrange(layer.order)
