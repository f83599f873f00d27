"""Diffusions of which everything is known: normal data and its exact denoiser, chains whose network is affine."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from lvm import GaussianDiffusion, Schedule
from lvm.diffusion.denoiser import alpha, sigma


class ExactNoise(nn.Module):
    """E[ε | z] for data of independent normal features of standard deviations s."""

    std: Tensor

    def __init__(self, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("std", std)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return sigma(gamma) * z / variance_at(self.std, gamma)


def variance_at(std: Tensor, gamma: Tensor) -> Tensor:
    """Of latents of such data."""
    return alpha(gamma).square() * std.square() + sigma(gamma).square()


def noise_error(x: Tensor, std: Tensor, gamma: Tensor) -> Tensor:
    """E‖ε − ε̂‖² at points ``[n, D]`` and γ ``[T]``: ``[T, n]``."""
    gamma = gamma[:, None, None]
    variance = variance_at(std, gamma)
    signal = alpha(gamma).square()
    mean_square = (signal * std.square() / variance).square() + sigma(gamma).square() * signal * (x / variance).square()
    return mean_square.sum(-1)


def normal_log_prob(x: Tensor, std: Tensor) -> Tensor:
    return (-0.5 * (x / std).square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def exact_diffusion(std: Tensor, steps: int, schedule: Schedule) -> GaussianDiffusion:
    return GaussianDiffusion(ExactNoise(std), len(std), steps, schedule).double()


def first_latent(model: GaussianDiffusion, covariance: Tensor, context: Tensor | None = None) -> MultivariateNormal:
    """What a chain whose denoiser is affine in z makes of z_1 from normal z_T of a covariance, at a context ``[C]``."""
    link, axes = model.layer, torch.eye(model.features, dtype=covariance.dtype)
    made = MultivariateNormal(axes.new_zeros(model.features), covariance)
    for high, low in pairwise(link.gammas().flip(0)):
        made = _through(made, lambda z, low=low, high=high: link._decoder(z, low, high, context))
    return made


def chain_log_prob(model: GaussianDiffusion, x: Tensor, context: Tensor | None = None) -> Tensor:
    """log p(x) of such a chain, at a context ``[C]``."""
    link = model.layer
    first, axes = link.gammas()[0], torch.eye(model.features, dtype=x.dtype)
    made = first_latent(model, axes, context)
    made = _through(made, lambda z: (link.denoiser.clean(z, first, context), (first / 2).exp()))
    shift, unit = link.standardise.shift, link.standardise.scale
    return made.log_prob((x - shift) / unit) - unit.log().sum()


def _through(z: MultivariateNormal, step: Callable[[Tensor], tuple[Tensor, Tensor]]) -> MultivariateNormal:
    axes = torch.eye(len(z.mean), dtype=z.mean.dtype)
    offset, scale = step(torch.zeros_like(axes[:1]))
    matrix = (step(axes)[0] - offset).T
    covariance = matrix @ z.covariance_matrix @ matrix.T + scale.square() * axes
    return MultivariateNormal(matrix @ z.mean + offset[0], 0.5 * (covariance + covariance.T))
