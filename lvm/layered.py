r"""Layered models: a prior and a link.

A :class:`~lvm.links.Link` is encoder and decoder as one object that returns one log-ratio. That is what makes a delta
encoder expressible: log p(x|z) and log q(z|x) may each be infinite while their difference is finite.

A conditional model, of p(x|c), has one mechanism: **rows**, each point with its context behind it, as the parts see it.
They are made once a call, and are cut, repeated and paired with latents as points are; an unconditional model's rows
are its points.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from density.checks import check_batches, check_context, check_count, check_data, check_points
from density.contract import Bound, Density, ExactModel
from density.data.joined import joined, parted
from density.fitting.fit_data import FitData, FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.importance.bound import importance
from density.initialisation import UNKNOWN, StartingPoints
from density.log_density import LogDensity
from density.own_precision import in_own_precision
from density.support import Step, preimage
from lvm.links import Link


class LayeredModel(Bound, ABC):
    """A model p(x) = ∫ p(z) p(x|z) dz, given as a prior and a link: log-weight = log p(z) + log-ratio.

    Of p(x|c) = ∫ p(z|c) p(x|z, c) dz where ``context_features`` is not 0; then every method takes contexts.

    >>> import torch
    >>> from lvm import PPCA
    >>> model, x = PPCA(3, 1), torch.zeros(2, 3)
    >>> model.log_weights(x, 5).allclose(model.log_prob(x).expand(5, 2), atol=1e-5)  # its q is the posterior
    True
    """

    prior: Density

    @property
    @abstractmethod
    def link(self) -> Link:
        """Encoder and decoder as one layer."""

    @in_own_precision
    def log_weights(
        self, x: Tensor, draws: int, *, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """log p(z) + log p(x|z) − log q(z|x) at z ~ q(z|x): ``[draws, *batch]`` for x ``[*batch, D]``, nats.

        Of a conditional model log p(z|c) + log p(x|z, c) − log q(z|x, c), at contexts ``[*batch, C]``; batch shapes
        broadcast. Pathwise differentiable where q is reparametrised.
        """
        draws = check_count(draws, "draws")
        rows = self._rows(x, context)
        link = self.link
        if link.deterministic:
            return self._log_weight(rows).expand(draws, *rows.shape[:-1])
        z, log_ratio = link.infer(rows, draws, generator=generator)
        return self._log_prior(z, rows) + log_ratio

    @in_own_precision
    def elbo(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """Unbiased estimate of the ELBO, the mean log-weight: ``[*batch]``, nats, differentiable.

        To train with it in a loop of your own, call :meth:`initialise` first, as ``fit`` does.
        """
        if not self.link.deterministic:
            return self.log_weights(x, draws, context=context, generator=generator).mean(0)
        check_count(draws, "draws")
        return self._log_weight(self._rows(x, context))  # and no mean over copies of it, which would round

    def log_density(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1000, generator: Generator | None = None
    ) -> LogDensity:
        """The importance-weighted bound (Burda et al. 2016) with that many draws: a lower bound in expectation.

        For points ``[n, D]``, and contexts ``[n, C]`` of a conditional model.
        """
        return importance(self, x, context=context, draws=draws, generator=generator)

    def sample(self, n: int, *, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """x ~ p(x|z) with z ~ p(z): ``[n, D]``; of a conditional model, ``[n, *batch, D]`` at ``[*batch, C]``."""
        z, seen = self._latents(n, context, generator)
        return self.link.generate(joined(z, seen), generator=generator)

    def check_input(self, x: Tensor) -> None:
        check_data(x, self.features, type(self).__name__, reference=self.prior.reference)
        self._check_support(x)

    def _rows(self, x: Tensor, context: Tensor | None, owner: str | None = None) -> Tensor:
        """Points ``[*batch, D]``, checked; of a conditional model with their contexts behind them, as its parts see
        these. Errors name the owner, or the model.
        """
        name, reference = owner or type(self).__name__, self.prior.reference
        check_points(x, self.features, name, reference=reference)
        check_context(context, self.context_features, name, reference=reference)
        check_batches(x, context, name)
        return joined(x, self._seen(context))

    def _data_rows(self, x: Tensor, context: Tensor | None) -> Tensor:
        """:meth:`_rows` of data ``[n, D]`` and contexts ``[n, C]`` that this model can have produced; no gradients."""
        self._check_asked(x, context)
        with torch.no_grad():
            return self._rows(x, context)

    def _seen(self, context: Tensor | None) -> Tensor | None:
        """Contexts as prior and link see them."""
        return None if context is None else self._embedded(context)

    def _embedded(self, context: Tensor) -> Tensor:
        """What a network of the model makes of contexts ``[*batch, C]``; without one, the contexts."""
        return context

    def _start_embedding(self, context: StartingPoints) -> StartingPoints:
        """Set what that network takes from contexts; what it makes of them."""
        return context

    def _prior_context(self, rows: Tensor) -> Tensor | None:
        """What the prior is asked about at rows: their contexts, if it is conditional."""
        return parted(rows, self.features)[1] if self.prior.context_features else None

    def _log_prior(self, z: Tensor, rows: Tensor) -> Tensor:
        """log p(z), or log p(z|c) at the contexts of rows; batch shapes broadcast."""
        return self.prior.log_prob(z, self._prior_context(rows))

    def _prior_draws(self, draws: int, rows: Tensor, generator: Generator | None) -> Tensor:
        """z ~ p(z), or p(z|c) at the contexts of rows ``[n, *]``: ``[draws, n, d]``."""
        return self._drawn_prior(draws, self._prior_context(rows), rows.shape[:-1], generator)

    def _latents(self, n: int, context: Tensor | None, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        """z ~ p(z|c), n for each context: ``[n, *batch, d]``; and the contexts as the parts see them."""
        n, prior = check_count(n, "n"), self.prior
        check_context(context, self.context_features, type(self).__name__, reference=prior.reference)
        seen = self._seen(context)
        if seen is None:
            return prior.sample(n, generator=generator), None
        return self._drawn_prior(n, seen if prior.context_features else None, seen.shape[:-1], generator), seen

    @in_own_precision
    def _drawn_prior(
        self, n: int, context: Tensor | None, batch: tuple[int, ...], generator: Generator | None
    ) -> Tensor:
        if context is not None:
            return self.prior.sample(n, context=context, generator=generator)
        z = self.prior._sample(n * math.prod(batch), None, generator)  # no contexts have no draws
        return z.reshape(n, *batch, self.prior.features)

    def _log_weight(self, rows: Tensor) -> Tensor:
        """The log-weight ``[*batch]`` of a latent that is not drawn: with a tight link, log p(x)."""
        z, log_ratio = self.link.infer_once(rows)
        return self._log_prior(z, rows) + log_ratio

    def _log_weights(self, rows: Tensor, draws: int, generator: Generator | None) -> Tensor:
        if not self.context_features:
            return super()._log_weights(rows, draws, generator)
        x, context = parted(rows, self.features)
        return self.log_weights(x, draws, context=context, generator=generator)

    def _maximise_elbo(
        self,
        given: FitData,
        training: Training,
        draws: int,
        generator: Generator | None,
        importance_weighted: bool = False,
    ) -> History:
        """Gradient steps on the ELBO, or on the importance-weighted bound of so many draws."""

        def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            x, *contexts = batch
            context = contexts[0] if contexts else None
            if not importance_weighted:
                return self.elbo(x, context=context, draws=draws, generator=generator)
            log_weights = self.log_weights(x, draws, context=context, generator=generator)
            return log_weights.logsumexp(0) - math.log(draws)

        return given.maximise(self, objective, training, generator)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        # Its own draws: a start is a function of model and data, and leaves other streams of random numbers alone.
        generator = Generator(self.prior.reference.device).manual_seed(0)
        seen = self._start_embedding(context)
        z = self.link._initialise(x, seen, generator)
        self.prior._initialise(z, seen if self.prior.context_features else UNKNOWN)

    def _check_support(self, x: Tensor) -> None:
        """Raise ValueError where no z leads to x ``[n, D]``, or one alone that the prior does not have."""
        link, prior = self.link, self.prior
        link.check_support(x)
        if link.deterministic and not link.context_features:
            through = Step(link.description, None, lambda x: link.infer_once(x)[0])
            below = preimage([through, Step(f"the prior {type(prior).__name__}", prior.support)])
            if below is not None:
                below.check(x, type(self).__name__)


class LinkedModel(LayeredModel):
    """A layered model that holds a prior and a link as its parts.

    Args:
        prior: over the latent.
        link: encoder and decoder as one layer.

    Raises:
        TypeError: not a Density and a Link.
        ValueError: the prior does not fit the link: its size, its measure, or its range.

    >>> from torch import nn
    >>> from density import ConditionalGaussian, StandardNormal
    >>> from lvm import StochasticLink
    >>> link = StochasticLink(ConditionalGaussian(nn.Linear(3, 2), 1, 3), ConditionalGaussian(nn.Linear(1, 6), 3, 1))
    >>> LinkedModel(StandardNormal(1), link).sample(5).shape
    torch.Size([5, 3])
    """

    def __init__(self, prior: Density, link: Link) -> None:
        super().__init__()
        if not isinstance(prior, Density) or not isinstance(link, Link):
            raise TypeError(
                f"a layered model takes a prior Density and a Link, in this order; got {type(prior).__name__} and "
                f"{type(link).__name__}"
            )
        link.check_prior(prior)
        self.features = link.features
        self.context_features = link.context_features
        self.measure = link.measure
        self.prior = prior
        self.layer = link

    @property
    def link(self) -> Link:
        return self.layer

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        context: Tensor | None = None,
        draws: int = 1,
        importance_weighted: bool = False,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise the ELBO of x ``[n, D]`` by gradient, from :meth:`initialise`; or the importance-weighted bound.

        Where the link is tight, both are maximum likelihood, and one draw as good as many.

        Args:
            x, training, context, weights, validation: see :meth:`lvm.vae.model.VAE.fit`.
            draws: latent draws K a point and step, through which the bound is differentiated.
            importance_weighted: average weights before the logarithm, log 1/K Σ w, rather than log-weights (Burda et
                al. 2016; of the noise of a dequantisation, Hoogeboom et al. 2021). A tighter bound, near to maximum
                likelihood for large K, whose gradient tells the encoder less (Rainforth et al. 2018).

        Raises:
            TypeError: an encoder with parameters draws discrete values, through which no gradient passes.
            ValueError: unusable data, or data in other units than those of an earlier fit (:meth:`initialise`).
            NonFiniteObjective: the objective overflowed; the last good weights are kept.

        Warns:
            TiedColumns: columns of integers, ties or copies, on which the likelihood has no maximum.
        """
        draws = check_count(draws, "draws")
        for link in self.layer.links:
            link.check_pathwise()
        given = prepare(self, x, training, self._check_support, context=context, weights=weights, validation=validation)
        return self._maximise_elbo(given, training, draws, generator, importance_weighted)


