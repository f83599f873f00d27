r"""Latent-variable models as layers: a prior and a link.

A :class:`Link` is encoder and decoder as one object that returns one log-ratio. That is what makes a delta encoder
expressible: log p(x|z) and log q(z|x) may each be infinite while their difference is finite. A
:class:`LatentVariableModel` is the case where both exist as densities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from density.checks import check_count, check_data, check_points
from density.contract import Bound, Density, ExactModel
from density.families.gaussian import GaussianFamily
from density.families.kl import kl
from density.importance.bound import importance
from density.log_density import LogDensity
from lvm.links import Link, StochasticLink, _check_pair


class LayeredModel(Bound, ABC):
    """p(x) = ∫ p(z) p(x|z) dz, given as a prior and a link: log-weight = log p(z) + log-ratio."""

    prior: Density

    @property
    @abstractmethod
    def link(self) -> Link:
        """Encoder and decoder as one layer."""

    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        check_count(draws, "draws")
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        link = self.link
        z, log_ratio = link.infer(x, 1 if link.deterministic else draws, generator=generator)
        return (self.prior.log_prob(z) + log_ratio).expand(draws, *x.shape[:-1])

    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        """The importance-weighted bound (Burda et al. 2016) with that many draws: a lower bound in expectation."""
        return importance(self, x, draws=draws, generator=generator)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as nn.Module's own
        if name == "log_prob":
            raise AttributeError(
                f"{type(self).__name__} has no log_prob: what it knows are bounds on log p(x). Ask for elbo(x), for "
                "log_density(x, draws=...), the importance-weighted bound, or lvm.evidence.evidence(model, x)"
            )
        return super().__getattr__(name)

    def check_input(self, x: Tensor) -> None:
        check_data(x, self.features, type(self).__name__, reference=self.prior.reference)


class ExactLayeredModel(ExactModel, LayeredModel):
    """A layered model whose link is tight: every log-weight *is* log p(x).

    Args:
        prior: over the latent.
        link: a tight link.
        method: how log p(x) comes about, in words.

    Raises:
        ValueError: the link is loose, so that log-weights are only bounds; or the sizes do not fit.
    """

    def __init__(self, prior: Density, link: Link, method: str) -> None:
        super().__init__()
        if not link.tight:
            raise ValueError(
                f"{type(link).__name__} is not tight: its log-weights bound log p(x) and are not it. "
                "Use a LayeredModel that is no Density, and ask it for elbo or log_density"
            )
        _check_prior(prior, link.latent_features)
        self.features = link.features
        self.measure = link.measure
        self.prior = prior
        self.layer = link
        self._method = method

    @property
    def link(self) -> Link:
        return self.layer

    @property
    def method(self) -> str:
        return self._method

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.log_weights(x, 1).squeeze(0)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.layer.generate(self.prior.sample(n, generator=generator), generator=generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        x = self._sample(n, context, generator)
        return x, self._log_prob(x, context)


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
    r"""p(x) = ∫ p(z) p(x|z) dz with an approximate posterior q(z|x): three densities.

    Subclasses provide ``prior`` over z, ``encoder`` over z given x and ``decoder`` over x given z.
    """

    encoder: Density
    decoder: Density

    @property
    def link(self) -> Link:
        return StochasticLink(self.encoder, self.decoder)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z) at any z, differentiable in z; batch shapes of x ``[*batch, D]`` and z ``[*, d]`` broadcast."""
        return self.prior.log_prob(z) + self.decoder.log_prob(x, z)

    def elbo_terms(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> ElboTerms:
        r"""Reconstruction and KL term for x ``[*batch, D]``.

        .. math:: \mathcal L(x) = E_q \log p(x|z) - KL(q(z|x) \,\|\, p(z))
        """
        check_count(draws, "draws")
        check_points(x, self.features, type(self).__name__, reference=self.prior.reference)
        z, divergence = self.draw_latents(x, draws, generator=generator)
        return ElboTerms(self.decoder.log_prob(x, z).mean(0), divergence)

    def draw_latents(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x) ``[draws, *batch, d]`` and KL(q(z|x) ‖ p(z)) ``[*batch]``; a Gaussian encoder runs once for both.

        The KL is in closed form where one exists, and by the same draws otherwise.
        """
        if isinstance(self.encoder, GaussianFamily):
            q = self.encoder.given(x)
            z, log_q = q.sample_with_log_prob(draws, generator=generator)
            divergence = kl(q, self.prior)
        else:
            z, log_q = self.encoder.sample_with_log_prob(draws, context=x, generator=generator)
            divergence = kl(self.encoder, self.prior, x)
        return z, (log_q - self.prior.log_prob(z)).mean(0) if divergence is None else divergence

    def elbo(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> Tensor:
        """Unbiased estimate of the ELBO ``[*batch]``, with the KL in closed form where one exists."""
        return self.elbo_terms(x, draws=draws, generator=generator).elbo

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """x ~ p(x|z) with z ~ p(z): ``[n, D]``. The encoder is not needed."""
        z = self.prior.sample(n, generator=generator)
        return self.decoder.sample(1, context=z, generator=generator).squeeze(0)

    def check_input(self, x: Tensor) -> None:
        super().check_input(x)
        self.decoder.check_support(x)


class ExactLatentVariableModel(ExactModel, LatentVariableModel, ABC):
    """A latent-variable model that knows its marginal, log p(x), beside the log-weights that bound it."""

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        z = self.prior.sample(n, generator=generator)
        return self.decoder.sample(1, context=z, generator=generator).squeeze(0)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        x = self._sample(n, context, generator)
        return x, self._log_prob(x, context)


def check_three(prior: Density, encoder: Density, decoder: Density) -> None:
    """Raise unless prior, encoder and decoder are densities over the same latent and data."""
    for name, density in (("prior", prior), ("encoder", encoder), ("decoder", decoder)):
        if not isinstance(density, Density):
            raise TypeError(
                f"the {name} must be a Density; got {type(density).__name__}. A network becomes one as "
                "ConditionalGaussian(network, features, context_features) or ConditionalBernoulli(...)"
            )
    _check_pair(encoder, decoder)
    _check_prior(prior, encoder.features)


def _check_prior(prior: Density, latent_features: int) -> None:
    if prior.features != latent_features or prior.context_features:
        raise ValueError(
            f"the prior must be an unconditional density over the latent's {latent_features} features; got "
            f"{type(prior).__name__} over {prior.features} features with {prior.context_features} context features"
        )
