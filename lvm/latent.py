r"""Latent-variable models as layers: a prior and a link.

A :class:`~lvm.links.Link` is encoder and decoder as one object that returns one log-ratio. That is what makes a delta
encoder expressible: log p(x|z) and log q(z|x) may each be infinite while their difference is finite. A
:class:`LatentVariableModel` is the case where both exist as densities.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator, Tensor

from density.checks import check_count, check_data, check_points
from density.contract import Bound, Density, ExactModel
from density.families.gaussian import GaussianFamily
from density.families.kl import kl
from density.fitting.fit_data import FitData, FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.importance.bound import importance
from density.initialisation import UNKNOWN, StartingPoints
from density.log_density import LogDensity
from density.own_precision import in_own_precision
from density.support import Step, preimage
from lvm.links import Link, StochasticLink, check_pair, check_size


class LayeredModel(Bound, ABC):
    """A model p(x) = ∫ p(z) p(x|z) dz, given as a prior and a link: log-weight = log p(z) + log-ratio."""

    prior: Density

    @property
    @abstractmethod
    def link(self) -> Link:
        """Encoder and decoder as one layer."""

    @in_own_precision
    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        draws = check_count(draws, "draws")
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        link = self.link
        if link.deterministic:
            return self._log_weight(x).expand(draws, *x.shape[:-1])
        z, log_ratio = link.infer(x, draws, generator=generator)
        return self.prior.log_prob(z) + log_ratio

    @in_own_precision
    def elbo(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> Tensor:
        if not self.link.deterministic:
            return super().elbo(x, draws=draws, generator=generator)
        check_count(draws, "draws")
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        return self._log_weight(x)  # and no mean over copies of it, which would round

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        """The importance-weighted bound (Burda et al. 2016) with that many draws: a lower bound in expectation."""
        return importance(self, x, draws=draws, generator=generator)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """x ~ p(x|z) with z ~ p(z): ``[n, D]``."""
        return self.link.generate(self.prior.sample(n, generator=generator), generator=generator)

    def check_input(self, x: Tensor) -> None:
        check_data(x, self.features, type(self).__name__, reference=self.prior.reference)
        self._check_support(x)

    def _log_weight(self, x: Tensor) -> Tensor:
        """The log-weight ``[*batch]`` of a latent that is not drawn: with a tight link, log p(x)."""
        z, log_ratio = self.link.infer_once(x)
        return self.prior.log_prob(z) + log_ratio

    def _maximise_elbo(self, given: FitData, training: Training, draws: int, generator: Generator | None) -> History:
        """Gradient steps on the ELBO."""

        def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            return self.elbo(batch[0], draws=draws, generator=generator)

        return given.maximise(self, objective, training, generator)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        # Its own draws: a start is a function of model and data, and leaves other streams of random numbers alone.
        generator = Generator(self.prior.reference.device).manual_seed(0)
        self.prior._initialise(self.link._initialise(x, generator), UNKNOWN)

    def _check_support(self, x: Tensor) -> None:
        """Raise ValueError where no z leads to x ``[n, D]``, or one alone that the prior does not have."""
        link, prior = self.link, self.prior
        link.check_support(x)
        if link.deterministic:
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
        draws: int = 1,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise the ELBO of x ``[n, D]`` by gradient, from :meth:`initialise`.

        Where the link is tight, this is maximum likelihood, and one draw as good as many.

        Args:
            x, training, weights, validation: see :meth:`lvm.vae.model.VAE.fit`.
            draws: latent draws a point and step, through which the ELBO is differentiated.

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
        given = prepare(self, x, training, self._check_support, weights=weights, validation=validation)
        return self._maximise_elbo(given, training, draws, generator)


class ExactLayeredModel(ExactModel, LinkedModel):
    """A layered model whose link is tight: every log-weight *is* log p(x), and the model is a density.

    Args:
        prior: over the latent.
        link: a tight link.
        method: how log p(x) comes about, in words; by the tight log-weight of its link if None.

    Raises:
        ValueError: the link is loose, so that log-weights are only bounds; or as for :class:`LinkedModel`.
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
        return self._log_weight(x)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return LayeredModel.sample(self, n, generator=generator)


