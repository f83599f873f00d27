"""Settings of a gradient fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from density.checks import settle_counts
from density.fitting.checkpoint import Checkpoint, Task
from density.fitting.optimisers import OptimiserOf, Schedule, adam, cosine


@dataclass(frozen=True)
class Training:
    """Settings of a gradient fit.

    Args:
        epochs: passes over the training rows, at most.
        batch_size: rows in a step; None for all of them. What is left of an epoch is a last, smaller step; a single
            row, of which batch normalisation has no statistics, joins the step before.
        learning_rate: at the start of the schedule.
        optimiser: makes the optimiser from parameters and learning rate: :func:`adam`, :func:`lbfgs`, or your own.
            Groups of parameters may have rates of their own.
        schedule: factor of every group's learning rate by the share of steps done: :func:`cosine`, :func:`constant`.
        clip: the gradient's norm is scaled down to at most this; None for no clipping. L-BFGS is never clipped: its
            line search needs the gradient itself.
        validation: share of rows held out; the weights that do best on them are kept. 0 to train on all rows and keep
            the last weights.
        patience: epochs without improvement on the held-out rows before stopping early; None never to stop early.
        progress: show a progress bar, if there is a terminal to show it on.
        checkpoint: where to write what a cut fit needs to go on; None not to.
        parts: parts that every batch is processed in, each with random draws of its own: the memory of one part at a
            time, and the same fit on one process as on up to so many. None for one part a process.
        autocast: ``torch.bfloat16`` to run networks in steps at that precision (see
            :func:`~density.fitting.autocast.lowered`), on float32 data; held-out rows are judged in full precision.

    Raises:
        TypeError: optimiser or schedule is no function, or checkpoint no Checkpoint.
        ValueError: a setting is out of range.
    """

    epochs: int = 200
    batch_size: int | None = 128
    learning_rate: float = 1e-3
    optimiser: OptimiserOf = adam
    schedule: Schedule = cosine
    clip: float | None = 100.0
    validation: float = 0.1
    patience: int | None = 20
    progress: bool = True
    checkpoint: Checkpoint | None = None
    parts: int | None = None
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        if not callable(self.optimiser):
            raise TypeError(
                "optimiser must be a function that makes one from parameters and a learning rate, such as density.adam "
                f"or lambda parameters, rate: torch.optim.SGD(parameters, lr=rate); got {_described(self.optimiser)}"
            )
        if not callable(self.schedule):
            raise TypeError(
                "schedule must be a function of the share of steps done, in [0, 1], such as density.cosine or "
                f"density.constant; got {_described(self.schedule)}"
            )
        if not isinstance(self.checkpoint, Checkpoint | None):
            raise TypeError(f"checkpoint must be a density.Checkpoint(path); got {_described(self.checkpoint)}")
        settle_counts(self, "epochs", "batch_size", "patience", "parts")
        for name, value in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite; got {value}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is a share of the rows, in [0, 1); got {self.validation}")
        if self.autocast not in (None, torch.bfloat16):
            raise ValueError(
                f"autocast takes torch.bfloat16 or None; got {self.autocast} (float16 needs its gradients rescaled)"
            )

    def task(self) -> Task:
        """What must be the same for two fits to be the same, as plain values."""
        return {
            **{name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate", "clip", "validation")},
            "patience": self.patience,
            "schedule": [self.schedule(eighth / 8) for eighth in range(9)],
            "autocast": None if self.autocast is None else str(self.autocast),
        }


def _described(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"{type(value).__name__} object"
