"""Invertible networks of FrEIA (Ardizzone et al. 2018-2022): maps from data to noise, without a base."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from density.families.gaussian import StandardNormal
from flows.flow import Flow
from flows.transform import Transform


class FromFreia(Transform):
    """An invertible network of FrEIA with one input and one output as a transform of vectors; events are folded.

    Args:
        network: a ``SequenceINN`` or ``GraphINN``; forward takes data to noise, as here.
        shape: of an event; a vector has one axis.
        context_features: C of its one condition; 0 for none.
    """

    features: int

    def __init__(self, network: nn.Module, shape: tuple[int, ...], context_features: int = 0) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.features = math.prod(shape)
        self.context_features = context_features

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._call(x, context, reverse=False)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._call(z, context, reverse=True)

    def _call(self, x: Tensor, context: Tensor | None, *, reverse: bool) -> tuple[Tensor, Tensor]:
        batch = x.shape[:-1]
        if not math.prod(batch):
            return x.clone(), x.new_zeros(batch)
        rows = x.reshape(-1, *self.shape)
        given = None
        if context is not None and self.context_features:
            given = [context.expand(*batch, -1).reshape(-1, self.context_features)]
        y, log_det = self.network(rows, c=given, rev=reverse, jac=True)
        # A layer that neither stretches nor shrinks may say the number 0.
        log_det = torch.as_tensor(log_det, dtype=x.dtype, device=x.device).expand(len(rows))
        return y.reshape(x.shape), log_det.reshape(batch)


def from_freia(network: Any) -> Flow:  # noqa: ANN401  # a FrEIA network
    """A ``SequenceINN`` or ``GraphINN`` of FrEIA over a standard normal, as its tutorials train it; weights are shared.

    Widths are those that the network was built with; one condition is the context. With another base,
    ``Flow(base, from_freia(network).transform)``.

    Raises:
        TypeError: not such a network.
        ValueError: several inputs or conditions, or an output of another size than the input.
    """
    shapes = getattr(network, "global_in_shapes", None) or getattr(network, "shapes", None)
    inputs = [tuple(one) for one in getattr(network, "dims_in", [])]
    if not isinstance(network, nn.Module) or not inputs:
        raise TypeError(f"from_freia takes a SequenceINN or GraphINN of FrEIA; got {type(network).__name__}")
    outputs = getattr(network, "global_out_shapes", None)
    last = outputs[0] if outputs else shapes[-1] if shapes else inputs[0]
    if len(inputs) > 1 or (outputs and len(outputs) > 1) or math.prod(last) != math.prod(inputs[0]):
        raise ValueError(
            f"from_freia takes a network with one input and one output of its size; got inputs {inputs} and an output "
            f"{tuple(last)}"
        )
    conditions = _conditions(network)
    if len(conditions) > 1:
        raise ValueError(f"from_freia takes one condition at most; got {len(conditions)}. Join them into one vector")
    transform = FromFreia(network, inputs[0], conditions[0] if conditions else 0)
    like = transform.reference
    normal = StandardNormal(transform.features)
    return Flow(normal if like is None else normal.to(like), transform)


def _conditions(network: Any) -> list[int]:  # noqa: ANN401
    """Widths of the conditions: of a graph as it lists them, of a sequence as its layers were built with."""
    declared = [tuple(shape) for shape in getattr(network, "dims_c", None) or []]
    if not declared:
        asked: dict[int, tuple[int, ...]] = {}
        used = zip(getattr(network, "conditions", []), getattr(network, "module_list", []), strict=False)
        for index, layer in used:
            if isinstance(index, int):
                asked[index] = tuple(layer.dims_c[0]) if getattr(layer, "dims_c", None) else (0,)
        declared = list(asked.values())
    return [math.prod(shape) for shape in declared]
