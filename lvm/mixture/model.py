"""Gaussian mixtures, fitted by expectation maximisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import SupportsIndex

import torch
from torch import Generator, Tensor

from density.checks import check_columns, check_count, check_points, check_settings, in_words
from density.data.chunks import Source
from density.data.rows import Rows
from density.families.categorical import Categorical
from density.history import History
from lvm.components import MixtureModel
from lvm.em import Climbed
from lvm.em_parameters import frozen
from lvm.missing.columns import given_row
from lvm.mixture.completion import conditioned
from lvm.mixture.components import Components
from lvm.mixture.covariance import CollapsedComponent, Covariance, Full
from lvm.mixture.em import EM
from lvm.mixture.expectation import of_all_rows
from lvm.mixture.fit import Algorithm, Problem
from lvm.mixture.observed import ObservedMixture
from lvm.mixture.parameters import MixtureParameters, checked
from lvm.mixture.statistics import Statistics


class GaussianMixture(MixtureModel):
    r"""p(x) = Σ_k π_k N(x; μ_k, Σ_k), the latent-variable model whose latent is the one-hot component.

    .. math:: \log p(x) = \log\sum_k \exp\big(\log\pi_k + \log N(x; \mu_k, \Sigma_k)\big)

    The posterior is known, :math:`r_k(x) = \pi_k N(x;\mu_k,\Sigma_k) / p(x)`, and is the encoder: the log-weight is
    log p(x) for every z, the gap is 0, and EM (Dempster, Laird & Rubin 1977; Bishop 2006, section 9.2) climbs log p(x).
    Parameters are unconstrained (logits, means, log-standard-deviations or Cholesky factors): gradient ascent on
    ``log_prob`` works as well. Draws are pathwise in means and covariances, not in the weights.

    Args:
        features: D.
        components: K.
        covariance: :class:`~lvm.mixture.covariance.Full`, ``Tied``, ``Diagonal`` or ``Spherical``.

    ``log_prob`` costs O(KD²) a point (full, tied) or O(KD).

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(400, 2, generator=generator) + 4 * (torch.arange(400) % 2).unsqueeze(1)
    >>> model = GaussianMixture(2, components=2)
    >>> history = model.fit(x, generator=generator)
    >>> model.log_density(x)
    log p(x) = -3.5216 ± 0.055 (data) nats, exact (sum over components), Lebesgue measure, 400 points
    >>> model.predict(torch.tensor([[0.0, 0.0], [4.0, 4.0]])).unique().numel()
    2
    """

    decoder: Components

    def __init__(self, features: int, components: int, covariance: Covariance = Full()) -> None:
        super().__init__()
        features = check_count(features, "features")
        components = check_count(components, "components")
        if not isinstance(covariance, Covariance):
            raise TypeError(f"covariance must be Full(), Tied(), Diagonal() or Spherical(); got {in_words(covariance)}")
        self.features = features
        self.components = components
        self.prior = Categorical(components)
        self.decoder = Components(features, components, covariance)
        self.measure = self.decoder.measure

    @classmethod
    def from_parameters(
        cls,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        covariance: Covariance = Full(),
    ) -> GaussianMixture:
        """The mixture with given weights ``[K]``, means ``[K, D]`` and covariances in the structure's shape.

        Raises:
            ValueError: weights are no probabilities, covariances not positive definite, or shapes do not fit.
        """
        check_points(means, None, cls.__name__)
        if means.ndim != 2:
            raise ValueError(f"means must have the shape [K, D]; got {list(means.shape)}")
        model = cls(means.shape[1], means.shape[0], covariance).to(means)
        model.set_parameters(checked(covariance, weights, means, covariances, *means.shape))
        return model

    @property
    def observed(self) -> ObservedMixture:
        """The mixture of data with missing entries: density, posterior, imputation and fit where nan means missing."""
        return ObservedMixture(self)

    def marginal(self, columns: Iterable[SupportsIndex]) -> GaussianMixture:
        """The mixture of some features alone, whatever the others: p(x_o), in the order of the columns given.

        A model of its own, of the same covariance structure; nothing is fitted. O(K|o|³), or O(K|o|) if diagonal.

        Raises:
            ValueError: the columns are none, or not different ones of 0 … D − 1.

        >>> model = GaussianMixture.from_parameters(torch.ones(1), torch.tensor([[1.0, 2.0, 3.0]]), torch.eye(3)[None])
        >>> model.marginal([2, 0]).means.tolist()
        [[3.0, 1.0]]
        """
        return self._having(self.in_float64().of_columns(check_columns(columns, self.features, "marginal")))

    def conditional(self, columns: Iterable[SupportsIndex], values: Tensor) -> GaussianMixture:
        r"""The mixture of the other features, in their order, where some have given values: p(x_m|x_o).

        .. math:: p(x_m|x_o) = \sum_k p(k|x_o)\, N(x_m; \mu_{k,m} + \Sigma_{k,mo}\Sigma_{k,oo}^{-1}(x_o - \mu_{k,o}),
                  \Sigma_{k,mm} - \Sigma_{k,mo}\Sigma_{k,oo}^{-1}\Sigma_{k,om})

        Args:
            columns: o, not all.
            values: x_o ``[|o|]``, in the order of the columns.

        A model of its own, of the same covariance structure; nothing is fitted. O(KD³), or O(KD) if diagonal.

        Raises:
            TypeError, ValueError: the columns are none, all or not different ones of 0 … D − 1, or the values are not
                finite, or not of that shape and the model's dtype.

        >>> covariances = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]])
        >>> model = GaussianMixture.from_parameters(torch.ones(1), torch.zeros(1, 2), covariances)
        >>> other = model.conditional([0], torch.tensor([2.0]))
        >>> other.means.item(), other.covariances.item()
        (1.0, 0.75)
        """
        row = given_row(columns, values, self.features, "conditional", self.reference)
        return self._having(conditioned(self.in_float64(), row))

    @torch.no_grad()
    def _having(self, parameters: MixtureParameters) -> GaussianMixture:
        """Another mixture, with these parameters, in this one's dtype."""
        model = GaussianMixture(parameters.means.shape[1], self.components, self.covariance).to(self.reference)
        model.set_parameters(parameters)
        return model

    @property
    def covariance(self) -> Covariance:
        """The structure of the covariances."""
        return self.decoder.covariance

    @property
    def means(self) -> Tensor:
        """μ, ``[K, D]``."""
        return self.decoder.means

    @property
    def covariances(self) -> Tensor:
        """Σ: ``[K, D, D]`` (full), ``[D, D]`` (tied), variances ``[K, D]`` (diagonal) or ``[K]`` (spherical)."""
        return self.covariance.unpack(self.decoder.factor)

    @property
    def parameter_count(self) -> int:
        """Free parameters: K − 1 weights, K D means, and the covariances."""
        of_covariances = self.covariance.parameter_count(self.components, self.features)
        return self.components - 1 + self.means.numel() + of_covariances

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.weights @ self.means

    def fit(
        self,
        x: Source,
        em: Algorithm = EM(),
        *,
        weights: Tensor | None = None,
        generator: Generator | None = None,
    ) -> History:
        r"""Expectation maximisation, in float64 whatever the dtype of x. O(nKD²) an iteration (full) or O(nKD).

        Without regularisation log p(x) never decreases. With R > 0 the M-step maximises
        :math:`\sum_{ik} r_{ik}\,(\log\pi_k + \log N(x_i;\mu_k,\Sigma_k) - \tfrac12\operatorname{tr}\Sigma_k^{-1}R)`,
        the expected value after adding noise of covariance R to the data, and log p(x) may fall a little on the way.
        A component whose total responsibility underflows keeps its mean and covariance, with a weight near 0.

        Parameters without ``requires_grad`` stay what they are: the weights (``prior.logits``), the means
        (``decoder.means``), the covariances (``decoder.factor``). The M-step is the maximum over the others; where the
        means stay, starts are made from the rows next to each. Such a fit does not look for a way up from a saddle.

        Args:
            x: points ``[n, D]``, n ≥ K: a tensor, or data in chunks: whatever :class:`~density.data.chunks.Chunks`
                reads. Of data in chunks no more than a chunk is held, and starts are made from 2¹⁶ rows drawn at
                random.
            em: :class:`~lvm.mixture.em.EM` or :class:`~lvm.mixture.stochastic_em.StochasticEM`, with its settings.
            weights: of the rows, in their order, ``[n]``, not negative: 3 is the row three times, 0 a row that is not
                there. Data in chunks may bring them along, ``Chunks(loader, weighted=True)``.
            generator: of the starts, on the device of x.

        On several processes each works on its share of the rows; all end with the same parameters.

        Returns:
            History with the mean log p(x) before every M-step and after the last, weighted if the rows are.

        Raises:
            TypeError: ``em`` is none of the two, or x no data.
            ValueError: unusable data or weights, n < K, or given parameters that do not fit.
            CollapsedComponent: (a ValueError) a component collapsed in every start, as happens without regularisation,
                where the likelihood is unbounded; the model holds the last parameters before that.
        """
        check_settings(em, Algorithm, "em", "lvm.EM() or lvm.StochasticEM()", "GaussianMixture.fit")
        rows = Rows(x, self.features, "GaussianMixture", weights)
        present = self.parameters_on(rows.like.device)
        return self.take(em.climb(Problem.of(rows, rows, present, em, generator)), rows.like)

    def em_step(
        self, x: Source, *, weights: Tensor | None = None, ridge: Tensor | float = 0.0, rows_at_once: int | None = None
    ) -> float:
        """One E-step and one M-step; returns the mean log p(x) before it, nats per point."""
        statistics = self.summarise(x, weights, rows_at_once=rows_at_once)
        self.update(statistics, ridge=ridge)
        return statistics.mean_log_likelihood

    @torch.no_grad()
    def summarise(self, x: Source, weights: Tensor | None = None, *, rows_at_once: int | None = None) -> Statistics:
        """E-step: the statistics of x under the present parameters, in float64, in chunks of rows.

        They add: ``model.update(model.summarise(x) + model.summarise(y))`` is the EM step on both. On several processes
        each reads its share, and all get the sum.
        """
        rows = Rows(x, self.features, "GaussianMixture", weights)
        return of_all_rows(self.parameters_on(rows.like.device), rows, rows_at_once=rows_at_once)

    def update(self, statistics: Statistics, *, ridge: Tensor | float = 0.0) -> None:
        """M-step: the parameters that maximise the expected log-joint of these statistics, regularised as in ``fit``.

        Args:
            ridge: R, a variance or one for each feature, ``[D]``.

        Raises:
            CollapsedComponent: a covariance would be singular; the parameters stay what they were.
        """
        before = self.parameters_on(statistics.mean.device)
        ridge = torch.as_tensor(ridge, dtype=before.means.dtype, device=before.means.device).expand(self.features)
        after = statistics.maximise(before, ridge)
        after.require_regular()
        self.set_parameters(after)

    def in_float64(self) -> MixtureParameters:
        """The parameters as a record, in float64, differentiable."""
        decoder = self.decoder
        return MixtureParameters(
            self.covariance, self.prior.logits.double(), decoder.means.double(), decoder.factor.double()
        )

    @torch.no_grad()
    def parameters_on(self, device: torch.device) -> MixtureParameters:
        """The parameters as a record of its own, in float64 on a device: where EM goes on from."""
        fixed = frozen(logits=self.prior.logits, means=self.decoder.means, factor=self.decoder.factor)
        present = replace(self.in_float64(), fixed=fixed)
        return present.having(*(tensor.to(device, copy=True) for tensor in present.tensors()))

    @torch.no_grad()
    def set_parameters(self, parameters: MixtureParameters) -> None:
        """Take over logits, means and factor, rounded to the model's dtype."""
        self.prior.logits.copy_(parameters.logits)
        self.decoder.means.copy_(parameters.means)
        self.decoder.factor.copy_(parameters.factor)

    def take(self, climbed: Climbed[MixtureParameters], like: Tensor) -> History:
        """Move to the dtype and device of the data, and to where a fit ended.

        Raises:
            CollapsedComponent: that is what ended every start; the parameters are the last before it.
        """
        self.to(like)
        if climbed.parameters is not None:
            self.set_parameters(climbed.parameters)
        if climbed.error is not None:
            raise CollapsedComponent(climbed.error, climbed.history)
        return climbed.history
