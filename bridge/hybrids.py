r"""Latent-variable models with flows in them, each put together from existing parts.

- A flow as prior (Chen et al. 2017, VLAE): the latent need not look Gaussian.
- A flow as posterior (Rezende & Mohamed 2015; Kingma et al. 2016): q need not be Gaussian, and the gap shrinks.
- A flow as decoder: the noise in x need be neither Gaussian nor independent.
- A flow with a VAE on top: an invertible map to features, whose density is a VAE's.

The builders share the parts that they are given, and copy none: a trained decoder can be frozen
(``vae.decoder.requires_grad_(False)``) and given several posteriors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bridge.flow_vae import DeltaLink
from bridge.survae.chain import LinkChain
from bridge.survae.layered import LooseLayeredModel
from density.checks import check_count
from density.contract import Density
from density.families.composed.featured import Featured
from density.families.conditional_gaussian import ConditionalGaussian, NetworkScale, ScaleModel
from density.families.nets import mlp
from density.families.rescaled import Rescaled
from density.initialisation import Standardisation
from flows.architectures.couplings import glow
from flows.chain import Chain
from flows.flow import Flow
from flows.layers.conditional.autoregressive import GaussianAutoregressive
from flows.layers.conditional.coupling import AffineCoupling
from flows.transform import Inverse, Transform
from lvm.latent import LatentVariableModel
from lvm.links import StochasticLink
from lvm.vae.model import VAE


def with_flow_prior(model: LatentVariableModel, flow: Flow) -> VAE:
    """The VAE with the model's encoder and decoder and a flow as its prior; with an identity flow, the model itself.

    Args:
        model: whose parts are shared.
        flow: over the latent; unconditional, or of the features that a conditional model sees of its contexts.

    Raises:
        ValueError: the flow's size is not the latent's.

    >>> from flows import real_nvp
    >>> model = with_flow_prior(VAE.gaussian(3, 2), real_nvp(2, layers=4))
    >>> model.prior.features
    2
    """
    return _like(model, flow, model.encoder, model.decoder)


def with_posterior(model: LatentVariableModel, posterior: Density) -> VAE:
    """The VAE with the model's prior and decoder and another q(z|x), such as :func:`coupling_posterior` makes.

    >>> import torch
    >>> vae = VAE.gaussian(4, latent_features=2, hidden=(8,))
    >>> other = with_posterior(vae, coupling_posterior(4, 2, layers=2, hidden=(8,)))
    >>> other.decoder is vae.decoder, other.elbo(torch.zeros(3, 4)).shape
    (True, torch.Size([3]))
    """
    return _like(model, model.prior, posterior, model.decoder)


def coupling_posterior(
    features: int,
    latent_features: int,
    *,
    layers: int = 4,
    hidden: Sequence[int] = (128,),
    width: int = 64,
    encoder_hidden: Sequence[int] = (128,),
    standardise: bool = False,
    scale: ScaleModel | None = None,
) -> Featured:
    r"""q(z|x) by affine couplings of a Gaussian draw, all of them functions of an encoder's features h(x).

    .. math:: \epsilon \sim N(\mu(h), \operatorname{diag} \sigma^2(h)), \qquad z = g_1(\dots g_L(\epsilon; h); h)

    It starts as the diagonal Gaussian. One pass for a draw, one for ``log_prob`` of a given z.

    Args:
        features: D of x.
        latent_features: d ≥ 2 of z.
        layers: couplings with alternating checker masks, at least 2.
        hidden: hidden widths of each coupling's network.
        width: H of the features h.
        encoder_hidden: hidden widths of the encoder's network, x to h.
        standardise: let ``VAE.fit`` standardise the x that the encoder sees.
        scale: σ(h); :class:`~density.families.conditional_gaussian.NetworkScale` if None, with its bound on log σ.

    Raises:
        ValueError: a size is out of range.

    >>> coupling_posterior(5, 2).sample(3, context=torch.zeros(4, 5)).shape
    torch.Size([3, 4, 2])
    """
    if latent_features < 2 or layers < 2:
        raise ValueError(
            "coupling_posterior needs 2 latent features to couple and 2 layers to move them all; got "
            f"{latent_features} and {layers}"
        )

    def coupling(layer: int) -> Transform:
        return AffineCoupling(torch.arange(latent_features) % 2 == layer % 2, hidden, width)

    return _posterior(features, latent_features, layers, coupling, width, encoder_hidden, standardise, scale)


def autoregressive_posterior(
    features: int,
    latent_features: int,
    *,
    layers: int = 4,
    hidden: Sequence[int] = (128,),
    width: int = 64,
    encoder_hidden: Sequence[int] = (128,),
    standardise: bool = False,
    scale: ScaleModel | None = None,
) -> Featured:
    """q(z|x) by inverse autoregressive flow given an encoder's features (Kingma et al. 2016, arXiv:1606.04934).

    As :func:`coupling_posterior`, with autoregressive layers in alternating orders, inverted so that a draw and its
    density take one pass; ``log_prob`` of a given z takes d of them.

    >>> autoregressive_posterior(5, 2).sample(3, context=torch.zeros(4, 5)).shape
    torch.Size([3, 4, 2])
    """
    latent_features = check_count(latent_features, "latent_features")
    layers = check_count(layers, "layers")

    def autoregressive(layer: int) -> Transform:
        order = range(latent_features) if layer % 2 == 0 else range(latent_features - 1, -1, -1)
        return Inverse(GaussianAutoregressive(latent_features, hidden, order, width))

    return _posterior(features, latent_features, layers, autoregressive, width, encoder_hidden, standardise, scale)


def with_flow_decoder(
    model: LatentVariableModel,
    *,
    layers: int = 4,
    hidden: Sequence[int] = (128, 128),
    standardise: bool = True,
) -> VAE:
    """The VAE with the model's prior and encoder and p(x|z) a Glow conditioned on z.

    Args:
        model: whose parts are shared; continuous.
        layers, hidden: of the flow, see :func:`~flows.architectures.glow`.
        standardise: let ``VAE.fit`` standardise x for it; log p(x) stays that of x.

    >>> with_flow_decoder(VAE.gaussian(3, 2), layers=2, hidden=(8,)).sample(4).shape
    torch.Size([4, 3])
    """
    decoder: Density = glow(model.features, layers, hidden, context_features=model.decoder.context_features)
    return _like(model, model.prior, model.encoder, Rescaled(decoder) if standardise else decoder)


def flow_with_vae_top(transform: Transform, model: LatentVariableModel) -> LooseLayeredModel:
    """A flow with a VAE on top: log p(x) = log p_VAE(f(x)) + log|det ∂f/∂x|, bounded by the VAE's ELBO.

    Args:
        transform: unconditional, data to the VAE's data.
        model: continuous; its parts are shared.

    Raises:
        ValueError: the sizes do not agree, or the VAE is discrete.

    >>> from flows import LULinear
    >>> flow_with_vae_top(LULinear(3), VAE.gaussian(3, 2)).elbo(torch.zeros(4, 3)).shape
    torch.Size([4])
    """
    top = StochasticLink(model.encoder, model.decoder)
    return LooseLayeredModel(model.prior, LinkChain(DeltaLink(transform, model.features), top))


def _like(model: LatentVariableModel, prior: Density, encoder: Density, decoder: Density) -> VAE:
    """A VAE of these parts, with the contexts of a model."""
    embedding = model.embedding if isinstance(model, VAE) else None
    return VAE(prior, encoder, decoder, model.context_features, embedding)


def _posterior(
    features: int,
    latent_features: int,
    layers: int,
    layer: Callable[[int], Transform],
    width: int,
    encoder_hidden: Sequence[int],
    standardise: bool,
    scale: ScaleModel | None,
) -> Featured:
    features = check_count(features, "features")
    network: nn.Module = nn.Sequential(mlp(features, width, encoder_hidden), nn.SiLU())
    if standardise:
        network = nn.Sequential(Standardisation(features), network)
    scale = NetworkScale() if scale is None else scale
    base = ConditionalGaussian(nn.Linear(width, scale.outputs * latent_features), latent_features, width, scale)
    return Featured(network, Flow(base, Chain(*(layer(position) for position in range(layers)))), features)
