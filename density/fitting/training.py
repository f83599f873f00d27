"""Settings of a gradient fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch

from density.checks import check_settings, settle_counts
from density.fitting.checkpoint import Checkpoint, Task
from density.fitting.optimisers import OptimiserOf, Schedule, adam, constant, cosine, lbfgs
from density.history import History

Callback = Callable[[History], bool | None]
SAME = (
    "epochs", "steps", "batch_size", "learning_rate", "clip", "validation", "patience", "patient_steps", "annealing",
    "weight_decay", "averaging", "refit",
)  # fmt: skip


class LastBatch(Enum):
    """What becomes of the rows of an epoch that are left over, too few for a batch of the size that was asked for.

    - ``SMALLER``: they are a step of their own, of their mean; a single row joins the batch before.
    - ``DROPPED``: they wait. Every epoch has its own order, so that over epochs no row is left out more than others.
    - ``FILLED``: rows with which the epoch began make them a whole batch, and count twice in it.

    The last two have batches of one size alone, as graphs of static shape want them.

    >>> Training(batch_size=64, last_batch=LastBatch.FILLED).last_batch.value
    'filled'
    """

    SMALLER = "smaller"
    DROPPED = "dropped"
    FILLED = "filled"


@dataclass(frozen=True)
class Training:
    """Settings of a gradient fit.

    The learning rate is constant at first and annealed at the end. Where rows are held out, the constant part ends with
    patience; annealing then begins from the best weights, and the best weights of the whole fit are kept. So a fit that
    is given more steps than it needs is the fit that was given enough.

    Args:
        epochs: passes over the training rows, at most; None for as many as ``steps`` make.
        steps: steps of the optimiser, at most, in place of epochs; where both are None, as many as
            :func:`~density.fitting.course.usual_steps` says of the number of rows.
        batch_size: rows in a step; None for all of them.
        last_batch: what becomes of rows that are left over (:class:`LastBatch`): a last, smaller step, unless asked
            otherwise; a single row, of which batch normalisation has no statistics, joins the step before.
        learning_rate: of the constant part.
        optimiser: makes the optimiser from parameters and learning rate: :func:`adam`, :func:`lbfgs`, or your own.
            Groups of parameters may have rates of their own.
        schedule: factor of every group's learning rate by the share of annealing done: :func:`cosine`, or
            :func:`constant` for no annealing.
        annealing: share of the steps that led to the result in which the rate is annealed; with 1 it falls from the
            first step to the last of the budget, and patience ends the fit where it stands, however high the rate is.
        weight_decay: by which weights of networks (:func:`~density.fitting.network_weights.network_weights`), and
            nothing else, shrink: by the factor 1 − learning rate · weight_decay a step (Loshchilov & Hutter 2019). An
            optimiser of your own gets groups of parameters that say so.
        averaging: β of a moving average of the weights, such as 0.99, which then is what held-out rows judge and what
            is kept; None for the weights themselves.
        clip: the gradient's norm is scaled down to at most this; None for no clipping. L-BFGS is never clipped: its
            line search needs the gradient itself.
        validation: share of rows held out; the weights that do best on them are kept. 0 to train on all rows and keep
            the last weights.
        patience: epochs without improvement on the held-out rows after which the rate is annealed and the fit ends;
            None to use all steps.
        patient_steps: steps that patience lasts at least, so that a few short epochs of little data do not end a fit.
        refit: once the held-out rows have said how many steps to do, fit all rows from the same start with as many, and
            keep the last weights. The history is that of the first fit.
        callback: is called with the :class:`~density.history.History` so far after every epoch, by the first of several
            processes; the fit ends if it returns True.
        progress: show a progress bar, if there is a terminal to show it on.
        checkpoint: where to write what a cut fit needs to go on; None not to.
        parts: parts that every batch is processed in, each with random draws of its own: the memory of one part at a
            time, and the same fit on one process as on up to so many. None for one part a process.
        autocast: ``torch.bfloat16`` to run networks in steps at that precision (see
            :func:`~density.fitting.autocast.lowered`), on float32 data; held-out rows are judged in full precision.
        tf32: allow TF32 in the steps' products of float32 matrices on CUDA (see
            :func:`~density.fitting.autocast.tensor_float_32`); held-out rows are judged without.
        compiled: compile the objective and its gradient by ``torch.compile``, once for whole batches; a last, smaller
            batch (see ``last_batch``) and held-out rows run as they are. Worth its seconds or minutes where steps are
            many; the fit is the same up to rounding, which a checkpoint therefore keeps apart (see
            :mod:`density.compilation`). On CUDA the optimiser, too, has its counters and rates on the device
            (:class:`~density.fitting.optimisers.Rates`).

    Raises:
        TypeError: optimiser or schedule is no function, checkpoint no Checkpoint, or last_batch no LastBatch.
        ValueError: a setting is out of range; both epochs and steps; L-BFGS with weight decay or averaging.

    A callback for TensorBoard, whose ``SummaryWriter`` has this method, that also ends a fit after an hour:

    >>> from density import maximise
    >>> class Writer:
    ...     def add_scalar(self, tag, value, step):
    ...         print(f"{tag} {step}: {value:.0f}")
    >>> writer = Writer()
    >>> def watch(history):
    ...     step = len(history.objective)
    ...     writer.add_scalar("objective/train", history.objective[-1], step)
    ...     if history.validation:
    ...         writer.add_scalar("objective/held out", history.validation[-1], step)
    ...     return history.seconds > 3600
    >>> settings = Training(epochs=2, validation=0.0, callback=watch)
    >>> model = torch.nn.Linear(1, 1)
    >>> _ = maximise(model, lambda batch, _: 1 + 0 * model(batch[0]).sum(-1), (torch.ones(9, 1),), settings)
    objective/train 1: 1
    objective/train 2: 1
    """

    epochs: int | None = None
    batch_size: int | None = 128
    learning_rate: float = 3e-3
    optimiser: OptimiserOf = adam
    schedule: Schedule = cosine
    clip: float | None = 100.0
    validation: float = 0.1
    patience: int | None = 20
    progress: bool = True
    checkpoint: Checkpoint | None = None
    parts: int | None = None
    autocast: torch.dtype | None = None
    steps: int | None = None
    annealing: float = 0.25
    weight_decay: float = 0.0
    averaging: float | None = None
    patient_steps: int = 500
    refit: bool = False
    callback: Callback | None = None
    compiled: bool = False
    last_batch: LastBatch = LastBatch.SMALLER
    tf32: bool = False

    def __post_init__(self) -> None:
        if not callable(self.optimiser):
            raise TypeError(
                "optimiser must be a function that makes one from parameters and a learning rate, such as density.adam "
                f"or lambda parameters, rate: torch.optim.SGD(parameters, lr=rate); got {_described(self.optimiser)}"
            )
        if not callable(self.schedule):
            raise TypeError(
                "schedule must be a function of the share of annealing done, in [0, 1], such as density.cosine or "
                f"density.constant; got {_described(self.schedule)}"
            )
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be a function of a History; got {_described(self.callback)}")
        if not isinstance(self.checkpoint, Checkpoint | None):
            raise TypeError(f"checkpoint must be a density.Checkpoint(path); got {_described(self.checkpoint)}")
        if not isinstance(self.last_batch, LastBatch):
            raise TypeError(
                f"last_batch must be density.LastBatch.SMALLER, DROPPED or FILLED; got {_described(self.last_batch)}"
            )
        settle_counts(self, "epochs", "steps", "batch_size", "patience", "parts")
        if self.patient_steps != 0:
            settle_counts(self, "patient_steps")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"give epochs or steps, not both; got {self.epochs} epochs and {self.steps} steps")
        for name, value in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite; got {value}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay must not be negative, and finite; got {self.weight_decay}")
        if not 0 <= self.annealing <= 1:
            raise ValueError(f"annealing is a share of the steps, in [0, 1]; got {self.annealing}")
        if self.averaging is not None and not 0 < self.averaging < 1:
            raise ValueError(f"averaging is the β of a moving average, in (0, 1); got {self.averaging}")
        if self.optimiser is lbfgs and (self.weight_decay or self.averaging):
            raise ValueError("L-BFGS takes no weight_decay or averaging: its line search needs the objective itself")
        if self.refit and self.annealed_share == 1:
            raise ValueError("refit repeats the steps that did best; with annealing=1 their rates depend on the end")
        if self.refit and not self.validation:
            raise ValueError("refit needs held-out rows to say how many steps to do; set validation above 0")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is a share of the rows, in [0, 1); got {self.validation}")
        if self.autocast not in (None, torch.bfloat16):
            raise ValueError(
                f"autocast takes torch.bfloat16 or None; got {self.autocast} (float16 needs its gradients rescaled)"
            )

    @property
    def annealed_share(self) -> float:
        """The share of steps in which the rate changes: none where the schedule is constant."""
        return 0.0 if self.schedule is constant else self.annealing

    def task(self) -> Task:
        """What must be the same for two fits to be the same, as plain values."""
        return {
            **{name: getattr(self, name) for name in SAME},
            "schedule": [self.schedule(eighth / 8) for eighth in range(9)],
            "autocast": None if self.autocast is None else str(self.autocast),
            # What earlier files do not know is unsaid where it is as it was.
            **({"compiled": True} if self.compiled else {}),
            **({"tf32": True} if self.tf32 else {}),
            **({} if self.last_batch is LastBatch.SMALLER else {"last_batch": self.last_batch.value}),
        }


def check_training(training: object, owner: str) -> None:
    """Raise TypeError unless settings are those of a gradient fit."""
    check_settings(training, Training, "training", "density.Training(...)", owner)


def _described(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"{type(value).__name__} object"
