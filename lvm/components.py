"""Mixtures: models whose latent is one of K components, so that all about them is a sum over components."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from density.checks import check_count, check_points, free_to_look
from density.contract import Density
from density.families.categorical import Categorical, CategoricalFamily
from density.families.kl import kl
from density.own_precision import in_own_precision
from lvm.latent import CountedModel, ElboTerms


class ComponentFamily(Density, ABC):
    """K densities, of which the one-hot context z picks one: the decoder of a mixture."""

    @abstractmethod
    def log_prob_of_each(self, x: Tensor) -> Tensor:
        """log p(x|k) for every k: ``[*batch, K]`` for x ``[*batch, D]``."""

    def log_ratio_of_each(self, x: Tensor) -> Tensor:
        """The log-densities less a number for each row, ``[*batch, K]``: without overflow, where that can be had."""
        return self.log_prob_of_each(x)


class Responsibilities(CategoricalFamily):
    r"""The exact posterior of a mixture, q(z|x) ∝ p(z) p(x|z): a view of its prior and components.

    Args:
        prior: over the components.
        components: K densities.

    >>> from lvm import GaussianMixture
    >>> weights, means, covariances = torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1, 1)
    >>> encoder = GaussianMixture.from_parameters(weights, means, covariances).encoder
    >>> first, second = encoder.expectation(torch.tensor([0.5]))
    >>> type(encoder).__name__, round((second / first).log().item(), 4)  # 2x
    ('Responsibilities', 1.0)
    """

    def __init__(self, prior: Categorical, components: ComponentFamily) -> None:
        super().__init__()
        self.features = prior.features
        self.context_features = components.features
        self.prior = prior
        self.components = components

    @property
    def reference(self) -> Tensor:
        return self.prior.reference

    def logits_at(self, context: Tensor | None) -> Tensor:
        assert context is not None, "the base class has checked it"
        log_prior = self.prior.logits.log_softmax(-1)
        if free_to_look(context):
            logits = log_prior + self.components.log_prob_of_each(context)
            if not bool((logits.amax(-1) == -torch.inf).any()):
                return logits
        return log_prior + self.components.log_ratio_of_each(context)  # also where log p(x) is −inf


class MixtureModel(CountedModel, ABC):
    r"""p(x) = Σ_k π_k p(x|k): prior Categorical(K), and a decoder of K densities.

    .. math:: \log p(x) = \log\sum_k \exp\big(\log\pi_k + \log p(x|k)\big)

    The posterior is known, and is the encoder: the log-weight is log p(x) for every z, and the gap is 0.
    """

    method = "sum over components"
    prior: Categorical
    decoder: ComponentFamily

    @property
    def encoder(self) -> Responsibilities:  # type: ignore[override]  # a view: no tensor is registered twice
        """The exact posterior over components, as a density over one-hot z with x as context."""
        return Responsibilities(self.prior, self.decoder)

    @property
    def weights(self) -> Tensor:
        """π, ``[K]``."""
        return self.prior.logits.softmax(-1)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._log_joint_with_each(x).logsumexp(-1)

    def _log_joint_with_each(self, x: Tensor) -> Tensor:
        return self.prior.logits.log_softmax(-1) + self.decoder.log_prob_of_each(x)

    @in_own_precision
    def posterior(self, x: Tensor) -> Tensor:
        """Responsibilities p(z|x), ``[*batch, K]`` for x ``[*batch, D]``, differentiable.

        Where x is so far away that every squared distance overflows, so that log p(x) is −inf, those of Gaussians are
        still those of Bayes' rule, to the precision with which the distances differ.
        """
        check_points(x, self.features, type(self).__name__, reference=self.reference)
        return self.encoder.logits_at(x).softmax(-1)

    def predict(self, x: Tensor) -> Tensor:
        """The most probable component of each point, ``[*batch]``, integers."""
        return self.posterior(x).argmax(-1)

    def _elbo_terms(self, x: Tensor, draws: int, generator: Generator | None) -> ElboTerms:
        """Reconstruction and KL of the exact posterior, both by summing over components; nothing is drawn."""
        check_count(draws, "draws")
        responsibilities = self.posterior(x)
        divergence = kl(self.encoder, self.prior, context=x)
        assert divergence is not None, "two categoricals have a closed form"
        each = self.decoder.log_prob_of_each(x).masked_fill(responsibilities == 0, 0.0)  # 0 · (−∞) is 0 here
        return ElboTerms((responsibilities * each).sum(-1), divergence)
