"""The moving average of the weights of a fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    r"""An exponential moving average of weights, \(\bar θ_t = β_t \bar θ_{t-1} + (1 - β_t) θ_t\).

    β_t = min(β, t/(t + 9)), so that the start is forgotten: the average of few steps is nearly their mean.

    Args:
        parameters: to average, after every step.
        decay: β.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.mean: list[Tensor] = [parameter.detach().clone() for parameter in parameters]

    def update(self) -> None:
        """Count the weights of one more step."""
        decay = min(self.decay, self.steps / (self.steps + 9))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(self.mean, self.parameters, self.steps)
        self.steps += 1

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The module has the averaged weights inside."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        self._write(self.mean)
        try:
            yield
        finally:
            self._write(own)

    def keep(self) -> None:
        """Give the module the averaged weights for good."""
        self._write(self.mean)

    def restart(self) -> None:
        """Average from the present weights on."""
        self.mean, self.steps = [parameter.detach().clone() for parameter in self.parameters], 0

    def state(self) -> dict[str, Any]:
        """The average, for a checkpoint."""
        return {"mean": self.mean, "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        """What :meth:`state` gave."""
        self.steps = state["steps"]
        self.mean = [m.to(p.device) for m, p in zip(state["mean"], self.parameters, strict=True)]

    def _write(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)