class ExactLayeredModel(ExactModel, LinkedModel):
    """A layered model whose link is tight: every log-weight *is* log p(x), and the model is a density.

    Args:
        prior: over the latent.
        link: a tight link.
        method: how log p(x) comes about, in words; by the tight log-weight of its link if None.

    Raises:
        ValueError: the link is loose, so that log-weights are only bounds; or as for :class:`LinkedModel`.

    >>> import torch
    >>> from density import StandardNormal
    >>> class Half(Link):
    ...     features = latent_features = 1
    ...     tight = deterministic = True
    ...
    ...     def infer(self, x, draws=1, *, generator=None):
    ...         z = (x / 2).expand(draws, *x.shape)
    ...         return z, torch.full(z.shape[:-1], 0.5).log()
    ...
    ...     def generate(self, z, *, generator=None):
    ...         return 2 * z
    >>> model = ExactLayeredModel(StandardNormal(1), Half())
    >>> round(model.log_prob(torch.zeros(1)).item(), 4)  # log N(0; 0, 4)
    -1.6121
    """

    def __init__(self, prior: Density, link: Link, method: str | None = None) -> None:
        super().__init__(prior, link)
        if not link.tight:
            raise ValueError(
                f"{type(link).__name__} is not tight: its log-weights bound log p(x) and are not it. "
                "Use a LayeredModel that is no Density, and ask it for elbo or log_density"
            )
        self._method = f"tight log-weight of {link.description}" if method is None else method

    @property
    def method(self) -> str:
        return self._method

    def check_support(self, x: Tensor) -> None:
        self._check_support(x)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._log_weight(joined(x, self._seen(context)))

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return LayeredModel.sample(self, n, context=context, generator=generator)
