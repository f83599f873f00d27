"""Densities of complete points on rows with missing entries: importance sampling over what is missing."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from density.checks import check_count, check_incomplete, check_points
from density.contract import Bound, Density
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.importance.bound import importance
from density.initialisation import StartingPoints
from density.log_density import LogDensity
from lvm.finite_mixture.model import FiniteMixture
from lvm.missing.columns import completed
from lvm.mixture.model import GaussianMixture
from lvm.ppca.model import PPCA

Proposal = GaussianMixture | FiniteMixture | PPCA


class MarginalBound(Bound):
    r"""A bound on log p(x_o), the density of the observed entries, by a density of complete points such as a flow.

    .. math:: \log p(x_o) = \log \int p(x_o, x_m)\, dx_m
              \ \ge\ E_{q(x_m|x_o)} \log \tfrac1K \sum_k \frac{p(x_o, x_m^k)}{q(x_m^k|x_o)}

    nan marks a missing entry. The proposal q is a model that knows its own conditionals,
    q(x_m|x_o) = q(x)/q(x_o): a Gaussian mixture (of one component: the Gaussian of the data's moments), a finite one,
    PPCA. Fit it first, ``proposal.observed.fit(x)``. Weights average to p(x_o) whatever it is, and the better the
    closer it is to the density; where its tails are lighter the weights say so (``log_density(x).unreliable``). Of
    complete rows the bound is log p(x) itself. Nothing of this is needed where an autoregressive density lacks the last
    features of its order: the sum of its first conditionals is log p(x_o), exactly.

    Args:
        density: of points ``[*, D]``, unconditional.
        proposal: over the same points, with respect to the same measure.

    Raises:
        TypeError: something else than a density and a proposal.
        ValueError: they are over other numbers of features, of other measures, or the density is conditional.

    Cost: K passes of both for each row.

    >>> from flows import real_nvp
    >>> from lvm import EM
    >>> generator = torch.manual_seed(0)
    >>> x = torch.randn(200, 3, generator=generator).cumsum(1)
    >>> holes = torch.where(torch.rand(x.shape, generator=generator) < 0.3, torch.nan, x)
    >>> proposal = GaussianMixture(3, 1)
    >>> _ = proposal.observed.fit(holes, EM(progress=False))
    >>> model = MarginalBound(real_nvp(3, layers=2, hidden=(8,)), proposal)
    >>> history = model.fit(holes, Training(epochs=5, progress=False), draws=5, generator=generator)
    >>> model.log_density(holes, draws=100, generator=generator).kind
    <Kind.LOWER: 'lower bound'>
    """

    incomplete = True

    def __init__(self, density: Density, proposal: Proposal) -> None:
        super().__init__()
        if not isinstance(density, Density) or not isinstance(proposal, Proposal):
            raise TypeError(
                "MarginalBound takes a Density and a proposal that knows its conditionals, GaussianMixture, "
                f"FiniteMixture or PPCA; got {type(density).__name__} and {type(proposal).__name__}"
            )
        if density.context_features:
            raise ValueError(f"MarginalBound takes an unconditional density; {type(density).__name__} needs a context")
        if density.features != proposal.features or density.measure != proposal.measure:
            raise ValueError(
                f"MarginalBound: density and proposal must be over the same points; got {density.features} features, "
                f"{density.measure.words}, and {proposal.features} features, {proposal.measure.words}"
            )
        self.features, self.measure = density.features, density.measure
        self.density = density
        self.proposal = proposal

    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        """log p(x_o, x_m) − log q(x_m|x_o) at x_m ~ q: ``[draws, *batch]`` for x ``[*batch, D]``, nats.

        Differentiable in the density; the proposal is taken as it is.

        Raises:
            TypeError: the density or the proposal computes in another dtype or place than x; ``self.to(x)`` moves both.
        """
        draws, owner = check_count(draws, "draws"), type(self).__name__
        check_points(x, self.features, owner, reference=self.density.reference)
        check_points(x, self.features, f"{owner}'s proposal", reference=self.proposal.reference)
        rows = x.reshape(-1, self.features)
        with torch.no_grad():
            filled = self.proposal.observed.draw(rows, draws, generator=generator)
            log_q = self.proposal.log_prob(filled) - self.proposal.observed.log_prob(rows)
            log_q = log_q.masked_fill(~rows.isnan().any(-1), 0.0)  # not what rounding leaves of it
        return (self.density.log_prob(filled) - log_q).reshape(draws, *x.shape[:-1])

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        """The importance-weighted bound on log p(x_o) for data ``[n, D]``: a lower bound in expectation."""
        return importance(self, x, draws=draws, generator=generator)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Complete points ``[n, D]`` of the density."""
        return self.density.sample(n, generator=generator)

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        draws: int = 10,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise the bound of K draws on the mean log p(x_o) in the parameters of the density, by gradient steps.

        Args:
            x: rows ``[n, D]``, nan where an entry is missing: a tensor, or chunks (see ``VAE.fit``).
            training: see :class:`~density.fitting.training.Training`.
            draws: K. With one it is the density of rows that the proposal completes, which it then learns too.
            weights, validation: as in ``VAE.fit``.
            generator: of the draws and the order of rows.

        Raises:
            ValueError: unusable data.
            NonFiniteObjective: the objective overflowed; the last good weights are kept.

        Warns:
            TiedColumns: columns of integers, ties or copies, on which the likelihood has no maximum.
        """
        draws = check_count(draws, "draws")
        given = prepare(self, x, training, self._check_support, weights=weights, validation=validation)

        def bound(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            return self.log_weights(batch[0], draws, generator=generator).logsumexp(0) - math.log(draws)

        return given.maximise(self.density, bound, training, generator)

    def check_input(self, x: Tensor) -> None:
        check_incomplete(x, self.features, type(self).__name__, reference=self.density.reference)
        self._check_support(x)

    def _check_support(self, x: Tensor) -> None:
        """Raise ValueError where a complete row lies outside the density's support; of others the weights say it."""
        if len(complete := x[~x.isnan().any(-1)]):
            self.density.check_support(complete)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.density._initialise(StartingPoints.of(completed(x.rows, type(self).__name__), x.what), context)
