"""Flows of normflows (Stimper et al. 2023): a base ``q0`` and layers from noise to data."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from bridge.adapters.calls import is_module
from bridge.adapters.log_prob import FromLogProb, as_word_of


class _Normflow(nn.Module):
    """A normflows model as functions of rows: its ``sample`` returns log-densities beside the points."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        value: Tensor = self.model.log_prob(x) if context is None else self.model.log_prob(x, context=context)
        return value

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        draws: Tensor = (self.model.sample(n) if context is None else self.model.sample(n, context=context))[0]
        return draws


def from_normflows(model: Any, features: int | None = None, context_features: int = 0) -> FromLogProb:  # noqa: ANN401
    """A ``NormalizingFlow`` of normflows, or a ``ConditionalNormalizingFlow``, as a density that shares its parameters.

    Args:
        model: the flow, over vectors.
        features: D; what its base ``q0`` says (``shape``, ``dim`` or ``d``) if None.
        context_features: C of a conditional flow.

    Raises:
        TypeError: not such a flow; models of images with class labels have another interface.
        ValueError: the base does not show its width.
    """
    if not is_module(model) or not all(hasattr(model, name) for name in ("q0", "flows", "log_prob")):
        raise TypeError(f"from_normflows takes a normflows.NormalizingFlow; got {type(model).__name__}")
    if hasattr(model, "merges"):
        raise TypeError(
            "from_normflows takes a NormalizingFlow over vectors; a MultiscaleFlow is over images with labels. Give "
            "its log_prob of flattened images to from_log_prob"
        )
    features = _width(model.q0) if features is None else features
    if features is None:
        raise ValueError(f"from_normflows: the base {type(model.q0).__name__} does not show its width; pass features=")
    adapted = _Normflow(model)
    method = as_word_of("normflows", model)
    return FromLogProb(adapted.log_prob, features, adapted.sample, context_features=context_features, method=method)


def _width(base: object) -> int | None:
    shape = getattr(base, "shape", None)
    if isinstance(shape, int | tuple | list):
        return shape if isinstance(shape, int) else math.prod(shape)
    return next((int(vars(base)[name]) for name in ("d", "dim") if isinstance(vars(base).get(name), int)), None)
