"""PPCA models with random parameters, and data for them."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from lvm.ppca.model import PPCA


def random_ppca(
    features: int, latent_features: int, generator: Generator, *, std: float = 0.7, offset: float = 2.0
) -> PPCA:
    model = PPCA(features, latent_features).double()
    with torch.no_grad():
        model.decoder.weight.copy_(torch.randn(features, latent_features, generator=generator, dtype=torch.float64))
        model.decoder.mean.copy_(offset * torch.randn(features, generator=generator, dtype=torch.float64))
        model.decoder.log_std.fill_(math.log(std))
    return model


def covariance_of(model: PPCA) -> Tensor:
    weight = model.decoder.weight.detach()
    return weight @ weight.mT + model.noise_variance.detach() * torch.eye(model.features, dtype=weight.dtype)


def data(n: int, features: int, rank: int, generator: Generator, *, noise: float = 0.5, scale: float = 2.0) -> Tensor:
    z = torch.randn(n, rank, generator=generator, dtype=torch.float64)
    weight = scale * torch.randn(rank, features, generator=generator, dtype=torch.float64)
    return z @ weight + noise * torch.randn(n, features, generator=generator, dtype=torch.float64) + 3.0
