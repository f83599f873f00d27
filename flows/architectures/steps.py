"""What all builders of flows share: steps one after the other, over a base."""

from __future__ import annotations

from collections.abc import Callable

from density.contract import Density
from flows.architectures.arrangements import Mixing
from flows.chain import Chain
from flows.flow import Flow
from flows.layers.by_feature.activation_norm import ActNorm
from flows.layers.conditional.standardised_context import StandardisedContext
from flows.layers.linear_maps.whitening import Whitening
from flows.transform import Transform

Base = Density | Callable[[int], Density]


def flow_of_steps(
    features: int, layers: int, step: Callable[[int], Transform], mixing: Mixing | None, whiten: bool, base: Base
) -> Flow:
    """A flow of steps of activation norm, a layer that mixes the features, and a nonlinear one.

    Args:
        features: width D. One feature is not mixed: there a linear layer is what the activation norm is.
        layers: how many steps.
        step: makes the nonlinear layer of each step, by its number. A context that it takes is standardised by ``fit``.
        mixing: makes the linear layer of each step from the width; None for none.
        whiten: whether a whitening layer follows the first activation norm.
        base: density of z, or what makes it from the width.
    """
    parts: list[Transform] = []
    for layer in range(layers):
        whitening = [Whitening(features)] if whiten and layer == 0 and features > 1 else []
        mixed = [] if mixing is None or features == 1 else [mixing(features)]
        parts += [ActNorm(features), *whitening, *mixed, step(layer)]
    return flow_of(Chain(*parts), features, base)


def flow_of(chain: Chain, features: int, base: Base) -> Flow:
    """The flow of a chain over a base, or over what makes it from the width; ``fit`` standardises its contexts."""
    made = base if isinstance(base, Density) else base(features)
    return Flow(made, StandardisedContext(chain) if chain.context_features else chain)
