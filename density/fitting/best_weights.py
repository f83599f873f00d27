"""Best weights and patience: what a fit watches, which weights it comes back to, and when it stops."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from density.history import History

Weights = dict[str, Tensor]


class NonFiniteObjective(ArithmeticError):
    """The objective became nan or infinite; the model holds the last weights that were known to be good.

    Attributes:
        history: what happened until then.

    >>> error = NonFiniteObjective("the objective became nan in epoch 3", History(objective=[-2.0, -1.5]))
    >>> error.history.objective
    [-2.0, -1.5]
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


def weights_of(module: nn.Module) -> Weights:
    """Parameters and buffers of a module by name: the tensors themselves, outside any graph."""
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def copied(module: nn.Module) -> Weights:
    """Copies of the same."""
    return {name: tensor.clone() for name, tensor in weights_of(module).items()}


class Watch:
    """The history of a fit, and copies of the weights that it may come back to.

    With held-out rows the good weights are those that did best on them; without, those after which the objective was
    still finite, so that weights are good only once the next objective is known.

    Attributes:
        history: what happened.
        epoch: epochs that have ended.

    Args:
        module: whose weights are watched.
        history: to go on with.
    """

    def __init__(self, module: nn.Module, history: History) -> None:
        self.module, self.history = module, history
        self.epoch = 0
        self._loss: Tensor | float = 0.0
        self._best = -math.inf
        self._good = copied(self.module)
        self._proposed: Weights | None = None

    def step(self, loss: Tensor, rows: int) -> None:
        """Count the mean loss of a batch. On an accelerator a look at it would wait, so there it is not looked at."""
        self._loss = self._loss + loss * rows
        if loss.device.type == "cpu":
            self.require_finite(loss.item())

    def judged(self, rows: int, value: Tensor | None) -> bool:
        """An epoch of so many rows has ended; are its weights the best so far?

        Both numbers of the epoch, the mean loss of its steps and the value here, are looked at together.

        Args:
            rows: in the epoch's steps.
            value: mean objective of the held-out rows, by the weights that the module has now; None if there are none.
        """
        history = self.history
        mean = torch.as_tensor(self._loss) / rows
        loss, *held_out = [mean.item()] if value is None else torch.stack([mean.to(value), value]).tolist()
        self.require_finite(loss)
        self._loss = 0.0
        if self._proposed is not None:
            self._good, self._proposed = self._proposed, None
        history.objective.append(-loss)
        if not held_out:
            history.best, self._proposed = self.epoch, copied(self.module)
        else:
            self.require_finite(held_out[0], "held-out objective")
            history.validation.append(held_out[0])
            if history.validation[-1] > self._best:
                history.best, self._best, self._good = self.epoch, history.validation[-1], copied(self.module)
        self.epoch += 1
        return history.best == self.epoch - 1

    def ended(self, value: Tensor) -> None:
        """The mean objective after the last step, where no held-out rows have told whether it is finite."""
        self.require_finite(value.item(), epoch=self.epoch)

    def require_finite(self, value: float, name: str = "objective", epoch: int | None = None) -> None:
        """Raise NonFiniteObjective unless a value is finite; the epoch, from 1, is the present one if None."""
        if not math.isfinite(value):
            self.history.stopped = "non-finite objective"
            raise NonFiniteObjective(
                f"the {name} became {value} in epoch {epoch or self.epoch + 1}; the last good weights were "
                "kept. Lower the learning rate, clip gradients harder, or standardise the data",
                self.history,
            )

    def last(self) -> dict[str, str]:
        """The last values, for a progress bar."""
        values = {"train": self.history.objective, "valid": self.history.validation}
        return {name: f"{found[-1]:.3f}" for name, found in values.items() if found}

    def restore(self) -> None:
        """Put the good weights back into the module."""
        self.module.load_state_dict(self._good)

    def state(self) -> dict[str, Any]:
        """Everything watched, for a checkpoint."""
        return {
            "history": asdict(self.history),
            "epoch": self.epoch,
            "loss": self._loss,
            "best": self._best,
            "good": self._good,
            "proposed": self._proposed,
        }

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """What :meth:`state` gave, as it was."""
        loss = state["loss"]
        self.history, self.epoch = History(**state["history"]), state["epoch"]
        self._loss = loss.to(device) if isinstance(loss, Tensor) else loss
        self._best, self._good, self._proposed = state["best"], state["good"], state["proposed"]
