r"""log p(x) of the chain of a diffusion in one or two dimensions, by grids of its latents.

.. math:: p(z_{i-1}) = \int N(z_{i-1}; m_i(z_i), s_i^2 I)\, p(z_i)\, dz_i, \qquad
          p(x) = \int N(x; \hat x(z_1), s_1^2 I)\, p(z_1)\, dz_1

Trapezoid rules on all of ℝᴰ: for a normal of standard deviation s their error is 2 exp(−2π² s²/h²) of it, so that two
nodes a standard deviation leave nothing in float64 where m_i has a slope of 1. Every latent has a grid of its own, as
fine as the narrower of the normals that lead to it and away from it; a second set of grids tells how far off one is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from density import Kind, LogDensity
from density.data.points import Points
from lvm import GaussianDiffusion
from lvm.diffusion.denoiser import alpha, sigma

REACH = 8.0  # standard deviations, beyond which a normal counts as 0: e⁻³² of its height
RATIOS = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12)  # standard deviations from node to node, one grid after the other
NEGLIGIBLE = 1e-18  # mass of a node, of which a million are nothing
BLOCK = 1 << 22  # numbers at a time


@dataclass(frozen=True, eq=False)
class Nodes:
    """The masses that a density has around the nodes of a grid about 0, as wide as it has any.

    Attributes:
        mass: ``[N, …, N]``, D times.
        spacing: from node to node.
    """

    mass: Tensor
    spacing: float

    def kept(self) -> tuple[Tensor, Tensor]:
        """Places ``[k, D]`` and masses ``[k]`` of the nodes where there is mass."""
        index = (self.mass > NEGLIGIBLE).nonzero()
        half = (self.mass.shape[0] - 1) // 2
        return (index - half).to(self.mass) * self.spacing, self.mass[tuple(index.T)]


@torch.no_grad()
def grid_claim(model: GaussianDiffusion, x: Tensor, tolerance: float) -> LogDensity:
    """log p(x) of points ``[n, D]`` under the chain, D = 1 or 2, in float64, with its numerical error.

    Grids are refined until two agree within the tolerance at every point; where none do, it is an estimate. The error
    is that of the coarser of the two, at least.

    Args:
        model: in float64.
        x: points.
        tolerance: nats.

    Cost: T passes over grids; a grid's size grows as the inverse of a step's standard deviation to the power D.
    """
    first, *finer = RATIOS
    coarse = _log_p(model, x, first)
    for ratio in finer:
        fine = _log_p(model, x, ratio)
        error = (fine - coarse).abs()
        if bool((error <= tolerance).all()):
            break
        coarse = fine
    kind = Kind.EXACT if bool((error <= tolerance).all()) else Kind.ESTIMATE
    return LogDensity(fine, kind, "grid", numerical_error=error, measure=model.measure, points=Points.of(x))


def _log_p(model: GaussianDiffusion, x: Tensor, ratio: float) -> Tensor:
    link = model.layer
    gammas = link.gammas()
    standard_deviations = [(gammas[0] / 2).exp(), *((-torch.expm1(-gammas.diff())).sqrt() * sigma(gammas[:-1]))]
    arriving = [*standard_deviations[1:], torch.ones(())]
    spacings = [ratio * min(map(float, pair)) for pair in zip(standard_deviations, arriving, strict=True)]
    nodes = _prior(spacings[-1], x)
    for step in range(link.steps - 1, 0, -1):
        low, high = gammas[step - 1], gammas[step]
        places, mass = nodes.kept()
        change = -torch.expm1(low - high)
        means = alpha(low) / alpha(high) * (places - change * sigma(high) * link.denoiser(places, high))
        nodes = _spread(means, mass, float(standard_deviations[step]), spacings[step - 1])
    places, mass = nodes.kept()
    means = link.denoiser.clean(places, gammas[0])
    log_p = _mixture(link.standardise(x), means, mass, float(standard_deviations[0]))
    return log_p - link.standardise.scale.log().sum()


def _prior(spacing: float, like: Tensor) -> Nodes:
    half = math.ceil(REACH / spacing)
    places = spacing * torch.arange(-half, half + 1, dtype=like.dtype, device=like.device)
    mass = torch.exp(-0.5 * places.square()) * spacing / math.sqrt(2 * math.pi)
    return Nodes(mass if like.shape[1] == 1 else mass[:, None] * mass, spacing)


def _spread(means: Tensor, mass: Tensor, std: float, spacing: float) -> Nodes:
    """Σ_k w_k N(·; m_k, std² I) at the nodes of a new grid, each normal as far as it reaches."""
    features = means.shape[1]
    wide = math.ceil(REACH * std / spacing)
    half = math.ceil(float(means.abs().max()) / spacing) + wide
    size = 2 * half + 1
    steps = torch.arange(-wide, wide + 1, device=means.device)
    new = means.new_zeros(size**features)
    for some, weight in _blocks(means, mass, len(steps) ** features):
        nearest = (some / spacing).round()[..., None] + steps  # [k, D, 2 wide + 1]
        index = nearest.long() + half
        standardised = (nearest * spacing - some[..., None]) / std
        height = torch.exp(-0.5 * standardised.square()) * spacing / (std * math.sqrt(2 * math.pi))
        if features == 1:
            flat, share = index[:, 0], weight[:, None] * height[:, 0]
        else:
            flat = index[:, 0, :, None] * size + index[:, 1, None, :]
            share = weight[:, None, None] * height[:, 0, :, None] * height[:, 1, None, :]
        new.index_add_(0, flat.reshape(-1), share.reshape(-1))
    return Nodes(new.reshape((size,) * features), spacing)


def _mixture(x: Tensor, means: Tensor, mass: Tensor, std: float) -> Tensor:
    """log Σ_k w_k N(x; m_k, std² I) ``[n]``."""
    parts = []
    for rows in x.split(max(1, BLOCK // len(means))):
        square = sum((rows[:, d, None] - means[:, d]).square() for d in range(x.shape[1]))
        parts.append((mass.log() - 0.5 * square / std**2).logsumexp(1))
    return torch.cat(parts) - x.shape[1] * (math.log(std) + 0.5 * math.log(2 * math.pi))


def _blocks(means: Tensor, mass: Tensor, each: int) -> Iterator[tuple[Tensor, Tensor]]:
    most = max(1, BLOCK // each)
    yield from zip(means.split(most), mass.split(most), strict=True)
