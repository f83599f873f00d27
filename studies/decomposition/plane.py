"""Integrals over a plane of two latents: sums over a grid, and the ELBO of Gaussians by a Gauss-Hermite rule."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from density import ConditionalGaussian
from lvm import VAE

LATENTS = 2
REACH = 5.0  # of the grids, in standard deviations of the prior
GAUSS_HERMITE = 9  # nodes along an axis: exact for polynomials of degree 17


def grid(count: int, like: Tensor) -> tuple[Tensor, float]:
    """The cells' lower corners ``[count², 2]`` of a square grid over the prior, and the area of a cell."""
    width = 2 * REACH / count
    ticks = -REACH + width * torch.arange(count, dtype=like.dtype, device=like.device)
    return torch.cartesian_prod(ticks, ticks), width**LATENTS


def log_joint_at(model: VAE, x: Tensor, nodes: Tensor) -> Tensor:
    """log p(x, z) of every point and node: ``[n, m]``; one pass of the decoder a node, and one matrix product."""
    assert isinstance(model.decoder, ConditionalGaussian)
    mean, scale = model.decoder.at(nodes)
    whitened, targets = scale.whiten(mean), x / scale.color(torch.ones_like(mean))[:1]
    square = targets.square().sum(1, keepdim=True) + whitened.square().sum(1) - 2 * targets @ whitened.mT
    constant = scale.log_det() + 0.5 * x.shape[1] * math.log(2 * math.pi)
    return model.prior.log_prob(nodes) - 0.5 * square.clamp_min(0) - constant


def best_gaussian(
    model: VAE, x: Tensor, mean: Tensor, factor: Tensor, *, independent: bool, steps: int = 400
) -> tuple[Tensor, Tensor]:
    """The Gaussian q of each point with the largest ELBO near the one given: means ``[n, 2]``, factors ``[n, 2, 2]``.

    Adam on the ELBO by Gauss-Hermite nodes, so without noise; O(n · steps) times 81 passes of the decoder.
    """
    at = mean.clone().requires_grad_()
    log_std = factor.diagonal(dim1=-2, dim2=-1).log().clone().requires_grad_()
    below = torch.zeros_like(mean[:, :1]).requires_grad_()
    parameters = [at, log_std] if independent else [at, log_std, below]
    optimiser = torch.optim.Adam(parameters, lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    model.requires_grad_(False)

    def root() -> Tensor:
        std = log_std.exp()
        lower = torch.stack([torch.zeros_like(below), below * std[:, 1:]], -2)  # [[0, 0], [b, 0]] of each point
        return torch.diag_embed(std) + torch.cat([lower, torch.zeros_like(lower)], -1)

    for _ in range(steps):
        optimiser.zero_grad()
        (-gaussian_elbo(model, x, at, root())).sum().backward()
        optimiser.step()
        schedule.step()
    return at.detach(), root().detach()


def gaussian_elbo(model: VAE, x: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """The ELBO ``[n]`` of q(z|x) = N(mean, factor factorᵀ), by a Gauss-Hermite rule."""
    points, weights = np.polynomial.hermite_e.hermegauss(GAUSS_HERMITE)
    node, weight = torch.as_tensor(points).to(x), torch.as_tensor(weights / weights.sum()).to(x)
    noise = torch.cartesian_prod(node, node)
    product = torch.cartesian_prod(weight, weight).prod(-1)
    z = mean + (factor @ noise.mT).permute(2, 0, 1)
    log_q = -0.5 * noise.square().sum(-1, keepdim=True) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return product @ (model.log_joint(x, z) - log_q + math.log(2 * math.pi))
