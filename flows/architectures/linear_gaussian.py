"""Linear flows."""

from __future__ import annotations

from collections.abc import Callable

from density.families.gaussian import StandardNormal
from flows.chain import Chain
from flows.flow import Flow
from flows.layers.by_feature.activation_norm import ActNorm
from flows.layers.linear_maps.linear import Linear
from flows.layers.linear_maps.lu import LULinear


def linear_flow(features: int, linear: Callable[..., Linear] = LULinear, bias: bool = True) -> Flow:
    """A linear flow z = W x + b, which makes a Gaussian, with W held as the layer holds it.

    With a bias, an activation norm comes before the layer, so that ``fit`` starts from standardised data; both together
    are one affine map.

    Args:
        features: width D.
        linear: makes the layer from width and ``bias=``: :class:`~flows.LULinear`,
            :class:`~flows.QRLinear`.
        bias: whether to add b; without it the density is centred at 0, and data is taken in its own units.

    >>> import torch
    >>> linear_flow(3, bias=False).transform.matrix().equal(torch.eye(3))
    True
    """
    layer = linear(features, bias=bias)
    return Flow(StandardNormal(features), Chain(ActNorm(features), layer) if bias else layer)
