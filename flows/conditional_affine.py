r"""z = (x − μ)/σ with μ and σ from a network: the formula that coupling and autoregressive layers share.

log σ = bound · tanh(raw/bound): the identity near 0, and no data and no step of an optimiser takes σ out of
[exp(−bound), exp(bound)], where exp would overflow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_SCALE_BOUND = 5.0


def location_and_log_scale(parameters: Tensor, features: int, bound: float, owner: str) -> tuple[Tensor, Tensor]:
    """μ and log σ, each ``[*batch, features]``, from a network's output ``[*batch, 2·features]``: [μ, raw]."""
    if parameters.shape[-1] != 2 * features:
        raise ValueError(
            f"{owner} expects its conditioner to return [*batch, {2 * features}], μ and then raw log σ of "
            f"{features} features; got {list(parameters.shape)}"
        )
    mean, raw = parameters.chunk(2, -1)
    return mean, bound * torch.tanh(raw / bound)


def check_bound(bound: float, owner: str) -> None:
    """Raise unless the bound on |log σ| is a positive finite number."""
    if not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"{owner} expects a positive finite log_scale_bound; got {bound}")
