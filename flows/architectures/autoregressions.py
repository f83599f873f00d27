"""Flows of autoregressive layers. Each starts as its base, standardised.

Data and contexts may have any units: ``initialise``, with which ``fit`` begins, standardises both, as part of the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from density.checks import check_count
from density.families.student import StudentT
from flows.architectures.arrangements import Mixing, Orders, alternating_orders
from flows.architectures.steps import Base, flow_of_steps
from flows.flow import Flow
from flows.layers.conditional.autoregressive import GaussianAutoregressive, SplineAutoregressive
from flows.layers.linear_maps.lu import LULinear
from flows.monotone.spline import RationalQuadratic
from flows.transform import Inverse, Transform


def maf(
    features: int,
    layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    *,
    orders: Orders = alternating_orders,
    linear: Mixing | None = LULinear,
    activation: Callable[[], nn.Module] = nn.Tanh,
    dropout: float = 0.0,
    whiten: bool = True,
    base: Base = StudentT,
) -> Flow:
    """A masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057): alternating orders after LU layers.

    One pass of each network for ``log_prob``; about as much arithmetic, in D steps, for a sample. One feature makes a
    Student-t distribution (given the context).

    Args:
        features: width D.
        layers: how many autoregressive layers.
        hidden: hidden widths of each network.
        context_features: width C of the context, which goes to every layer, standardised by ``fit``.
        orders: of width and number of the layer, in which order features see one another:
            :func:`~flows.architectures.alternating_orders`, :func:`~flows.architectures.random_orders`.
        linear: makes a linear layer before each autoregression from the width: :class:`~flows.LULinear`,
            which starts as the identity, :func:`~flows.architectures.random_rotation`; None for none.
        activation: of the networks' hidden layers; see :class:`~flows.AffineCoupling`.
        dropout: share of the networks' hidden units that is dropped in training.
        whiten: whether the first activation norm is followed by a :class:`~flows.Whitening`.
        base: density of z, or what makes it from the width. By default Student-t distributions of learned tails, by
            which one row far outside the training data costs a few nats, where with
            :class:`~density.families.gaussian.StandardNormal` it may cost thousands and rule the mean.

    Raises:
        ValueError: a count is out of range.

    >>> import torch
    >>> maf(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.7258
    """

    def affine(order: Sequence[int]) -> Transform:
        return GaussianAutoregressive(features, hidden, order, context_features, activation=activation, dropout=dropout)

    return _autoregressive(features, layers, affine, orders, linear, whiten, base, "maf")


def iaf(
    features: int,
    layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    *,
    orders: Orders = alternating_orders,
    linear: Mixing | None = LULinear,
    activation: Callable[[], nn.Module] = nn.Tanh,
    dropout: float = 0.0,
    whiten: bool = True,
    base: Base = StudentT,
) -> Flow:
    """An inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934): :func:`maf` with each layer inverted.

    One pass of each network for a sample; about as much arithmetic, in D steps, for ``log_prob``. Arguments and errors
    as for :func:`maf`.

    >>> import torch
    >>> iaf(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.7258
    """

    def inverse_affine(order: Sequence[int]) -> Transform:
        return Inverse(
            GaussianAutoregressive(features, hidden, order, context_features, activation=activation, dropout=dropout)
        )

    return _autoregressive(features, layers, inverse_affine, orders, linear, whiten, base, "iaf")


def spline_maf(
    features: int,
    layers: int = 3,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    spline: RationalQuadratic = RationalQuadratic(),
    *,
    orders: Orders = alternating_orders,
    linear: Mixing | None = LULinear,
    activation: Callable[[], nn.Module] = nn.GELU,
    dropout: float = 0.0,
    whiten: bool = True,
    base: Base = StudentT,
) -> Flow:
    """An autoregressive neural spline flow: :func:`maf` with rational-quadratic splines in place of affine maps.

    Durkan et al. 2019, arXiv:1906.04032, §3.2. One pass of each network for ``log_prob``; about as much arithmetic, in
    D steps, for a sample. One feature goes through splines, which the context bends.

    Args:
        spline: bins and bound; outside the bound, in units of the standardised data, each layer is the identity.
        activation: of the networks' hidden layers; unbounded by default, since splines bound what networks may do.
        features, layers, hidden, context_features, orders, linear, dropout, whiten, base: as for :func:`maf`.

    Raises:
        ValueError: a count is out of range.

    >>> import torch
    >>> spline_maf(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.7258
    """

    def splines(order: Sequence[int]) -> Transform:
        return SplineAutoregressive(
            features, hidden, order, context_features, spline, activation=activation, dropout=dropout
        )

    return _autoregressive(features, layers, splines, orders, linear, whiten, base, "spline_maf")


def _autoregressive(
    features: int,
    layers: int,
    layer: Callable[[Sequence[int]], Transform],
    orders: Orders,
    linear: Mixing | None,
    whiten: bool,
    base: Base,
    owner: str,
) -> Flow:
    """Steps whose layers are made from orders."""
    features = check_count(features, f"{owner}: features")
    layers = check_count(layers, f"{owner}: layers")
    return flow_of_steps(features, layers, lambda number: layer(orders(features, number)), linear, whiten, base)
