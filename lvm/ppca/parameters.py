"""The parameters of PPCA, and how its EM algorithms climb in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor

from density.checks import in_words, settle_counts
from density.data.rows import Rows
from density.fitting.checkpoint import Checkpoint, Logbook
from density.history import History
from density.parallel.random_streams import Randomness
from lvm.em import Limits, Parameters, Present, check_tolerance, climb


@dataclass(frozen=True, eq=False)
class PPCAParameters(Parameters):
    """μ ``[D]``, W ``[D, q]`` and σ², in float64."""

    mean: Tensor
    weight: Tensor
    noise_variance: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.mean, self.weight, self.noise_variance

    def having(self, *tensors: Tensor) -> PPCAParameters:
        return PPCAParameters(*tensors)


class Expectation(ABC):
    """The result of an E-step at some parameters.

    Attributes:
        objective: the mean log p(x) there, which comes at no further cost.
    """

    objective: Tensor

    @abstractmethod
    def maximise(self) -> PPCAParameters:
        """The M-step."""


@dataclass(frozen=True)
class RandomWeight:
    """A start from the mean of the data and a W of independent normal entries that explains half of the variance.

    Args:
        seed: of W; further starts draw on.
    """

    seed: int = 0


@dataclass(frozen=True)
class PPCAClimb:
    """Settings of an EM algorithm for PPCA.

    Args:
        max_iterations: M-steps at most.
        tolerance: stop when the mean log p(x) changes by no more than this in one iteration, nats per point.
        start: :class:`RandomWeight`, or :class:`~lvm.em.Present` to go on from the model's own parameters.
        restarts: starts to try; the one with the highest final log-likelihood is kept.
        progress: show a progress bar, if there is a terminal to show it on.
        checkpoint: where, and after how many iterations or minutes, to write the state of the fit, to resume it.

    Raises:
        TypeError: start is none of these.
        ValueError: a setting is out of range.
    """

    max_iterations: int = 2000
    tolerance: float = 1e-10
    start: RandomWeight | Present = RandomWeight()
    restarts: int = 1
    progress: bool = True
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        settle_counts(self, "max_iterations", "restarts")
        check_tolerance(self.tolerance)
        if not isinstance(self.start, RandomWeight | Present):
            raise TypeError(f"start must be RandomWeight() or Present(); got {in_words(self.start)}")
        if self.restarts > 1 and isinstance(self.start, Present):
            raise ValueError(f"Present starts alike every time: use restarts=1; got {self.restarts}")

    def climb(
        self,
        rows: Rows,
        present: PPCAParameters,
        mean: Tensor,
        variance: Tensor,
        expect: Callable[[PPCAParameters], Expectation],
    ) -> tuple[PPCAParameters, History]:
        """The maximum that is reached, and how.

        Args:
            rows: the data, by which a checkpoint knows the fit.
            present: the model's parameters.
            mean, variance: μ of a random start ``[D]``, and what of the variance its W explains one half of.
            expect: the E-step.

        Raises:
            CheckpointMismatch: the checkpoint is that of another fit.
            UnusableFile: it is none, or not a whole one.
        """
        generator = Generator().manual_seed(0 if isinstance(self.start, Present) else self.start.seed)

        def first() -> PPCAParameters:
            if isinstance(self.start, Present):
                return present
            noise = torch.randn(present.weight.shape, generator=generator, dtype=torch.float64).to(mean.device)
            weight = noise * (variance / (2 * present.weight.shape[1])).sqrt()
            return PPCAParameters(mean, weight, variance / 2)

        def expected(at: PPCAParameters) -> tuple[float, Expectation]:
            found = expect(at)
            return found.objective.item(), found

        limits = Limits(
            steps=self.max_iterations, tolerance=self.tolerance, restarts=self.restarts, progress=self.progress
        )
        task: dict[str, Any] = {}
        if self.checkpoint is not None:
            settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("progress", "checkpoint")}
            task = {
                "model": f"PPCA with W {list(present.weight.shape)}",
                "data": rows.in_words(),
                "algorithm": type(self).__name__,
                **{name: value if isinstance(value, int | float) else repr(value) for name, value in settings.items()},
            }
        log = Logbook(self.checkpoint, "EM fit", task, Randomness(generator, torch.device("cpu")))
        climbed = climb(first, expected, lambda _, found: found.maximise(), limits, log, present)
        assert climbed.parameters is not None, "no start of PPCA is given up"
        return climbed.parameters, climbed.history
