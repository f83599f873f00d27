"""Finite mixtures of products of families: tables whose columns are of several kinds, and binary ones."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from density.checks import check_settings, in_words
from density.data.chunks import Source
from density.data.rows import Rows
from density.families.categorical import Categorical
from density.families.likelihoods.exponential import ExponentialFamily
from density.families.likelihoods.likelihood import Likelihood
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.measure import in_ranges
from lvm.components import MixtureModel
from lvm.em import frozen
from lvm.finite_mixture.components import ProductComponents
from lvm.finite_mixture.fit import Problem
from lvm.finite_mixture.statistics import FiniteParameters
from lvm.mixture.covariance import CollapsedComponent
from lvm.mixture.em import EM
from lvm.mixture.starts import Given


class FiniteMixture(MixtureModel):
    r"""p(x) = Σ_k π_k ∏_j p_j(x_j|θ_kj): within a component columns are independent, each of a family of its own.

    .. math:: \log p(x) = \log\sum_k \exp\Big(\log\pi_k + \sum_j \log p_j(x_j|\theta_{kj})\Big)

    Of binary columns it is the Bernoulli mixture, of categories latent class analysis (Lazarsfeld & Henry 1968), of
    numbers the Gaussian mixture with diagonal covariances; of a table with all of these, one density with respect to
    the product of their measures. log p(x) and the posterior over components are exact sums.

    Args:
        features: D.
        components: K.
        likelihood: of every feature, or :class:`~density.families.composed.columns.Columns`, one for each.

    ``log_prob`` costs O(KN) a point, for N parameters of a component.

    >>> from density import BernoulliLikelihood, Category, Columns, GaussianLikelihood
    >>> generator = torch.Generator().manual_seed(0)
    >>> kind = torch.randint(2, (400, 1), generator=generator).float()
    >>> x = torch.cat([torch.randn(400, 1, generator=generator) + 4 * kind, 2 * kind, 1 - kind], 1)
    >>> model = FiniteMixture(3, 2, Columns([GaussianLikelihood(), Category(levels=3), BernoulliLikelihood()]))
    >>> history = model.fit(x, generator=generator)
    >>> model.log_density(x)
    log p(x) = -2.1673 ± 0.037 (data) nats, exact (sum over components), with respect to Lebesgue (column 0) × counting
    (columns 1-2), 400 points
    """

    decoder: ProductComponents

    def __init__(self, features: int, components: int, likelihood: Likelihood) -> None:
        super().__init__()
        if not isinstance(likelihood, Likelihood):
            raise TypeError(
                f"FiniteMixture takes a Likelihood, such as BernoulliLikelihood() or Columns([...]); got "
                f"{in_words(likelihood)}"
            )
        self.decoder = ProductComponents(features, components, likelihood)
        self.features, self.components = self.decoder.features, self.decoder.context_features
        self.prior = Categorical(self.components)
        self.measure = self.decoder.measure

    @property
    def parameter_count(self) -> int:
        """Free parameters: K − 1 weights, and those of every column in every component."""
        groups = self.decoder.groups
        each = sum(_freedom(group.likelihood) * len(group.columns) for group in groups)
        return self.components - 1 + self.components * each

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.weights @ self.decoder._expectation(self.prior.enumerate())

    def fit(
        self,
        x: Source,
        em: EM = EM(),
        *,
        smoothing: float = 1.0,
        weights: Tensor | None = None,
        generator: Generator | None = None,
    ) -> History:
        r"""Expectation maximisation, in float64 whatever the dtype of x. O(nKN) an iteration.

        The M-step matches moments, in closed form (Gaussian, Bernoulli, categorical, Poisson). Variances get the ridge
        of ``em.regularisation``, as those of :class:`~lvm.mixture.model.GaussianMixture` do; all other means are taken
        over the component's rows and some that are spread like the whole table. So nothing climbs without end, and no
        category is impossible that is among the levels; log p(x) may fall a little on the way.

        Parameters without ``requires_grad`` stay what they are: ``prior.logits``, ``decoder.numbers``.

        Args:
            x: points ``[n, D]``, n ≥ K: a tensor, or data in chunks (:class:`~density.data.chunks.Chunks`).
            em: settings. Starts cluster the rows: numbers in units of their standard deviation, categories as
                indicators.
            smoothing: α, of how many rows of the whole table a component sees beside its own; 0 for maximum likelihood.
            weights: of the rows ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.
            generator: of the starts, on the device of x.

        On several processes each works on its share of the rows; all end with the same parameters.

        Returns:
            History with the mean log p(x) before every M-step and after the last, weighted if the rows are.

        Raises:
            TypeError: the settings are of another algorithm, or a family's maximum has no closed form.
            ValueError: unusable data or weights, a value that no component can have, a constant column of numbers, or
                n < K.
            CollapsedComponent: (a ValueError) a variance became 0 in every start, as happens without regularisation.
        """
        self._check_settings(em, smoothing)
        rows = Rows(x, self.features, "FiniteMixture", weights)
        problem = Problem.of(self.decoder, rows, self._present(rows.like), em, float(smoothing), generator)
        climbed = problem.climb()
        self.to(rows.like)
        if climbed.parameters is not None:
            with torch.no_grad():
                self.prior.logits.copy_(climbed.parameters.logits)
                self.decoder.numbers.copy_(climbed.parameters.numbers)
        if climbed.error is not None:
            raise CollapsedComponent(climbed.error, climbed.history)
        return climbed.history

    def fit_by_gradient(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Gradient ascent on log p(x), for families whose maximum has no closed form.

        Args:
            x, training, weights, validation: see :meth:`lvm.vae.model.VAE.fit`.
        """
        given = prepare(self, x, training, self.check_support, weights=weights, validation=validation)
        return given.maximise(self, lambda batch, generator: self.log_prob(batch[0]), training, generator)

    @property
    def _open(self) -> list[str]:
        """The columns without a closed form."""
        return [
            f"{in_ranges(group.columns)} ({type(group.likelihood).__name__})"
            for group in self.decoder.groups
            if not isinstance(group.likelihood, ExponentialFamily)
        ]

    def _check_settings(self, em: EM, smoothing: float) -> None:
        check_settings(em, EM, "em", "lvm.EM()", "FiniteMixture.fit")
        if isinstance(em.start, Given):
            raise TypeError("FiniteMixture has no means to be given: set decoder.numbers and start from lvm.Present()")
        if not (math.isfinite(smoothing) and smoothing >= 0):
            raise ValueError(f"FiniteMixture expects smoothing to be finite and at least 0; got {smoothing}")
        if columns := self._open:
            raise TypeError(
                f"FiniteMixture: the maximum has no closed form in columns {', '.join(columns)}; fit by gradient, "
                "fit_by_gradient(x)"
            )

    @torch.no_grad()
    def _present(self, like: Tensor) -> FiniteParameters:
        """The parameters as a record of its own, in float64 on the device of the data: where EM goes on from."""
        logits, numbers = self.prior.logits, self.decoder.numbers
        fixed = frozen(logits=logits, numbers=numbers)
        return FiniteParameters(
            logits.to(like.device, torch.float64, copy=True), numbers.to(like.device, torch.float64, copy=True), fixed
        )


def _freedom(likelihood: Likelihood) -> int:
    return likelihood.freedom if isinstance(likelihood, ExponentialFamily) else likelihood.numbers
