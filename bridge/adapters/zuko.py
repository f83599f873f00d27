"""zuko's flows (Rozet et al. 2022): modules that make a distribution at a context."""

from __future__ import annotations

from typing import Any

import torch

from bridge.adapters.calls import is_module
from bridge.adapters.distribution import FromDistribution


def from_zuko(flow: Any, features: int | None = None, context_features: int | None = None) -> FromDistribution:  # noqa: ANN401
    """A zuko flow, conditional or not, as a density that shares its parameters.

    Args:
        flow: a lazy distribution of zuko, such as ``zuko.flows.NSF(3)``.
        features: D; that of its base if None.
        context_features: C; if None, what the network of its first layer takes beside the features.

    Raises:
        TypeError: not a module.
        ValueError: a width is not to be seen; the message says which to pass.
    """
    if not is_module(flow):
        raise TypeError(f"from_zuko takes a zuko flow, a module that makes distributions; got {type(flow).__name__}")
    if features is None:
        features = _features(flow)
    if context_features is None:
        context_features = _context_features(flow, features)
    return FromDistribution(flow, features, context_features)


def _features(flow: Any) -> int:  # noqa: ANN401
    makers: list[Any] = [getattr(flow, "base", None), flow]
    for part in makers:
        try:
            made = part()
            return int((made.batch_shape + made.event_shape).numel())
        except Exception:  # whatever a module does that is called without the context it needs
            continue
    raise ValueError(f"from_zuko: {type(flow).__name__} has no base that shows its width; pass features=")


def _context_features(flow: Any, features: int) -> int:  # noqa: ANN401
    """0 of a flow that works without a context; else the width of the first network beyond the features it reads."""
    try:
        flow().log_prob(torch.zeros(1, features, dtype=next(flow.parameters()).dtype))
        return 0
    except Exception:  # as above: it needs a context
        pass
    for part in flow.modules():
        network = getattr(part, "hyper", None)
        if network is None:
            continue
        width = next((int(layer.in_features) for layer in network.modules() if hasattr(layer, "in_features")), 0)
        read = int(part.mask.sum()) if hasattr(part, "mask") else features if hasattr(part, "order") else 0
        if width > read:
            return width - read
    raise ValueError(
        f"from_zuko: {type(flow).__name__} needs a context, and no network shows how wide; pass context_features="
    )
