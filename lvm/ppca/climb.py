"""How the EM algorithms of PPCA climb: their settings and their starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator

from density.checks import in_words, settle_counts
from density.data.rows import Rows
from density.fitting.checkpoint import Checkpoint, Logbook
from density.history import History
from density.parallel.random_streams import Randomness
from lvm.em import Limits, Present, check_tolerance, climb
from lvm.ppca.covariance import Operator
from lvm.ppca.parameters import Expectation, PPCAParameters


@dataclass(frozen=True)
class RandomWeight:
    r"""A start from the mean of the data and the axes that a random sketch of its covariance S finds.

    The sketch is Sω for ω ``[D, q]`` of independent normal entries (Halko, Martinsson & Tropp 2011). Within its span W
    has the axes of S and explains its variances, so that every latent starts in proportion to what there is for it. A W
    of independent entries starts them all alike; while σ² is still large EM then lets those of small variance die: the
    column along an axis shrinks by λ/σ² in every iteration, down to rounding of the largest.

    Args:
        seed: of ω; further starts draw on.

    >>> from lvm import EMSolver
    >>> from lvm.ppca import RandomWeight
    >>> EMSolver(start=RandomWeight(seed=3)).start
    RandomWeight(seed=3)
    """

    seed: int = 0


@dataclass(frozen=True)
class PPCAClimb:
    """Settings of an EM algorithm for PPCA.

    Args:
        max_iterations: M-steps at most.
        tolerance: the fit rests when the mean log p(x) changes by no more than this in one iteration, nats per point.
            It then looks for a way up, which there is from a saddle, and stops if it finds none.
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
        covariance: Operator,
        expect: Callable[[PPCAParameters], Expectation],
        ways_up: Callable[[PPCAParameters], Iterable[PPCAParameters]],
    ) -> tuple[PPCAParameters, History]:
        """The maximum that is reached, and how.

        Args:
            rows: the data, by which a checkpoint knows the fit.
            present: the model's parameters.
            covariance: of the data, from which a random start is made.
            expect: the E-step.
            ways_up: where the likelihood may be higher, if it rests at some parameters, as it does at saddles too.

        Raises:
            CheckpointMismatch: the checkpoint is that of another fit.
            UnusableFile: it is none, or not a whole one.
        """
        generator = Generator().manual_seed(0 if isinstance(self.start, Present) else self.start.seed)

        def first() -> PPCAParameters:
            if isinstance(self.start, Present):
                return present
            noise = torch.randn(present.weight.shape, generator=generator, dtype=torch.float64)
            return present.keeping(covariance.sketched(noise.to(present.weight.device)))

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
                **present.fixed_in_words(),
            }
        log = Logbook(self.checkpoint, "EM fit", task, Randomness(generator, torch.device("cpu")))
        climbed = climb(
            first,
            expected,
            lambda at, found: found.maximise(at),
            limits,
            log,
            present,
            ways_up=lambda at, _: ways_up(at),
        )
        assert climbed.parameters is not None, "no start of PPCA is given up"
        return climbed.parameters, climbed.history
