"""Variational autoencoder: amortised inference with an encoder network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor, nn

from density.contract import Density
from density.families.bernoulli import ConditionalBernoulli
from density.families.conditional_gaussian import ConditionalGaussian, NetworkScale, ScaleModel
from density.families.gaussian import StandardNormal
from density.families.nets import mlp
from density.families.rescaled import Rescaled
from density.fitting.batches import Objective
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.initialisation import Standardisation
from lvm.latent import LatentVariableModel, check_three
from lvm.vae.gradients import AnalyticKL, GradientEstimator

ANALYTIC_KL = AnalyticKL()
START = 0.3  # σ of a decoder of standardised data: from 1 a single latent may never come into use


class VAE(LatentVariableModel):
    r"""A prior p(z), a decoder p(x|z) and an encoder q(z|x), trained by maximising the ELBO (Kingma & Welling 2014).

    .. math:: \mathcal L(x) = E_{q(z|x)} \log p(x|z) - KL(q(z|x) \,\|\, p(z)) \le \log p(x)

    Any three densities of matching sizes make a VAE: a flow or a mixture may be the prior or the encoder, and networks
    of any architecture, which see points as rows, fit into
    :class:`~density.families.conditional_gaussian.ConditionalGaussian` and
    :class:`~density.families.bernoulli.ConditionalBernoulli`. :meth:`gaussian` and :meth:`bernoulli` build the usual
    ones.

    The ELBO is a lower bound; :meth:`log_density` gives the tighter importance-weighted one with its errors, and
    ``lvm.evidence.gap`` what lies between. Generation needs no encoder.

    Args:
        prior: unconditional density over z ``[*batch, d]``.
        encoder: density over z with x as context; if it is not reparametrised (or z is discrete), ``fit`` needs a
            score-function estimator.
        decoder: density over x with z as context. Its measure is the model's.

    Raises:
        ValueError: the sizes do not fit together; the message names the two that disagree.

    >>> import torch
    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> _ = torch.manual_seed(0)
    >>> model = VAE.gaussian(features=3, latent_features=1, hidden=(16,))
    >>> history = model.fit(x, Training(epochs=5), generator=torch.Generator().manual_seed(0))
    >>> claim = model.log_density(x, draws=100, generator=torch.Generator().manual_seed(0))
    >>> claim.kind, claim.method
    (<Kind.LOWER: 'lower bound'>, 'importance-weighted bound, 100 draws')
    """

    def __init__(self, prior: Density, encoder: Density, decoder: Density) -> None:
        super().__init__()
        check_three(prior, encoder, decoder)
        self.features = decoder.features
        self.latent_features = encoder.features
        self.measure = decoder.measure
        self.prior = prior
        self.encoder = encoder
        self.decoder = decoder

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
        """
        scale = NetworkScale(std=START) if scale is None else scale
        network = mlp(latent_features, scale.outputs * features, hidden[::-1])
        decoder: Density = ConditionalGaussian(network, features, latent_features, scale)
        if standardise:
            decoder = Rescaled(decoder)
        return cls(
            prior if prior is not None else StandardNormal(latent_features),
            _gaussian_encoder(features, latent_features, hidden, standardise, encoder_scale),
            decoder,
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
    ) -> VAE:
        """The VAE of binary data: diagonal Gaussian encoder, Bernoulli decoder; its measure is counting.

        Args: as in :meth:`gaussian`.
        """
        return cls(
            prior if prior is not None else StandardNormal(latent_features),
            _gaussian_encoder(features, latent_features, hidden, False, encoder_scale),
            ConditionalBernoulli(mlp(latent_features, features, hidden[::-1]), features, latent_features),
        )

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        estimator: GradientEstimator = ANALYTIC_KL,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise a bound on the mean log p(x) of x ``[n, D]``, the ELBO unless said otherwise, by gradient steps.

        Args:
            x: a tensor, whose rows are read where they lie, be it in a file that is mapped; or what
                :class:`~density.data.chunks.Chunks` reads, such as a DataLoader. What comes beside the rows in a
                chunk, labels perhaps, is left alone.
            training: see :class:`~density.fitting.training.Training`.
            estimator: of the gradient, see :mod:`lvm.vae.gradients`: the bound, and the number of draws, are its. The
                default is the reparametrised ELBO with the KL in closed form; ``AnalyticKL(kl_weight=beta)`` is the
                β-VAE, ``DoublyReparametrised(draws=K)`` trains the importance-weighted bound.
            weights: of the rows ``[n]``, not negative: the weighted mean is maximised. A row of weight 0 is not there.
                Chunks may bring them along, ``Chunks(loader, weighted=True)``.
            validation: rows ``[m, D]`` to hold out, in place of a share of x, perhaps in chunks; held in memory.

        Returns:
            History whose objective is the estimator's bound, nats per point.

        Raises:
            ValueError: unusable data, or data in other units than those of an earlier fit (:meth:`initialise`).
            TypeError: the estimator differentiates through the latent draws, and the encoder is not reparametrised.
            NonFiniteObjective: the objective overflowed; the last good weights are kept.

        Warns:
            TiedColumns: columns of integers, ties or copies, on which the likelihood has no maximum.
        """
        given = prepare(self, x, training, self._check_support, weights=weights, validation=validation)

        def bound(estimator: GradientEstimator) -> Objective:
            return lambda batch, generator: estimator(self, batch[0], generator)

        judge = estimator.settled()
        stepwise = None if judge is estimator else lambda step: bound(estimator.at(step))
        return given.maximise(self, bound(judge), training, generator, stepwise=stepwise, period=estimator.period)


def _gaussian_encoder(
    features: int, latent_features: int, hidden: Sequence[int], standardise: bool, scale: ScaleModel | None
) -> Density:
    scale = NetworkScale() if scale is None else scale
    network: nn.Module = mlp(features, scale.outputs * latent_features, hidden)
    if standardise:
        network = nn.Sequential(Standardisation(features), network)
    return ConditionalGaussian(network, latent_features, features, scale)
