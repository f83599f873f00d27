"""Copies of a module's state that a fit may come back to."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

Weights = dict[str, Tensor]


def weights_of(module: nn.Module) -> Weights:
    """Parameters and buffers of a module by name: the tensors themselves, outside any graph."""
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


class Keeper:
    """Copies of a module's state: the good one, and one that is good if the next objective is finite.

    Attributes:
        best: the value by which the good one was chosen, where it was chosen by a value.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.best = -math.inf
        self.good = self._copy()
        self.proposed: Weights | None = None

    def keep(self, value: float) -> None:
        """These weights are the good ones, of this value."""
        self.best = value
        self.good = self._copy()

    def propose(self) -> None:
        """These weights are good if the next objective is finite."""
        self.proposed = self._copy()

    def confirm(self) -> None:
        """It was finite."""
        if self.proposed is not None:
            self.good, self.proposed = self.proposed, None

    def restore(self) -> None:
        """Put the good weights back into the module."""
        self.module.load_state_dict(self.good)

    def state(self) -> dict[str, Any]:
        """Everything kept, for a checkpoint."""
        return {"best": self.best, "good": self.good, "proposed": self.proposed}

    def load(self, state: dict[str, Any]) -> None:
        """What :meth:`state` gave, as it was."""
        self.best, self.good, self.proposed = state["best"], state["good"], state["proposed"]

    def _copy(self) -> Weights:
        return {name: tensor.clone() for name, tensor in weights_of(self.module).items()}
