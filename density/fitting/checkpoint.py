"""Checkpoints: a fit that was cut at any moment goes on where it was, and ends as if it had not been cut."""

from __future__ import annotations

import glob
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from density.checks import settle_counts
from density.parallel import processes
from density.parallel.random_streams import Randomness
from density.saving import files

Task = dict[str, Any]
State = dict[str, Any]


class CheckpointMismatch(ValueError):
    """A checkpoint belongs to another fit: other data, other settings, or another model.

    >>> import tempfile
    >>> from torch import nn, ones
    >>> from density import Checkpoint, CheckpointMismatch, Training, maximise
    >>> line, x = nn.Linear(1, 1), ones(20, 1)
    >>> checkpoint = Checkpoint(tempfile.mkdtemp() + "/fit.ckpt")
    >>> def fit(learning_rate):
    ...     training = Training(epochs=1, learning_rate=learning_rate, progress=False, checkpoint=checkpoint)
    ...     return maximise(line, lambda batch, generator: -line(batch[0]).square()[:, 0], (x,), training)
    >>> history = fit(0.1)
    >>> try:
    ...     fit(0.2)
    ... except CheckpointMismatch:
    ...     print("the file is of another fit")
    the file is of another fit
    """


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: where, and how often, a fit writes down what it needs to go on.

    Give it to a fit, and call the same fit again after whatever ended it: it goes on from the file. On a CPU it then
    ends with the bits that it would have had. A file of a finished fit gives its result without any work, so a script
    of several fits, each with a path of its own, is resumed by running it again. To fit anew, delete the file.

    The file is replaced whole or not at all, and nothing in it is executed when it is read. On several processes the
    first one writes and reads it for all of them.

    Args:
        path: of the file; one path, one fit.
        steps: write after so many steps; None for no such rule.
        minutes: write when so many minutes have passed; None for no such rule. Whichever rule is met first.

    Raises:
        ValueError: a rule is out of range, or there is none.

    Cost: writing a gradient fit with Adam takes four to five times the size of the model's weights on the disk, waits
    for the disk, and evaluates the objective on a few rows.

    >>> Checkpoint("fit.ckpt", steps=0)
    Traceback (most recent call last):
        ...
    ValueError: steps must be a positive int; got 0
    """

    path: str | os.PathLike[str]
    steps: int | None = None
    minutes: float | None = 10.0

    def __post_init__(self) -> None:
        settle_counts(self, "steps")
        if self.minutes is not None and not (self.minutes > 0 and math.isfinite(self.minutes)):
            raise ValueError(f"minutes must be positive and finite; got {self.minutes}")
        if self.steps is None and self.minutes is None:
            raise ValueError("a checkpoint needs a rule for when to write it; give steps or minutes")


@dataclass(frozen=True)
class Entry:
    """The entry that an earlier run of this fit wrote.

    Attributes:
        state: what the fit gave to be written.
        random: where the generators stood then.
        finished: had the fit ended?
    """

    state: State
    random: dict[str, Tensor]
    finished: bool


class Logbook:
    """The checkpoint of one running fit; without a checkpoint, an empty one that is never written.

    Args:
        checkpoint: where and how often; None for never.
        kind: of fit, such as "gradient fit": a file of another kind is refused.
        task: what must be the same for a fit to be the same fit: names and plain values, for the error to name.
        randomness: of the fit; its state now is that in which the fit begins.

    Attributes:
        begun: where the generators stood when the fit began, in this run or in the one that is resumed.
    """

    def __init__(self, checkpoint: Checkpoint | None, kind: str, task: Task, randomness: Randomness) -> None:
        self.checkpoint = checkpoint
        self.kind = kind
        self.task = task
        self.randomness = randomness
        self.begun = randomness.state()
        self._steps = 0
        self._written = time.monotonic()

    def read(self) -> Entry | None:
        """What an earlier run of this fit wrote, on every process, with tensors on the CPU; None if there was none.

        Raises:
            CheckpointMismatch: it was another fit that wrote it; the message names every difference.
            UnusableFile: the file is no checkpoint, or not a whole one.
        """
        if self.checkpoint is None:
            return None
        content = processes.from_main(lambda: self._content(Path(self._path)))
        if content is None:
            return None
        self._require_same(content)
        self.begun = content["begun"]
        return Entry(content["state"], content["random"], content["finished"])

    def step(self, state: Callable[[], State]) -> None:
        """Count a step, and write the state if it is time to."""
        if self.checkpoint is None or not processes.is_main():
            return
        self._steps += 1
        steps, minutes = self.checkpoint.steps, self.checkpoint.minutes
        enough = steps is not None and self._steps >= steps
        if enough or (minutes is not None and time.monotonic() - self._written >= 60 * minutes):
            self._write(state(), finished=False)

    def finish(self, state: Callable[[], State]) -> None:
        """Write the state of the fit that has ended."""
        if self.checkpoint is not None and processes.is_main():
            self._write(state(), finished=True)

    @property
    def _path(self) -> str:
        assert self.checkpoint is not None
        return os.fspath(self.checkpoint.path)

    def _content(self, path: Path) -> dict[str, Any] | None:
        for half in glob.glob(f"{glob.escape(str(path.parent))}/.{glob.escape(path.name)}.*.part"):
            Path(half).unlink(missing_ok=True)  # of a run that was killed while it wrote
        return files.read(path, self.kind, device="cpu") if path.exists() else None

    def _write(self, state: State, *, finished: bool) -> None:
        content = {
            "task": self.task,
            "seed": self.randomness.seed,
            "begun": self.begun,
            "random": self.randomness.state(),
            "state": state,
            "finished": finished,
        }
        files.write(self._path, self.kind, content)
        self._steps, self._written = 0, time.monotonic()

    def _require_same(self, content: dict[str, Any]) -> None:
        found = differences(content["task"], self.task)
        there, here = (self.randomness.place_in_words(state) for state in (content["begun"], self.begun))
        if there != here:
            found.append(f"the fit ran on {there} there and runs on {here} here")
        if content["seed"] != self.randomness.seed:
            found.append(f"the generator's seed is {content['seed']} there and {self.randomness.seed} here")
        elif content["finished"] and self.randomness.differs(content["begun"]):
            found.append("that fit has ended, and it began with its generator in another state")
        if found:
            raise CheckpointMismatch(
                f"{self._path} is the checkpoint of another fit: {'; '.join(found)}. Call the fit that it belongs to, "
                "give this one another path, or delete the file to fit anew"
            )


def differences(there: Task, here: Task, where: str = "there", and_where: str = "here") -> list[str]:
    """Differences between two tasks, in words.

    >>> differences({"epochs": 10, "clip": None}, {"epochs": 20, "clip": None})
    ['epochs is 10 there and 20 here']
    """
    names = [*there, *(name for name in here if name not in there)]
    return [
        f"{name} is {there.get(name)!r} {where} and {here.get(name)!r} {and_where}"
        for name in names
        if there.get(name) != here.get(name)
    ]
