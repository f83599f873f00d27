"""A smooth bound on what a network returns."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bounded(raw: Tensor, bound: float | None) -> Tensor:
    """b·tanh(raw / b), within ±b and near the identity at 0; raw itself for None."""
    return raw if bound is None else bound * torch.tanh(raw / bound)


def check_bound(bound: float | None, owner: str, name: str = "log_scale_bound") -> None:
    """Raise unless a bound is a positive finite number, or None for none."""
    if bound is not None and not (math.isfinite(bound) and bound > 0):
        raise ValueError(f"{owner} expects {name} to be positive and finite, or None for no bound; got {bound}")
