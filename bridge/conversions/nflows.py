"""Transforms and flows from and to nflows (Durkan et al. 2020).

:mod:`bridge.conversions.nflows_transforms` does the wrapping. nflows is optional: nothing here imports it before it is
called.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from density.families.gaussian import StandardNormal
from flows.flow import Flow
from flows.layers.linear_maps.linear import Linear
from flows.layers.linear_maps.lu import LULinear
from flows.transform import Transform


def from_nflows(transform: Any, features: int, context_features: int = 0) -> Transform:  # noqa: ANN401
    """An nflows transform as one of ours, sharing its parameters; one of ours that went there is unwrapped.

    Args:
        transform: of vectors.
        features: width D of its points.
        context_features: width C of its context.

    Raises:
        TypeError: not an nflows transform.
        ValueError: an unwrapped transform has another width.

    >>> from nflows.transforms import ReversePermutation
    >>> import torch
    >>> from_nflows(ReversePermutation(3), 3)(torch.tensor([1.0, 2.0, 3.0]))[0].tolist()
    [3.0, 2.0, 1.0]
    """
    from bridge.conversions.nflows_transforms import FromNflows, ToNflows

    if not isinstance(transform, ToNflows):
        return FromNflows(transform, features, context_features)
    own = transform.transform
    if own.features not in (None, features) or own.context_features != context_features:
        raise ValueError(
            f"from_nflows: {type(own).__name__} has {own.features} features and {own.context_features} context "
            f"features; got {features} and {context_features}"
        )
    return own


def to_nflows(transform: Transform | Flow) -> Any:  # noqa: ANN401
    """One of our transforms as an nflows transform, sharing its parameters; one of theirs is unwrapped.

    A whole flow over a standard normal is then
    ``nflows.flows.Flow(to_nflows(flow.transform), nflows.distributions.StandardNormal([D]))``.

    Raises:
        TypeError: not a Transform; a Flow has a base besides, which nflows must be given apart.

    >>> import torch
    >>> from flows import Permutation
    >>> to_nflows(Permutation([1, 0]))(torch.tensor([[1.0, 2.0]]))[0].tolist()
    [[2.0, 1.0]]
    """
    from bridge.conversions.nflows_transforms import FromNflows, ToNflows

    if isinstance(transform, Flow):
        raise TypeError(
            "to_nflows takes a Transform, and a Flow is a density. Convert flow.transform, and build "
            "nflows.flows.Flow(transform, distribution) with its base"
        )
    return transform.transform if isinstance(transform, FromNflows) else ToNflows(transform)


def linear_from_nflows(layer: Any, linear: type[Linear] = LULinear) -> Linear:  # noqa: ANN401
    """An nflows linear layer (``LULinear``, ``QRLinear``, ``SVDLinear``, ``NaiveLinear``) as a layer of ours.

    Its matrix and bias are copied, and W decomposed anew. O(D³), once.

    Args:
        layer: with ``weight()`` and ``bias``.
        linear: how W is held, :class:`~flows.LULinear` or :class:`~flows.QRLinear`.

    Raises:
        TypeError: another kind of transform, which :func:`from_nflows` wraps.
        ValueError: W is singular to working precision.

    >>> import torch, nflows.transforms
    >>> layer = nflows.transforms.LULinear(2)
    >>> torch.allclose(linear_from_nflows(layer).matrix(), layer.weight())
    True
    """
    if not callable(getattr(layer, "weight", None)) or not isinstance(getattr(layer, "bias", None), Tensor):
        raise TypeError(
            f"linear_from_nflows takes an nflows linear layer, z = Wx + b; {type(layer).__name__} has no weight() and "
            "bias. from_nflows(transform, features) wraps any transform"
        )
    return linear.from_matrix(layer.weight().detach().clone(), layer.bias.detach())


def flow_from_nflows(flow: Any) -> Flow:  # noqa: ANN401
    """An unconditional nflows ``Flow`` over a standard normal as one of ours, sharing the transform's parameters.

    Raises:
        TypeError: not an nflows flow.
        ValueError: its base is another distribution, or it embeds a context: both have other interfaces than ours.
    """
    if not all(hasattr(flow, name) for name in ("_transform", "_distribution", "_embedding_net")):
        raise TypeError(f"flow_from_nflows takes an nflows Flow; got {type(flow).__name__}")
    base = flow._distribution
    shape: list[int] = list(getattr(base, "_shape", []))
    if type(base).__name__ != "StandardNormal" or len(shape) != 1:
        raise ValueError(
            f"flow_from_nflows takes a flow over a StandardNormal of vectors; its base is {type(base).__name__}, shape "
            f"{shape}. Build it: Flow(base, from_nflows(flow._transform, D)) with a density of ours"
        )
    if next(flow._embedding_net.parameters(), None) is not None:
        raise ValueError(
            "flow_from_nflows: the flow embeds its context by a network, and ours takes contexts as they are. Apply "
            "the network first: Flow(StandardNormal(D), from_nflows(flow._transform, D, C)).log_prob(x, network(c))"
        )
    converted = from_nflows(flow._transform, shape[0])
    like = converted.reference
    normal = StandardNormal(shape[0])
    return Flow(normal if like is None else normal.to(like), converted)
