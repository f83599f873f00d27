"""The course of a fit: how many steps it takes, and the learning rate of each, constant first and then annealed."""

from __future__ import annotations

import math
from typing import Any

from density.fitting.training import Training

FEW = 3  # epochs that annealing takes at least
USUAL_BATCH = 128  # rows in the steps that are counted; larger batches make as many passes, not as many steps
USUAL_EPOCHS = 200  # of which large batches make as many as that, if no more
RECENT = 0.25  # share of the epochs before annealing within which the held-out rows were best, where a fit still climbs
SLACK = 1e-9  # of rounding, before a share of epochs counts as one more


def usual_steps(rows: int) -> int:
    """The steps of a fit that was given neither epochs nor steps, 1,800 + 45 √rows.

    Each step sees other rows, so more rows bear more steps: ten times as many for a hundred times the rows, if many.

    >>> [usual_steps(rows) for rows in (500, 8_000, 50_000, 1_000_000)]
    [2806, 5825, 11862, 46800]
    """
    return 1800 + round(45 * math.sqrt(rows))


class Course:
    """The course of one fit, in whole epochs.

    The rate is constant first, and annealed in the last share of the budget, from the best weights. Once patience has
    ended, that is earlier, and for so many epochs that they are the same share of all that led to the result. No more
    are needed than the budget has, so a larger budget changes nothing in a fit of which patience has ended.

    Attributes:
        steps: done so far.
        epoch: epochs done so far.
        annealing_from: epochs after which annealing begins.
        end: epochs after which the fit ends.
        best: epochs after which the held-out rows were best, before annealing.
        patient: has patience not ended?
        asked: was the fit asked to end?

    Args:
        training: the settings.
        rows: how many rows are trained on.
        length: steps in a pass over them.
        held_out: are rows held out?
        period: steps that patience lasts longer, in which the objective changes once through.
    """

    def __init__(self, training: Training, rows: int, length: int, held_out: bool, period: int = 0) -> None:
        self.training, self.length, self.held_out, self.period = training, length, held_out, period
        self.unit = max(length, rows / USUAL_BATCH)  # steps in a pass, if batches are no larger than usual
        if training.steps is not None:
            self.end = -(-training.steps // length)
        elif training.epochs is not None:
            self.end = training.epochs
        else:
            usual = usual_steps(rows)
            self.end = max(math.ceil(usual / self.unit), min(USUAL_EPOCHS, math.ceil(usual / length)))
        self.annealing_from = self.end - math.ceil(training.annealed_share * self.end - SLACK)
        self.steps = self.epoch = self.best = 0
        self.patient = True
        self.asked = False

    @property
    def factor(self) -> float:
        """Of the learning rate at the next step."""
        done = self.steps - self.annealing_from * self.length
        if done < 0 or self.end == self.annealing_from:
            return 1.0
        return self.training.schedule(done / ((self.end - self.annealing_from) * self.length))

    @property
    def ended(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.end

    @property
    def waits(self) -> int:
        """Epochs that patience lasts."""
        usual = max(self.training.patience or 0, math.ceil(self.training.patient_steps / self.unit))
        return usual + math.ceil(self.period / self.length)

    @property
    def climbing(self) -> bool:
        """Whether the budget ended before patience did, with held-out rows that were best of late, before annealing."""
        if self.asked or not (self.held_out and self.training.patience is not None and self.patient and self.ended):
            return False
        before = self.annealing_from or self.end * (self.training.annealed_share == 1)
        return before - self.best <= RECENT * before

    def judged(self, improved: bool) -> bool:
        """Count an epoch, and what held-out rows said of it; True where annealing now begins from the best weights."""
        self.epoch += 1
        training = self.training
        falling = training.annealed_share == 1
        if not self.held_out or (self.epoch > self.annealing_from and not falling):
            return False
        if improved:
            self.best = self.epoch
        self.patient = training.patience is None or self.epoch - self.best < self.waits
        if falling:
            self.end = self.end if self.patient else self.epoch
            return False
        if self.patient and self.epoch < self.annealing_from:
            return False
        self.annealing_from, share = self.epoch, training.annealed_share
        if not self.patient:  # where the budget ends first, all of it is used
            length = max(FEW, math.ceil(share / (1 - share) * self.best - SLACK)) if share else 0
            self.end = min(self.end, self.epoch + length)
        return self.end > self.epoch

    def stop(self) -> None:
        """End the fit now."""
        self.asked, self.end = True, self.epoch

    def stopped(self) -> str:
        """Why the fit stopped, in words."""
        if self.asked:
            return f"stopped by the callback after {self.epoch} epochs"
        epochs = self.end - self.annealing_from if self.annealing_from else 0
        annealed = f", then annealed for {epochs} epochs" if epochs else ""
        if not self.patient:
            return f"done: no improvement on held-out rows for {self.waits} epochs{annealed}"
        done = f"{self.end} epochs done"
        return f"{done}, still climbing: more steps would help" if self.climbing else done

    def again(self, rows: int, length: int) -> Course:
        """The course of a fit of other rows with as many steps as led to the best weights here, in whole epochs."""
        other = Course(self.training, rows, length, held_out=False)
        constant = 0 if self.annealing_from == 0 else self.best or self.annealing_from
        phases = (constant, self.end - self.annealing_from)
        constant, annealed = (-(-epochs * self.length // length) for epochs in phases)
        other.annealing_from, other.end = constant, constant + annealed
        return other

    def state(self) -> dict[str, Any]:
        """Where the fit stands, for a checkpoint."""
        names = ("steps", "epoch", "annealing_from", "end", "best", "patient", "asked")
        return {name: getattr(self, name) for name in names}

    def load(self, state: dict[str, Any]) -> None:
        """What :meth:`state` gave."""
        for name, value in state.items():
            setattr(self, name, value)
