"""Expectation maximisation for Gaussian mixtures: its settings, and its iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from density.checks import check_count
from density.fitting.checkpoint import Checkpoint
from lvm.mixture.covariance import Covariance
from lvm.mixture.fit import Algorithm, Run, check_starts
from lvm.mixture.regularisation import Relative, check_regularisation, ridge_of, spread
from lvm.mixture.starts import KMeansPlusPlus, Start


@dataclass(frozen=True)
class EM(Algorithm):
    r"""Expectation maximisation (Dempster, Laird & Rubin 1977), every iteration on all rows.

    Args:
        max_iterations: M-steps at most.
        tolerance: stop when the mean log-likelihood changes by no more than this (nats per point). EM converges
            linearly, so what is left to gain can be many times the last change: scikit-learn's 10⁻³ stops too early.
        regularisation: R, added to the diagonal of every covariance in every M-step: a variance, or
            :class:`~lvm.mixture.regularisation.Relative`.
        restarts: starts to try; the one with the highest final log-likelihood is kept.
        start: :class:`~lvm.mixture.starts.KMeansPlusPlus`, :class:`~lvm.mixture.starts.RandomPoints`,
            :class:`~lvm.mixture.starts.RandomResponsibilities`, :class:`~lvm.mixture.starts.Given`, or
            :class:`~lvm.mixture.starts.Present` to go on from the model's own parameters.
        rows_at_once: rows in a chunk of the E-step; None for as many as fit the cache. Results do not depend on it.
        progress: show a progress bar, if there is a terminal to show it on.
        checkpoint: where, and after how many iterations or minutes, to write the state of the fit, to resume it.

    Raises:
        ValueError: a setting is out of range.
    """

    max_iterations: int = 1000
    tolerance: float = 1e-8
    regularisation: float | Relative = field(default_factory=Relative)
    restarts: int = 1
    start: Start = field(default_factory=KMeansPlusPlus)
    rows_at_once: int | None = None
    progress: bool = True
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        for name, count in (
            ("max_iterations", self.max_iterations),
            ("rows_at_once", 1 if self.rows_at_once is None else self.rows_at_once),
        ):
            check_count(count, name)
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance must be finite and at least 0; got {self.tolerance}")
        check_regularisation(self.regularisation)
        check_starts(self.start, self.restarts)

    def ridge(self, structure: Covariance, x: Tensor, weights: Tensor | None) -> Tensor:
        """R's diagonal for data x ``[n, D]``, float64 ``[D]``.

        Raises:
            ValueError: the rows are so alike, or so large, that even one component for all of them has no density.
        """
        return ridge_of(self.regularisation, structure, spread([(x, weights)], x[:1]))

    def climb(self, run: Run) -> None:
        history = run.history
        if not run.resumed:
            run.begin(self.start)
        with run.bar("EM", self.max_iterations + 1) as bar:
            while True:
                statistics = run.expectation(self.rows_at_once)
                history.objective.append(statistics.mean_log_likelihood)
                bar.update()
                done = len(history.objective)
                if done > 1 and abs(history.objective[-1] - history.objective[-2]) <= self.tolerance:
                    history.converged = True
                    history.stopped = f"the mean log-likelihood changed by at most {self.tolerance:g}"
                    return
                if done > self.max_iterations:
                    history.stopped = f"{self.max_iterations} iterations done"
                    return
                run.model.update(statistics, ridge=run.ridge)
                run.step()
