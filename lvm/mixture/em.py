"""Expectation maximisation for Gaussian mixtures, every iteration on all rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from density.checks import settle_counts
from density.fitting.checkpoint import Checkpoint
from lvm.em import Climbed, Limits, Present, check_tolerance, climb
from lvm.mixture import splits
from lvm.mixture.covariance import CollapsedComponent
from lvm.mixture.expectation import of_all_rows
from lvm.mixture.fit import Algorithm, Expect, Problem, check_start, some
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.regularisation import Local, Regularisation, check_regularisation
from lvm.mixture.starts import KMeansPlusPlus, Start
from lvm.mixture.statistics import Statistics


@dataclass(frozen=True)
class EM(Algorithm):
    r"""Expectation maximisation (Dempster, Laird & Rubin 1977), every iteration on all rows.

    Args:
        max_iterations: M-steps at most.
        tolerance: the fit rests when the mean log-likelihood changes by no more than this (nats per point), and stops
            if splitting components that coincide, or an empty and another one, does not lead up (see
            :mod:`lvm.mixture.splits`). EM converges linearly, so what is left to gain can be many times the last
            change: scikit-learn's 10⁻³ stops too early.
        regularisation: R, added to the diagonal of every covariance in every M-step: a variance, a
            :class:`~lvm.mixture.regularisation.Relative` or a :class:`~lvm.mixture.regularisation.Local` one. The
            history says where it is a noticeable part of a component's covariance.
        restarts: starts to try; the one with the highest final log-likelihood is kept.
        start: :class:`~lvm.mixture.starts.KMeansPlusPlus`, :class:`~lvm.mixture.starts.RandomPoints`,
            :class:`~lvm.mixture.starts.RandomResponsibilities`, :class:`~lvm.mixture.starts.Given`, or
            :class:`~lvm.em.Present` to go on from the model's own parameters.
        rows_at_once: rows in a chunk of the E-step; None for as many as fit the cache. Results do not depend on it.
        progress: show a progress bar, if there is a terminal to show it on.
        checkpoint: where, and after how many iterations or minutes, to write the state of the fit, to resume it.

    Raises:
        ValueError: a setting is out of range.

    >>> import torch
    >>> from lvm import GaussianMixture
    >>> generator = torch.manual_seed(0)
    >>> x = torch.cat([torch.randn(50, 2) - 4, torch.randn(50, 2) + 4]).double()
    >>> history = GaussianMixture(2, components=2).fit(x, EM(tolerance=1e-6, progress=False))
    >>> all(b >= a for a, b in zip(history.objective, history.objective[1:])), history.converged
    (True, True)
    """

    max_iterations: int = 1000
    tolerance: float = 1e-8
    regularisation: Regularisation = field(default_factory=Local)
    restarts: int = 1
    start: Start | Present = field(default_factory=KMeansPlusPlus)
    rows_at_once: int | None = None
    progress: bool = True
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        settle_counts(self, "max_iterations", "restarts", "rows_at_once")
        check_tolerance(self.tolerance)
        check_regularisation(self.regularisation)
        check_start(self.start, self.restarts)

    def climb(self, problem: Problem, expect: Expect | None = None) -> Climbed[MixtureParameters]:
        """The best parameters of all starts, in float64, and how they were reached.

        Args:
            problem: the mixture and the data.
            expect: the E-step; that of complete rows if None.
        """
        if expect is None:
            expect = partial(of_all_rows, rows=problem.rows, ridge=problem.ridge, rows_at_once=self.rows_at_once)

        def expected(at: MixtureParameters) -> tuple[float, Statistics]:
            statistics = expect(at)
            return statistics.mean_log_likelihood, statistics

        def maximised(at: MixtureParameters, statistics: Statistics) -> MixtureParameters:
            return statistics.maximise(at, problem.ridge)

        def ways_up(at: MixtureParameters, statistics: Statistics) -> Iterator[MixtureParameters]:
            if at.fixed:
                return iter(())
            rows = some(problem.complete, problem.n)
            return splits.ways_up(at, rows, problem.ridge, filled=problem.complete is not problem.rows)

        climbed = climb(
            partial(problem.first, self.start),
            expected,
            maximised,
            Limits(steps=self.max_iterations, tolerance=self.tolerance, restarts=self.restarts, progress=self.progress),
            problem.log(self),
            problem.present,
            CollapsedComponent,
            ways_up,
        )
        return problem.ended(climbed)
