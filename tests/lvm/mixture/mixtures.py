"""Mixtures at random parameters, and data drawn from separated ones, for the tests of GaussianMixture."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lvm.mixture.covariance import Covariance, Diagonal, Full, Spherical, Tied
from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture

STRUCTURES: tuple[Covariance, ...] = (Full(), Tied(), Diagonal(), Spherical())
UNREGULARISED = EM(regularisation=0.0, progress=False)
SKLEARN = {Full(): "full", Tied(): "tied", Diagonal(): "diag", Spherical(): "spherical"}


def random_mixture(
    covariance: Covariance, generator: Generator, *, features: int = 3, components: int = 4, spread: float = 2.0
) -> GaussianMixture:
    """Nothing is an identity: weights, means, scales and correlations are all drawn, float64."""
    model = GaussianMixture(features, components, covariance).double()
    with torch.no_grad():
        for parameter, size in ((model.prior.logits, 0.7), (model.decoder.means, spread), (model.decoder.factor, 0.4)):
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def dense(model: GaussianMixture) -> Tensor:
    """The covariances of any structure, written out as ``[K, D, D]``."""
    k, d, covariances = model.components, model.features, model.covariances.detach()
    match model.covariance:
        case Tied():
            return covariances.expand(k, d, d)
        case Full():
            return covariances
        case Diagonal():
            return torch.diag_embed(covariances)
        case _:
            return covariances[:, None, None] * torch.eye(d, dtype=covariances.dtype)


def separated(generator: Generator, n: int = 300, features: int = 3, components: int = 3) -> Tensor:
    """Rows drawn from a mixture whose components overlap little."""
    return (
        random_mixture(Full(), generator, features=features, components=components, spread=4)
        .sample(n, generator=generator)
        .detach()
    )


def seed(value: int) -> Generator:
    return Generator().manual_seed(value)
