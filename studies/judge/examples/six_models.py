"""Six models of four libraries and of plain modules: a file for ``python -m studies.judge``.

Functions in ``to_fit`` take the number of features and build a model, which the study fits. Those in ``fitted`` take
the training rows and return a fitted model. A library is imported where it is needed, so that the others can be judged
without it.
"""

from __future__ import annotations

from torch import Tensor, nn

from bridge import flow_from_nflows, from_functions, from_zuko, mixture_from_sklearn
from density import FixedScale, Model
from flows import spline_maf
from lvm import VAE


class Encoder(nn.Sequential):
    """Mean and log-variance of two latents."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().forward(x).chunk(2, -1)


def vae_of_modules(features: int) -> Model:
    """Networks in plain PyTorch, two latents: log p(x) is found by quadrature."""
    encoder = Encoder(nn.Linear(features, 64), nn.Tanh(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, features))
    return from_functions(encoder, decoder, event_shape=features, latent_features=2, likelihood=FixedScale(0.1))


def maf_of_nflows(features: int) -> Model:
    """Masked affine autoregressive layers."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation

    layers = []
    for _ in range(5):
        layers += [ReversePermutation(features), MaskedAffineAutoregressiveTransform(features, 64)]
    return flow_from_nflows(Flow(CompositeTransform(layers), StandardNormal([features])))


def nsf_of_zuko(features: int) -> Model:
    """An autoregressive spline flow."""
    import zuko

    return from_zuko(zuko.flows.NSF(features, transforms=3, hidden_features=(64, 64)))


def mixture_of_sklearn(train: Tensor) -> Model:
    """Twenty components, fitted by scikit-learn itself."""
    from sklearn.mixture import GaussianMixture

    return mixture_from_sklearn(GaussianMixture(20, random_state=0).fit(train.double().numpy(force=True)))


to_fit = {
    "spline flow": spline_maf,
    "VAE, 4 latents": lambda features: VAE.gaussian(features, latent_features=4, hidden=(64, 64)),
    "VAE of plain modules": vae_of_modules,
    "MAF of nflows": maf_of_nflows,
    "NSF of zuko": nsf_of_zuko,
}
fitted = {"mixture of scikit-learn": mixture_of_sklearn}
