"""Hierarchical variational autoencoders: several latents, one above the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.contract import Density
from density.families.conditional_gaussian import ConditionalGaussian, NetworkScale
from density.families.gaussian import StandardNormal
from density.families.nets import mlp
from density.initialisation import StartingPoints
from density.own_precision import in_own_precision
from density.support import Support
from lvm.hierarchy.markov_chain import MarkovChain
from lvm.links import check_pair, check_size
from lvm.vae.amortised import AmortisedModel
from lvm.vae.model import VAE


class HierarchicalVAE(AmortisedModel):
    r"""A hierarchical VAE: latents z_1, …, z_L, each the data of the level above it (Rezende et al. 2014).

    .. math:: p(x, z) = p(x|z_1) \prod_{k<L} p(z_k|z_{k+1})\; p(z_L), \qquad
              q(z|x) = q(z_1|x) \prod_{k<L} q(z_{k+1}|z_k)

    Inference runs bottom-up and shares nothing with generation. The levels are one latent z = (z_1, …, z_L), of which
    the encoder is a :class:`~lvm.hierarchy.markov_chain.MarkovChain` from the first and the prior one from the last. So
    it is a VAE to everything: gradient estimators, also with a KL weight that warms up, which upper levels need more
    than a single one (Sønderby et al. 2016, arXiv:1602.02282), importance weighting, annealing, local posteriors. Its
    KL is that of all levels, by draws: :meth:`level_kl` has them apart.

    ``bridge.LinkChain`` of its levels as stochastic links has the same log-weights; it may have other links between.

    Args:
        prior: density over z_L.
        encoders: q(z_1|x), q(z_2|z_1), …: as many as levels.
        decoders: p(x|z_1), p(z_1|z_2), …: the first one's measure is the model's.

    Raises:
        TypeError: what is not a Density.
        ValueError: there are not as many encoders as decoders, or none; neighbours do not fit together.

    Cost: the sum over the levels.

    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(200, 3).cumsum(1)
    >>> model = HierarchicalVAE.above(VAE.gaussian(3, 2, hidden=(16,)), (1,), hidden=(8,))
    >>> model.level_features
    (2, 1)
    >>> model.reconstruct(x[:5], level=2).shape
    torch.Size([5, 3])
    """

    def __init__(self, prior: Density, encoders: Sequence[Density], decoders: Sequence[Density]) -> None:
        super().__init__()
        if len(encoders) != len(decoders) or not encoders:
            raise ValueError(
                f"HierarchicalVAE takes an encoder and a decoder for each level, data first; got {len(encoders)} "
                f"encoders and {len(decoders)} decoders"
            )
        for part in (prior, *encoders, *decoders):
            if not isinstance(part, Density):
                raise TypeError(f"HierarchicalVAE is made of Densities; got a {type(part).__name__}")
        for level, (encoder, decoder) in enumerate(zip(encoders, decoders, strict=True), 1):
            try:
                check_pair(encoder, decoder)
            except ValueError as error:
                raise ValueError(f"HierarchicalVAE, level {level}: {error}") from error
        check_size(prior, encoders[-1].features, "the last latent")
        self.prior: MarkovChain = MarkovChain(*decoders[1:], prior, from_last=True)
        self.encoder: MarkovChain = MarkovChain(*encoders)
        self.decoder: _LowestLevel = _LowestLevel(decoders[0], self.encoder.features)
        self.features, self.latent_features = self.decoder.features, self.encoder.features
        self.measure = self.decoder.measure

    @classmethod
    def above(
        cls,
        vae: VAE,
        latent_features: Sequence[int],
        *,
        hidden: Sequence[int] = (64, 64),
        prior: Density | None = None,
    ) -> HierarchicalVAE:
        """Levels above a VAE of vectors or images: its encoder and decoder are the lowest; its prior is left out.

        The levels above have diagonal Gaussian encoders and decoders on perceptrons.

        Args:
            vae: unconditional; ``VAE.gaussian(D, 8)`` for example.
            latent_features: widths of z_2, z_3, …
            hidden: widths of their encoders' hidden layers; the decoders' are the same, reversed.
            prior: over the last one; standard normal if None.

        Raises:
            ValueError: the VAE is conditional, or there is no level above it.
        """
        if vae.context_features:
            raise ValueError(
                f"HierarchicalVAE is unconditional; the VAE takes a context of {vae.context_features} features"
            )
        widths = [check_count(width, f"latent_features[{place}]") for place, width in enumerate(latent_features)]
        if not widths:
            raise ValueError("HierarchicalVAE.above expects the width of at least one level; got none")
        encoders, decoders = [vae.encoder], [vae.decoder]
        for below, width in pairwise([vae.latent_features, *widths]):
            encoders.append(_gaussian(below, width, hidden))
            decoders.append(_gaussian(width, below, hidden[::-1]))
        return cls(StandardNormal(widths[-1]) if prior is None else prior, encoders, decoders)

    @property
    def level_features(self) -> tuple[int, ...]:
        """The widths of z_1, …, z_L."""
        return tuple(self.encoder.widths)

    def levels(self, z: Tensor) -> tuple[Tensor, ...]:
        """z_1, …, z_L ``[*batch, d_k]`` of latents ``[*batch, d]``."""
        return z.split(self.encoder.widths, -1)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The mean of each level at the mean of the one before, ``[*batch, d]``: of z_1, it is E_q[z_1|x].

        Raises:
            TypeError: the mean of a level has no closed form.
        """
        value, means = self._rows(x, context), []
        for encoder in self.encoder.parts:
            value = encoder.expectation(value)
            means.append(value)
        return torch.cat(means, -1)

    def reconstruct(self, x: Tensor, context: Tensor | None = None, *, level: int = 1) -> Tensor:
        """What a level knows of x: from its mean (:meth:`encode`) down, by the means of the decoders, ``[*batch, D]``.

        Raises:
            TypeError: the mean of a level or a decoder has no closed form.
            ValueError: there is no such level.
        """
        if check_count(level, "level") > len(self.level_features):
            raise ValueError(f"level must be at most {len(self.level_features)}, as many as there are; got {level}")
        value = self.levels(self.encode(x, context))[level - 1]
        for decoder in reversed([self.decoder.density, *self.prior.parts[: level - 1]]):
            value = decoder.expectation(value)
        return value

    @in_own_precision
    def level_kl(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> Tensor:
        r"""What each level adds to the KL term, by draws from the encoder: ``[L, *batch]`` for x ``[*batch, D]``, nats.

        .. math:: E_q[\log q(z_k|z_{k-1}) - \log p(z_k|z_{k+1})], \qquad z_0 = x

        Their sum is KL(q(z|x) ‖ p(z)), not negative, which one of them may be. Near 0 a level is not in use.
        """
        rows = self._rows(x, None)
        z = self.encoder.sample(draws, context=rows, generator=generator)
        return (self.encoder.log_probs(z, rows) - self.prior.log_probs(z)).mean(1)


class _LowestLevel(Density):
    """The decoder p(x|z_1) as a density given all levels z, of which it reads the first.

    Args:
        density: p(x|z_1).
        context_features: width of z.
    """

    def __init__(self, density: Density, context_features: int) -> None:
        super().__init__()
        self.density = density
        self.features, self.measure, self.factorises = density.features, density.measure, density.factorises
        self.context_features = check_count(context_features, "context_features")

    @property
    def support(self) -> Support | None:
        return self.density.support

    def check_support(self, x: Tensor) -> None:
        self.density.check_support(x)

    def _first(self, z: Tensor | None) -> Tensor:
        assert z is not None, "the public methods have checked it"
        return z[..., : self.density.context_features]

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob(x, self._first(context))

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob_by_feature(x, self._first(context))

    def _inside(self) -> Tensor:
        return self.density._inside()

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.density._log_prob_at_each(x, self._first(context))

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.density._sample(n, self._first(context), generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        return self.density._sample_with_log_prob(n, self._first(context), generator)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.density._expectation(self._first(context))

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.density._initialise(x, context.mapped(self._first))


def _gaussian(inputs: int, outputs: int, hidden: Sequence[int]) -> Density:
    """A diagonal Gaussian whose mean and σ a perceptron computes."""
    return ConditionalGaussian(mlp(inputs, 2 * outputs, hidden), outputs, inputs, NetworkScale())
