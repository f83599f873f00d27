"""Finite mixtures of products of families: tables whose columns are of several kinds, and binary ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import SupportsIndex

import torch
from torch import Generator, Tensor

from density.checks import check_columns, check_settings, in_words
from density.data.chunks import Source
from density.data.rows import Rows
from density.families.categorical import Categorical
from density.families.likelihoods.exponential import ExponentialFamily
from density.families.likelihoods.likelihood import Likelihood
from density.fitting.fit_data import prepare
from density.fitting.training import Training
from density.history import History
from lvm.components import MixtureModel
from lvm.em import Climbed
from lvm.em_parameters import frozen
from lvm.finite_mixture.components import ProductComponents
from lvm.finite_mixture.fit import Problem
from lvm.finite_mixture.observed import ObservedFiniteMixture
from lvm.finite_mixture.statistics import FiniteParameters
from lvm.missing.columns import given_row
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

    def marginal(self, columns: Iterable[SupportsIndex]) -> FiniteMixture:
        """The mixture of some columns alone, whatever the others: p(x_o), in the order of the columns given.

        A model of its own; nothing is fitted. O(K|o|).

        Raises:
            TypeError: a family of which a component keeps more than its numbers, as those without a closed form may.
            ValueError: the columns are none, or not different ones of 0 … D − 1.

        >>> from density import BernoulliLikelihood
        >>> model = FiniteMixture(3, 2, BernoulliLikelihood())
        >>> model.marginal([2, 0]).expectation().equal(model.expectation()[[2, 0]])
        True
        """
        chosen = check_columns(columns, self.features, "marginal")
        if open_ := [group for group in self.decoder.groups if not isinstance(group.likelihood, ExponentialFamily)]:
            columns_of = "; ".join(f"{type(group.likelihood).__name__} in {list(group.columns)}" for group in open_)
            raise TypeError(f"marginal needs families with a closed form; got {columns_of}")
        likelihood, numbers = self.decoder.of_columns(chosen)
        model = FiniteMixture(len(chosen), self.components, likelihood).to(self.reference)
        with torch.no_grad():
            model.prior.logits.copy_(self.prior.logits)
            model.decoder.numbers.copy_(numbers)
        return model

    def conditional(self, columns: Iterable[SupportsIndex], values: Tensor) -> FiniteMixture:
        r"""The mixture of the other columns, in their order, where some have given values: p(x_m|x_o).

        .. math:: p(x_m|x_o) = \sum_k p(k|x_o)\, p(x_m|k)

        Args:
            columns: o, not all.
            values: x_o ``[|o|]``, in the order of the columns.

        A model of its own; nothing is fitted. O(KD).

        Raises:
            TypeError, ValueError: as :meth:`marginal`; all columns; values that no component can have, or that are not
                of that shape and the model's dtype.
        """
        row = given_row(columns, values, self.features, "conditional", self.reference)
        hidden = row.isnan()
        given = self.marginal((~hidden).nonzero().flatten().tolist())
        given.check_input(row[~hidden].unsqueeze(0))
        left = self.marginal(hidden.nonzero().flatten().tolist())
        with torch.no_grad():
            left.prior.logits.copy_(given.encoder.logits_at(row[~hidden]))
        return left

    @property
    def observed(self) -> ObservedFiniteMixture:
        """The mixture of data with missing entries: density, posterior, imputation and fit where nan means missing."""
        return ObservedFiniteMixture(self)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.weights @ self.decoder._expectation(self.prior.enumerate())

    def fit(
        self,
        x: Source,
        em: EM = EM(),
        *,
        smoothing: float = 1.0,
        training: Training = Training(),
        weights: Tensor | None = None,
        generator: Generator | None = None,
    ) -> History:
        r"""Expectation maximisation where every family's maximum has a closed form; else gradient ascent on log p(x).

        EM works in float64 whatever the dtype of x, O(nKN) an iteration. The M-step matches moments (Gaussian,
        Bernoulli, Poisson, categories). Variances get the ridge of ``em.regularisation``, as those of
        :class:`~lvm.mixture.model.GaussianMixture` do; all other means are taken over the component's rows and some
        that are spread like the whole table. So nothing climbs without end, and no category is impossible that is among
        the levels; log p(x) may fall a little on the way. Elsewhere scales are bounded as those of networks are.

        Parameters without ``requires_grad`` stay what they are: ``prior.logits``, ``decoder.numbers``.

        Args:
            x: points ``[n, D]``, n ≥ K: a tensor, or data in chunks (:class:`~density.data.chunks.Chunks`).
            em: settings of EM. Starts cluster the rows: numbers in units of their standard deviation, categories as
                indicators.
            smoothing: α, of how many rows of the whole table a component sees in EM beside its own; 0 for maximum
                likelihood.
            training: settings of the gradient ascent.
            weights: of the rows ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.
            generator: of the starts, or of the order of rows, on the device of x.

        On several processes each works on its share of the rows; all end with the same parameters.

        Returns:
            History with the mean log p(x), weighted if the rows are: of EM before every M-step and after the last.

        Raises:
            TypeError: settings of another algorithm.
            ValueError: unusable data or weights, or a value that no component can have; of EM also a constant column of
                numbers, or n < K.
            CollapsedComponent: (a ValueError) a variance became 0 in every start of EM, as happens without
                regularisation.
        """
        self.check_settings(em, smoothing, "FiniteMixture.fit")
        if not self._closed:
            given = prepare(self, x, training, self.check_support, weights=weights)
            return given.maximise(self, lambda batch, generator: self.log_prob(batch[0]), training, generator)
        rows = Rows(x, self.features, "FiniteMixture", weights)
        present = self.parameters_on(rows.like.device)
        problem = Problem.of(self.decoder, rows, present, em, float(smoothing), generator)
        return self.take(problem.climb(), rows.like)

    def take(self, climbed: Climbed[FiniteParameters], like: Tensor) -> History:
        """Go where a fit ended, in the dtype and on the device of its data; raise what it raised."""
        self.to(like)
        if climbed.parameters is not None:
            with torch.no_grad():
                self.prior.logits.copy_(climbed.parameters.logits)
                self.decoder.numbers.copy_(climbed.parameters.numbers)
        if climbed.error is not None:
            raise CollapsedComponent(climbed.error, climbed.history)
        return climbed.history

    @property
    def _closed(self) -> bool:
        return all(isinstance(group.likelihood, ExponentialFamily) for group in self.decoder.groups)

    def check_settings(self, em: EM, smoothing: float, owner: str) -> None:
        """Raise unless they are settings of EM that this model can be fitted by."""
        check_settings(em, EM, "em", "lvm.EM()", owner)
        if isinstance(em.start, Given):
            raise TypeError("FiniteMixture has no means to be given: set decoder.numbers and start from lvm.Present()")
        if not (math.isfinite(smoothing) and smoothing >= 0):
            raise ValueError(f"FiniteMixture expects smoothing to be finite and at least 0; got {smoothing}")

    @torch.no_grad()
    def parameters_on(self, device: torch.device) -> FiniteParameters:
        """The parameters as a record of its own, in float64 on the device of the data: where EM goes on from."""
        logits, numbers = self.prior.logits, self.decoder.numbers
        fixed = frozen(logits=logits, numbers=numbers)
        return FiniteParameters(
            logits.to(device, torch.float64, copy=True), numbers.to(device, torch.float64, copy=True), fixed
        )


def _freedom(likelihood: Likelihood) -> int:
    return likelihood.freedom if isinstance(likelihood, ExponentialFamily) else likelihood.numbers
