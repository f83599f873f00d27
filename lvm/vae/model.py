"""Variational autoencoder: amortised inference with an encoder network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from density.checks import check_count, find_reference
from density.contract import Density
from density.evaluating import evaluating
from density.families.conditional_gaussian import ConditionalGaussian, NetworkScale, ScaleModel
from density.families.gaussian import StandardNormal
from density.families.likelihoods.bernoulli import BernoulliLikelihood
from density.families.likelihoods.gaussian import START
from density.families.likelihoods.inputs import Masked
from density.families.likelihoods.likelihood import Likelihood
from density.families.nets import mlp
from density.families.network import network_output
from density.families.rescaled import Rescaled
from density.images.encoding import ImageDecoder, ImageEncoder
from density.images.shape import ImageShape
from density.initialisation import Standardisation, StartingPoints, take_input
from density.own_precision import in_own_precision
from lvm.latent import check_three
from lvm.vae.amortised import AmortisedModel


class VAE(AmortisedModel):
    r"""A prior p(z), a decoder p(x|z) and an encoder q(z|x), trained by maximising the ELBO (Kingma & Welling 2014).

    .. math:: \mathcal L(x) = E_{q(z|x)} \log p(x|z) - KL(q(z|x) \,\|\, p(z)) \le \log p(x)

    Any three densities of matching sizes make a VAE: a flow or a mixture may be the prior or the encoder, and networks
    of any architecture, which see points as rows, fit into
    :class:`~density.families.conditional_gaussian.ConditionalGaussian` and
    :class:`~density.families.bernoulli.ConditionalBernoulli`. :meth:`gaussian` and :meth:`bernoulli` build the usual
    ones, :meth:`of` those of a likelihood for data of any kind.

    The ELBO is a lower bound; :meth:`log_density` gives the tighter importance-weighted one with its errors, and
    ``lvm.evidence.gap`` what lies between. Generation needs no encoder.

    A conditional VAE models p(x|c) = ∫ p(z|c) p(x|z, c) dz at contexts c ``[*batch, C]`` (Sohn et al. 2015). Contexts
    pass an embedding first, once for all draws and parts; encoder and decoder read what it makes of them, H features,
    behind x and z, and a conditional prior reads it alone.

    Args:
        prior: density over z ``[*batch, d]``, unconditional, or with H context features.
        encoder: density over z with x as context, then the H features; if it is not reparametrised (or z is discrete),
            ``fit`` needs a score-function estimator.
        decoder: density over x with z as context, then the H features. Its measure is the model's.
        context_features: C; 0 for an unconditional model.
        embedding: any module that maps contexts ``[n, C]`` to ``[n, H]``, or to n events of H numbers, and is trained
            with the rest; contexts are seen as they are, H = C, if None.

    Raises:
        ValueError: the sizes do not fit together; the message names the two that disagree.

    >>> import torch
    >>> from density import Training
    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> _ = torch.manual_seed(0)
    >>> model = VAE.gaussian(features=3, latent_features=1, hidden=(16,))
    >>> history = model.fit(x, Training(epochs=5), generator=torch.Generator().manual_seed(0))
    >>> claim = model.log_density(x, draws=100, generator=torch.Generator().manual_seed(0))
    >>> claim.kind, claim.method
    (<Kind.LOWER: 'lower bound'>, 'importance-weighted bound, 100 draws')
    """

    def __init__(
        self,
        prior: Density,
        encoder: Density,
        decoder: Density,
        context_features: int = 0,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        context_features = check_count(context_features, "context_features", least=0)
        if embedding is not None and not context_features:
            raise ValueError("VAE: an embedding makes features of contexts; say of how many numbers: context_features=")
        if embedding is not None and not isinstance(embedding, nn.Module):
            raise TypeError(f"VAE takes an embedding of contexts as an nn.Module; got {type(embedding).__name__}")
        check_three(prior, encoder, decoder, context_features, embedded=embedding is not None)
        self.context_features = context_features
        self.features = decoder.features
        self.latent_features = encoder.features
        self.measure = decoder.measure
        self.prior = prior
        self.encoder = encoder
        self.decoder = decoder
        self.embedding = embedding

    @classmethod
    def gaussian(
        cls,
        features: int,
        latent_features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        scale: ScaleModel | None = None,
        prior: Density | None = None,
        standardise: bool = True,
        encoder_scale: ScaleModel | None = None,
        context_features: int = 0,
        embedding: nn.Module | None = None,
        mask: bool = False,
    ) -> VAE:
        """The VAE of continuous data: diagonal Gaussian encoder and decoder on two perceptrons.

        Args:
            features: D.
            latent_features: d.
            hidden: widths of the encoder's hidden layers; the decoder's are the same, reversed.
            scale: the decoder's standard deviation; ``NetworkScale(std=0.3)`` if None, a function of z that starts near
                0.3 (:class:`~density.families.conditional_gaussian.NetworkScale`). ``PerFeatureScale(features)`` is
                one number a feature, as in factor analysis: fewer parameters, and a lower log p(x) on most tables.
            prior: standard normal if None.
            standardise: let the first ``fit`` take each feature's mean and standard deviation from its data, and model
                the standardised features from then on; log p(x) stays that of x. A fixed or initial scale is then in
                units of the features' standard deviations. False models x as it is.
            encoder_scale: the encoder's σ; :class:`~density.families.conditional_gaussian.NetworkScale` if None, which
                bounds |log σ| by 7; ``NetworkScale(bound=b)`` bounds it by b, ``NetworkScale(bound=None)`` not at all.
            context_features: C of a conditional VAE: its encoder and decoder see the context, and so may the prior.
            embedding: of contexts, a module from ``[n, C]`` to ``[n, H]``; the first ``fit`` standardises them if None.
            mask: let the encoder see, beside x, which entries are observed: for rows with missing ones
                (``model.observed``).
        """
        scale = NetworkScale(std=START) if scale is None else scale
        embedding, seen = _embedding(context_features, embedding)
        first, width = _first_layer(Standardisation(features + seen) if standardise else None, features, seen, mask)
        network = mlp(latent_features + seen, scale.outputs * features, hidden[::-1])
        decoder: Density = ConditionalGaussian(network, features, latent_features + seen, scale)
        if standardise:
            decoder = Rescaled(decoder)
        return cls(
            prior if prior is not None else StandardNormal(latent_features),
            _gaussian_encoder(
                lambda outputs: mlp(width, outputs, hidden), features + seen, latent_features, first, encoder_scale
            ),
            decoder,
            context_features,
            embedding,
        )

    @classmethod
    def bernoulli(
        cls,
        features: int,
        latent_features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        prior: Density | None = None,
        encoder_scale: ScaleModel | None = None,
        context_features: int = 0,
        embedding: nn.Module | None = None,
        mask: bool = False,
    ) -> VAE:
        """The VAE of binary data: diagonal Gaussian encoder, Bernoulli decoder; its measure is counting.

        The arguments are those of :meth:`gaussian`.
        """
        return cls.of(
            features,
            latent_features,
            BernoulliLikelihood(),
            hidden=hidden,
            prior=prior,
            encoder_scale=encoder_scale,
            context_features=context_features,
            embedding=embedding,
            mask=mask,
        )

    @classmethod
    def of(
        cls,
        features: int,
        latent_features: int,
        likelihood: Likelihood,
        *,
        hidden: Sequence[int] = (128, 128),
        prior: Density | None = None,
        encoder_scale: ScaleModel | None = None,
        context_features: int = 0,
        embedding: nn.Module | None = None,
        mask: bool = False,
    ) -> VAE:
        """The VAE of data of any kind: diagonal Gaussian encoder, decoder of a likelihood, whose measure it has.

        Args:
            likelihood: what the features are: levels, counts, reals, in [0, 1] (docs/likelihoods.md); of a table of
                several kinds :class:`~density.families.composed.columns.Columns`. The encoder sees the data as the
                likelihood says.

        The other arguments are those of :meth:`gaussian`.

        >>> from density import DiscretisedLogistic
        >>> VAE.of(64, 8, DiscretisedLogistic(levels=17), hidden=(32,)).measure
        <Measure.COUNTING: 'counting'>
        """
        embedding, seen = _embedding(context_features, embedding)
        network = mlp(latent_features + seen, likelihood.width(features), hidden[::-1])
        first, width = _first_layer(likelihood.encoder_input(features, seen), features, seen, mask)
        return cls(
            prior if prior is not None else StandardNormal(latent_features),
            _gaussian_encoder(
                lambda outputs: mlp(width, outputs, hidden), features + seen, latent_features, first, encoder_scale
            ),
            likelihood.conditional(network, features, latent_features + seen),
            context_features,
            embedding,
        )

    @classmethod
    def image(
        cls,
        shape: Sequence[int],
        latent_features: int,
        likelihood: Likelihood,
        *,
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        prior: Density | None = None,
        encoder_scale: ScaleModel | None = None,
        context_features: int = 0,
        embedding: nn.Module | None = None,
    ) -> VAE:
        """The VAE of images of any shape, with convolutional encoder and decoder. Points are flat, ``[*batch, C·H·W]``.

        The networks are :class:`~density.images.encoding.ImageEncoder` and
        :class:`~density.images.encoding.ImageDecoder`; networks of one's own fit into the VAE itself.

        Args:
            shape: of the images, (C, H, W).
            channels: of each scale, from the largest images to the smallest. A scale has half the sides, rounded up, of
                the one before: with two, images of 28×28 pixels end as 7×7.
            blocks: residual blocks at each scale.

        The other arguments are those of :meth:`of`, but for the mask. A context stands at every pixel of what the
        encoder sees, in channels of its own.

        >>> from density import DiscretisedLogistic
        >>> model = VAE.image((1, 8, 8), 8, DiscretisedLogistic(levels=17), channels=(8, 16))
        >>> model.sample(5).shape
        torch.Size([5, 64])
        """
        features = ImageShape.of(shape, f"{cls.__name__}.image").features
        embedding, seen = _embedding(context_features, embedding)
        network = ImageDecoder(latent_features + seen, shape, likelihood.numbers, channels, blocks)
        return cls(
            prior if prior is not None else StandardNormal(latent_features),
            _gaussian_encoder(
                lambda outputs: ImageEncoder(shape, outputs, channels, blocks, context_features=seen),
                features + seen,
                latent_features,
                likelihood.encoder_input(features, seen),
                encoder_scale,
            ),
            likelihood.conditional(network, features, latent_features + seen),
            context_features,
            embedding,
        )

    @in_own_precision
    def _embedded(self, context: Tensor) -> Tensor:
        if self.embedding is None:
            return context
        width = self.decoder.context_features - self.latent_features
        return network_output(self.embedding, context, width, f"{type(self).__name__}'s embedding", "features")

    def _start_embedding(self, context: StartingPoints) -> StartingPoints:
        if self.embedding is None:
            return context
        take_input(self.embedding, self.context_features, context)
        return context.through(self.embedding, self._embedded)


def _embedding(context_features: int, embedding: nn.Module | None) -> tuple[nn.Module | None, int]:
    """The embedding of a VAE with such contexts, and the number of features that it makes."""
    if not check_count(context_features, "context_features", least=0):
        return embedding, 0
    if embedding is None:
        return Standardisation(context_features), context_features
    like = find_reference(embedding)
    contexts = torch.zeros(1, context_features) if like is None else like.new_zeros(1, context_features)
    with torch.no_grad(), evaluating(embedding):
        output: object = embedding(contexts)
    if not isinstance(output, Tensor) or output.shape[:1] != (1,):
        raise ValueError(
            f"VAE expects an embedding from contexts [n, {context_features}] to features [n, H]; for n = 1 it returned "
            f"{list(output.shape) if isinstance(output, Tensor) else type(output).__name__}"
        )
    return embedding, output.numel()


def _first_layer(first: nn.Module | None, features: int, seen: int, mask: bool) -> tuple[nn.Module | None, int]:
    """What an encoder's network does first with points and contexts behind them, and how many numbers come out."""
    if mask:
        first = Masked(features, first)
    return first, features + seen if first is None else first(torch.zeros(1, features + seen)).shape[-1]


def _gaussian_encoder(
    network: Callable[[int], nn.Module],
    features: int,
    latent_features: int,
    first: nn.Module | None,
    scale: ScaleModel | None,
) -> Density:
    """A diagonal Gaussian of a network of so many outputs, behind what is done to its input first."""
    scale = NetworkScale() if scale is None else scale
    made = network(scale.outputs * latent_features)
    return ConditionalGaussian(made if first is None else nn.Sequential(first, made), latent_features, features, scale)
