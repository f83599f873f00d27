"""Optimisers and learning-rate schedules of gradient fits; any function of the same form is another one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Parameters = list[nn.Parameter] | list[dict[str, Any]]
OptimiserOf = Callable[[Any, float], Optimizer]  # of Parameters; a function of a list of parameters will do
Schedule = Callable[[float], float]


def adam(parameters: Parameters, learning_rate: float) -> Optimizer:
    """Adam (Kingma & Ba 2015), all parameters in one fused step where the device has one.

    Where the parameters come in groups with a weight decay of their own, it is AdamW (Loshchilov & Hutter 2019): at
    each step weights shrink by the factor 1 − learning rate · decay, whatever their gradient is.

    >>> adam([torch.nn.Parameter(torch.zeros(2))], 0.01).defaults["lr"]
    0.01
    """
    groups = [group for group in parameters if isinstance(group, dict)]
    single = [p for group in groups for p in group["params"]] or list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in single)
    if groups:
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0, fused=fused)
    return torch.optim.Adam(single, lr=learning_rate, fused=fused)


def lbfgs(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
    """L-BFGS with a strong-Wolfe line search: for full batches and objectives without sampling noise.

    >>> lbfgs([torch.nn.Parameter(torch.zeros(2))], 1.0).defaults["line_search_fn"]
    'strong_wolfe'
    """
    return torch.optim.LBFGS(
        parameters, lr=learning_rate, max_iter=20, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=1e-12
    )


def constant(progress: float) -> float:
    """The learning rate stays as it is.

    >>> constant(0.0), constant(0.9)
    (1.0, 1.0)
    """
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017).

    >>> [round(cosine(progress), 4) for progress in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * progress))
