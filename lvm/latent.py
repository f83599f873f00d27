"""Latent-variable models: a prior, an encoder and a decoder, each of them a density."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator, Tensor

from density.checks import check_context, check_count, check_points
from density.contract import Density, ExactModel
from density.data.joined import joined
from density.data.states import Alphabet
from density.families.gaussian import GaussianFamily
from density.families.kl import kl
from density.own_precision import in_own_precision
from density.support import Support
from lvm.layered import LayeredModel
from lvm.links import StochasticLink, check_pair, check_size, log_likelihood


@dataclass(frozen=True, eq=False)
class ElboTerms:
    """The two terms of the ELBO, each ``[*batch]``, nats.

    Attributes:
        reconstruction: E_q log p(x|z), by sampling.
        kl: KL(q(z|x) ‖ p(z)), in closed form where one exists, by the same draws otherwise.

    >>> import torch
    >>> terms = ElboTerms(reconstruction=torch.tensor([-3.0]), kl=torch.tensor([0.5]))
    >>> terms.elbo.tolist()
    [-3.5]
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        return self.reconstruction - self.kl


class LatentVariableModel(LayeredModel, ABC):
    r"""A model p(x) = ∫ p(z) p(x|z) dz with an approximate posterior q(z|x): three densities.

    Subclasses provide ``prior`` over z, ``encoder`` over z given x and ``decoder`` over x given z. In a conditional
    model the encoder's context is x and then c, the decoder's z and then c, and the prior's c, or none.

    >>> import torch
    >>> from lvm import VAE
    >>> vae = VAE.gaussian(4, latent_features=2, hidden=(8,))
    >>> x = torch.zeros(3, 4)
    >>> z, log_q = vae.draw_latents(x, 5)
    >>> vae.log_joint(x, z).shape, vae.encode(x).shape, vae.decode(vae.encode(x)).shape
    (torch.Size([5, 3]), torch.Size([3, 2]), torch.Size([3, 4]))
    """

    encoder: Density
    decoder: Density

    @property
    def link(self) -> StochasticLink:
        seen = self.encoder.context_features - self.decoder.features if self.context_features else 0
        return StochasticLink(self.encoder, self.decoder, seen)

    def log_joint(self, x: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x, z) at any z, differentiable in z; batch shapes of x ``[*batch, D]`` and z ``[*, d]`` broadcast.

        Of a conditional model log p(x, z|c), at contexts ``[*batch, C]``.
        """
        rows = self._rows(x, context) if self.context_features or context is not None else x
        return self._log_prior(z, rows) + self._log_likelihood(rows, z)

    def _log_joint(self, rows: Tensor, z: Tensor) -> Tensor:
        if not self.context_features:
            return self.log_joint(rows, z)
        return self._log_prior(z, rows) + self._log_likelihood(rows, z)

    def _log_likelihood(self, rows: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), or log p(x|z, c) at the contexts of rows; batch shapes broadcast."""
        return log_likelihood(self.decoder, rows, z)

    @in_own_precision
    def elbo_terms(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> ElboTerms:
        r"""Reconstruction and KL term for x ``[*batch, D]``, and contexts ``[*batch, C]`` of a conditional model.

        .. math:: \mathcal L(x) = E_q \log p(x|z) - KL(q(z|x) \,\|\, p(z))
        """
        return self._elbo_terms(self._rows(x, context), draws, generator)

    def _elbo_terms(self, rows: Tensor, draws: int, generator: Generator | None) -> ElboTerms:
        z, divergence = self._draw_latents(rows, draws, generator)
        return ElboTerms(self._log_likelihood(rows, z).mean(0), divergence)

    @in_own_precision
    def draw_latents(
        self, x: Tensor, draws: int = 1, *, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x) ``[draws, *batch, d]`` and KL(q(z|x) ‖ p(z)) ``[*batch]``; a Gaussian encoder runs once for both.

        The KL is in closed form where one exists, and by the same draws otherwise.
        """
        return self._draw_latents(self._rows(x, context), draws, generator)

    def _draw_latents(self, rows: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        draws = check_count(draws, "draws")
        given = self._prior_context(rows)
        if isinstance(self.encoder, GaussianFamily):
            q = self.encoder.given(rows)
            divergence = kl(q, self.prior, p_context=given)
            if divergence is not None:
                return q._sample(draws, None, generator), divergence
            z, log_q = q._sample_with_log_prob(draws, None, generator)
        else:
            z, log_q = self.encoder.sample_with_log_prob(draws, context=rows, generator=generator)
            divergence = kl(self.encoder, self.prior, rows, p_context=given)
        return z, (log_q - self._log_prior(z, rows)).mean(0) if divergence is None else divergence

    def elbo(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """Unbiased estimate of the ELBO ``[*batch]``, with the KL in closed form where one exists.

        To train with it in a loop of your own, call :meth:`initialise` first, as ``fit`` does.
        """
        return self.elbo_terms(x, context=context, draws=draws, generator=generator).elbo

    def sample(self, n: int, *, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """x ~ p(x|z) with z ~ p(z): ``[n, D]``; of a conditional model, ``[n, *batch, D]`` at ``[*batch, C]``.

        The encoder is not needed.
        """
        z, seen = self._latents(n, context, generator)
        return self.decoder.sample(1, context=joined(z, seen), generator=generator).squeeze(0)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """E_q[z|x], the mean of the encoder: ``[*batch, d]`` for x ``[*batch, D]``.

        Raises:
            TypeError: the encoder's mean has no closed form; draw from it with ``encoder.sample``.
        """
        return self.encoder.expectation(self._rows(x, context))

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """E[x|z], the mean of the decoder: ``[*batch, D]`` for z ``[*batch, d]``.

        Raises:
            TypeError: the decoder's mean has no closed form; draw from it with ``decoder.sample``.
        """
        name, reference = f"{type(self).__name__}.decode", self.prior.reference
        check_points(z, self.prior.features, name, reference=reference)
        check_context(context, self.context_features, name, reference=reference)
        return self.decoder.expectation(joined(z, self._seen(context)))

    def reconstruct(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The decoder's mean at the encoder's, decode(encode(x)): ``[*batch, D]``."""
        return self.decode(self.encode(x, context), context)


class ExactLatentVariableModel(ExactModel, LatentVariableModel, ABC):
    """A latent-variable model that knows its marginal, log p(x), beside the log-weights that bound it.

    >>> from lvm import PPCA, VAE, ExactLatentVariableModel, GaussianMixture
    >>> [issubclass(model, ExactLatentVariableModel) for model in (PPCA, GaussianMixture, VAE)]
    [True, True, False]
    """

    @property
    def support(self) -> Support | None:
        return self.decoder.support

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return self.decoder.alphabets

    def check_support(self, x: Tensor) -> None:
        self._check_support(x)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return LatentVariableModel.sample(self, n, context=context, generator=generator)


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


def check_three(
    prior: Density, encoder: Density, decoder: Density, context_features: int, *, embedded: bool = False
) -> None:
    """Raise unless prior, encoder and decoder are densities over the same latent and data, given that context.

    What an embedding makes of contexts is as wide as the encoder says.
    """
    for name, density in (("prior", prior), ("encoder", encoder), ("decoder", decoder)):
        if not isinstance(density, Density):
            raise TypeError(
                f"the {name} must be a Density; got {type(density).__name__}. A network becomes one as "
                "ConditionalGaussian(network, features, context_features) or ConditionalBernoulli(...)"
            )
    seen = max(1, encoder.context_features - decoder.features) if embedded else context_features
    check_pair(encoder, decoder, seen)
    check_size(prior, encoder.features, "the latent", seen)
