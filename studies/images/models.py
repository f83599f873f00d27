"""The models that `images` compares, fitted: one small function each, from images and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Generator, Tensor

from bridge import UniformDequantisation, layered, with_flow_prior
from density import BernoulliLikelihood, DiscretisedLogistic, Gaussian, Training
from density.contract import Density
from density.history import History
from flows import Flow, Transform, convolutional_network, glow, image_flow, on_box, real_nvp
from lvm import EM, PPCA, VAE, Diagonal, Full, GaussianMixture, HierarchicalVAE, LayeredModel, LinkedModel
from lvm.vae.amortised import AmortisedModel
from studies.images.grey_images import GreyImages
from studies.images.settings import SMALL, ModelName, Settings
from studies.kit.compute import parameter_count

PRIOR_HIDDEN = (64, 64)
MOST_ITERATIONS = 50  # of EM, which on so many dimensions has overfitted by then


@dataclass(frozen=True, eq=False)
class Images:
    """What a model is fitted to, and how large and how long.

    Attributes:
        data: the images.
        train, validation: ``[n, D]`` levels, where and in what the settings say.
        settings: of the study.
        generator: of noise, batches and latent draws.
    """

    data: GreyImages
    train: Tensor
    validation: Tensor
    settings: Settings
    generator: Generator

    @property
    def features(self) -> int:
        """D."""
        return self.data.features

    @property
    def training(self) -> Training:
        """Of every gradient fit, whatever the model."""
        settings = self.settings
        return Training(
            steps=settings.steps_of(self.data),
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            progress=False,
        )

    @property
    def box(self) -> Transform:
        """From pixels between 0 and their number of levels to all of ℝᴰ: a logit of each, in which densities live."""
        return on_box(0.0, float(self.data.levels)).to(self.train)

    def dequantised(self) -> Tensor:
        """The training images with noise, as densities see them, for fits in closed form and by EM."""
        noisy, _ = UniformDequantisation(self.features).infer_once(self.train, self.generator)
        return self.box(noisy)[0]


Fitted = tuple[LayeredModel, History]


def gaussian(images: Images) -> Fitted:
    """N(μ, Σ) in closed form."""
    density = Gaussian(images.features)
    history = density.fit(images.dequantised())
    return mass(density, images), history


def ppca(images: Images) -> Fitted:
    """Probabilistic PCA in closed form."""
    density = PPCA(images.features, images.settings.latents)
    history = density.fit(images.dequantised())
    return mass(density, images), history


def mixture(images: Images) -> Fitted:
    """Mixture of Gaussians by EM, every covariance plus a share of the data's mean variance.

    Their covariances are full for small images and diagonal for large ones, whose training images are fewer than the
    axes that each component would have.
    """
    x = images.dequantised()
    covariance = Full() if images.features < SMALL else Diagonal()
    density = GaussianMixture(images.features, images.settings.components, covariance)
    ridge = images.settings.ridge * x.double().var(0).mean().item()
    history = density.fit(x, em=EM(MOST_ITERATIONS, regularisation=ridge, progress=False), generator=images.generator)
    return mass(density, images), history


def coupling(images: Images) -> Fitted:
    """Real NVP of vectors, as wide as gives it the multi-scale flow's number of parameters."""
    return flow(vector_flow(images.data, images.settings, matched_width(images.data, images.settings)), images)


def wide_coupling(images: Images) -> Fitted:
    """Real NVP of vectors, as wide as the settings say."""
    return flow(vector_flow(images.data, images.settings, images.settings.wide), images)


def multi_scale(images: Images) -> Fitted:
    """Multi-scale Glow."""
    return flow(multi_scale_flow(images.data, images.settings), images)


def vae(images: Images) -> Fitted:
    """Convolutional encoder and decoder, one latent, standard normal a priori."""
    return autoencoder(image_vae(images), images)


def hierarchical(images: Images) -> Fitted:
    """The same with a second latent above, half as wide."""
    return autoencoder(HierarchicalVAE.above(image_vae(images), [images.settings.latents // 2]), images)


def glow_prior(images: Images) -> Fitted:
    """The same with a flow as prior."""
    prior = glow(images.settings.latents, images.settings.prior_layers, PRIOR_HIDDEN)
    return autoencoder(with_flow_prior(image_vae(images), prior), images)


def image_vae(images: Images) -> VAE:
    """Of grey levels a mixture of discretised logistics a pixel, of bits their log-odds."""
    data, settings = images.data, images.settings
    likelihood = BernoulliLikelihood() if data.levels == 2 else DiscretisedLogistic(data.levels, settings.mixtures)
    return VAE.image(data.shape, settings.latents, likelihood, channels=settings.channels)


def autoencoder(model: AmortisedModel, images: Images) -> Fitted:
    """A model of levels, fitted to its ELBO."""
    history = model.fit(images.train, images.training, validation=images.validation, generator=images.generator)
    return model, history


def flow(made: Flow, images: Images) -> Fitted:
    """A flow, fitted to the bound on the mass of pixels."""
    model = mass(made, images)
    history = model.fit(images.train, images.training, validation=images.validation, generator=images.generator)
    return model, history


def mass(density: Density, images: Images) -> LinkedModel:
    """The mass function of levels that a density on ℝᴰ makes in their box, by rounding down."""
    return layered(Flow(density, images.box), UniformDequantisation(images.features, images.data.levels))


def multi_scale_flow(data: GreyImages, settings: Settings) -> Flow:
    """Of the settings' sizes."""
    network = partial(convolutional_network, hidden=settings.flow_channels)
    return image_flow(data.shape, settings.flow_levels, settings.flow_steps, network)


def vector_flow(data: GreyImages, settings: Settings, width: int) -> Flow:
    """Of the settings' layers, with two hidden layers of a width in each."""
    return real_nvp(data.features, settings.vector_layers, (width, width))


def matched_width(data: GreyImages, settings: Settings) -> int:
    """The width by which the vector flow's number of parameters is nearest to the multi-scale flow's.

    A number of parameters is quadratic in the width of two hidden layers, so that three widths tell all.
    """
    wanted = parameter_count(multi_scale_flow(data, settings))
    counts = [parameter_count(vector_flow(data, settings, width)) for width in (1, 2, 3)]
    bend = counts[2] - 2 * counts[1] + counts[0]
    slope = counts[1] - counts[0]

    def count(width: int) -> int:
        return counts[0] + slope * (width - 1) + bend * (width - 1) * (width - 2) // 2

    width = 1
    while count(width + 1) <= wanted:
        width += 1
    return width if wanted - count(width) <= count(width + 1) - wanted else width + 1


MODELS: dict[ModelName, Callable[[Images], Fitted]] = {
    "gaussian": gaussian,
    "ppca": ppca,
    "mixture": mixture,
    "nvp": coupling,
    "nvp-wide": wide_coupling,
    "glow": multi_scale,
    "vae": vae,
    "hierarchical": hierarchical,
    "glow-prior": glow_prior,
}


def free_parameters(model: LayeredModel) -> int:
    """Their number: a symmetric matrix counts once, an encoder like everything else."""
    density = model.prior.base if isinstance(model.prior, Flow) else None
    if isinstance(density, PPCA | GaussianMixture):
        return density.parameter_count
    if isinstance(density, Gaussian):
        return density.features * (density.features + 3) // 2
    return parameter_count(model)