@dataclass(frozen=True, eq=False)
class ElboTerms:
    """The two terms of the ELBO, each ``[*batch]``, nats.

    Attributes:
        reconstruction: E_q log p(x|z), by sampling.
        kl: KL(q(z|x) ‖ p(z)), in closed form where one exists, by the same draws otherwise.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        return self.reconstruction - self.kl


class LatentVariableModel(LayeredModel, ABC):
    r"""A model p(x) = ∫ p(z) p(x|z) dz with an approximate posterior q(z|x): three densities.

    Subclasses provide ``prior`` over z, ``encoder`` over z given x and ``decoder`` over x given z.
    """

    encoder: Density
    decoder: Density

    @property
    def link(self) -> StochasticLink:
        return StochasticLink(self.encoder, self.decoder)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) at any z, differentiable in z; batch shapes of x ``[*batch, D]`` and z ``[*, d]`` broadcast."""
        return self.prior.log_prob(z) + self.decoder.log_prob(x, z)

    @in_own_precision
    def elbo_terms(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> ElboTerms:
        r"""Reconstruction and KL term for x ``[*batch, D]``.

        .. math:: \mathcal L(x) = E_q \log p(x|z) - KL(q(z|x) \,\|\, p(z))
        """
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        z, divergence = self.draw_latents(x, draws, generator=generator)
        return ElboTerms(self.decoder.log_prob(x, z).mean(0), divergence)

    @in_own_precision
    def draw_latents(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x) ``[draws, *batch, d]`` and KL(q(z|x) ‖ p(z)) ``[*batch]``; a Gaussian encoder runs once for both.

        The KL is in closed form where one exists, and by the same draws otherwise.
        """
        draws = check_count(draws, "draws")
        if isinstance(self.encoder, GaussianFamily):
            q = self.encoder.given(x)
            z, log_q = q._sample_with_log_prob(draws, None, generator)
            divergence = kl(q, self.prior)
        else:
            z, log_q = self.encoder.sample_with_log_prob(draws, context=x, generator=generator)
            divergence = kl(self.encoder, self.prior, x)
        return z, (log_q - self.prior.log_prob(z)).mean(0) if divergence is None else divergence

    def elbo(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> Tensor:
        """Unbiased estimate of the ELBO ``[*batch]``, with the KL in closed form where one exists.

        To train with it in a loop of your own, call :meth:`initialise` first, as ``fit`` does.
        """
        return self.elbo_terms(x, draws=draws, generator=generator).elbo

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """x ~ p(x|z) with z ~ p(z): ``[n, D]``. The encoder is not needed."""
        z = self.prior.sample(n, generator=generator)
        return self.decoder.sample(1, context=z, generator=generator).squeeze(0)

    def encode(self, x: Tensor) -> Tensor:
        """E_q[z|x], the mean of the encoder: ``[*batch, d]`` for x ``[*batch, D]``.

        Raises:
            TypeError: the encoder's mean has no closed form; draw from it with ``encoder.sample``.
        """
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        return self.encoder.expectation(x)

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z], the mean of the decoder: ``[*batch, D]`` for z ``[*batch, d]``.

        Raises:
            TypeError: the decoder's mean has no closed form; draw from it with ``decoder.sample``.
        """
        check_points(z, self.prior.features, f"{type(self).__name__}.decode", reference=self.prior.reference)
        return self.decoder.expectation(z)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The decoder's mean at the encoder's, decode(encode(x)): ``[*batch, D]``."""
        return self.decode(self.encode(x))


class ExactLatentVariableModel(ExactModel, LatentVariableModel, ABC):
    """A latent-variable model that knows its marginal, log p(x), beside the log-weights that bound it."""

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return LatentVariableModel.sample(self, n, generator=generator)


class CountedModel(ExactLatentVariableModel, ABC):
    """An exact latent-variable model that counts its free parameters, and so has information criteria."""

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """Free parameters."""

    def bic(self, x: Tensor) -> float:
        """Bayesian information criterion k log n − 2 Σ log p(x), k the :attr:`parameter_count`; lower is better."""
        return self._deviance(x) + self.parameter_count * math.log(x.shape[0])

    def aic(self, x: Tensor) -> float:
        """Akaike information criterion 2k − 2 Σ log p(x), k the :attr:`parameter_count`; lower is better."""
        return self._deviance(x) + 2 * self.parameter_count

    def _deviance(self, x: Tensor) -> float:
        return -2 * self.log_density(x).value.double().sum().item()


def check_three(prior: Density, encoder: Density, decoder: Density) -> None:
    """Raise unless prior, encoder and decoder are densities over the same latent and data."""
    for name, density in (("prior", prior), ("encoder", encoder), ("decoder", decoder)):
        if not isinstance(density, Density):
            raise TypeError(
                f"the {name} must be a Density; got {type(density).__name__}. A network becomes one as "
                "ConditionalGaussian(network, features, context_features) or ConditionalBernoulli(...)"
            )
    check_pair(encoder, decoder)
    check_size(prior, encoder.features, "the latent")
