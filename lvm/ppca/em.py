"""The loop of PPCA's EM algorithms: E-step, M-step, until log p(x) no longer grows; cut and resumed anywhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.data.rows import Rows
from density.fitting.checkpoint import Checkpoint, Logbook
from density.history import History
from density.parallel.random_streams import Randomness


@dataclass(frozen=True, eq=False)
class Parameters:
    """μ ``[D]``, W ``[D, q]`` and σ², in float64."""

    mean: Tensor
    weight: Tensor
    noise_variance: Tensor


class Expectation(ABC):
    """What an E-step found at some parameters.

    Attributes:
        objective: the mean log p(x) there, which comes at no further cost.
    """

    objective: Tensor

    @abstractmethod
    def maximise(self) -> Parameters:
        """The M-step."""


@dataclass(frozen=True)
class Climb:
    """Settings of an EM algorithm for PPCA.

    Args:
        max_iterations: at most so many.
        tolerance: stop when the mean log p(x) gains less than this in one iteration, nats per point.
        seed: of the random initial W.
        warm_start: start from the model's present parameters instead.
        checkpoint: where to write the state of the fit, to resume it; None for nowhere.

    Raises:
        ValueError: a setting is out of range.
    """

    max_iterations: int = 2000
    tolerance: float = 1e-10
    seed: int = 0
    warm_start: bool = False
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        check_count(self.max_iterations, "max_iterations")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0; got {self.tolerance}")

    def random_weight(self, features: int, latent_features: int, variance: Tensor) -> Tensor:
        """A first W, ``[D, q]``, whose entries are normal and which explains half of a variance."""
        generator = Generator().manual_seed(self.seed)
        noise = torch.randn(features, latent_features, generator=generator, dtype=torch.float64).to(variance.device)
        return noise * (variance / (2 * latent_features)).sqrt()

    def run(
        self, first: Parameters, expect: Callable[[Parameters], Expectation], rows: Rows, kind: str
    ) -> tuple[Parameters, History]:
        """Climb from the first parameters. The history has the mean log p(x) after every iteration.

        Raises:
            CheckpointMismatch: the checkpoint is that of another fit.
            UnusableFile: it is none, or not a whole one.
        """
        started = time.perf_counter()
        history = History(stopped=f"{self.max_iterations} iterations done")
        parameters = first
        log = self._logbook(first, rows, kind)
        entry = log.read()
        if entry is not None:
            mean, weight, noise_variance = (tensor.to(first.mean.device) for tensor in entry.state["parameters"])
            parameters = Parameters(mean, weight, noise_variance)
            history = History(**entry.state["history"])
            started -= history.seconds
            if entry.finished:
                return parameters, history

        def state() -> dict[str, Any]:
            history.seconds = time.perf_counter() - started
            tensors = [t.cpu() for t in (parameters.mean, parameters.weight, parameters.noise_variance)]
            return {"parameters": tensors, "history": {**vars(history), "objective": list(history.objective)}}

        step = expect(parameters)
        for iteration in range(len(history.objective), self.max_iterations):
            parameters = step.maximise()
            before, step = step, expect(parameters)
            history.objective.append(step.objective.item())
            history.best = iteration
            if bool(step.objective - before.objective < self.tolerance):
                history.converged = True
                history.stopped = f"gain below {self.tolerance:g} nats"
                break
            log.step(state)
        log.finish(state)
        history.seconds = time.perf_counter() - started
        return parameters, history

    def _logbook(self, first: Parameters, rows: Rows, kind: str) -> Logbook:
        task: dict[str, Any] = {}
        if self.checkpoint is not None:
            task = {
                "model": f"PPCA with W {list(first.weight.shape)}",
                "data": rows.in_words(),
                "settings": repr({name: value for name, value in vars(self).items() if name != "checkpoint"}),
            }
        # The seed decides where the fit begins; the iterations draw nothing.
        return Logbook(self.checkpoint, kind, task, Randomness(Generator().manual_seed(self.seed), torch.device("cpu")))
