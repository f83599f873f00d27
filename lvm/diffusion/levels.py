"""The chain of a diffusion as densities, a level each: what a hierarchical VAE is made of."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from density.contract import Density
from density.families.conditional_gaussian import ConditionalGaussian, FixedScale, PerFeatureScale, ScaleModel
from density.families.network import OutOfPlace
from lvm.diffusion.denoiser import alpha, sigma
from lvm.diffusion.link import DiffusionLink


class Encoded(OutOfPlace):
    """The mean of q(z_1|x), with the link of which x is standardised, or without one of q(z_i|z_{i−1}): a factor."""

    factor: Tensor

    def __init__(self, factor: Tensor, link: DiffusionLink | None = None) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.link = link

    def forward(self, z: Tensor) -> Tensor:
        """``[n, D]`` of points or latents ``[n, D]``."""
        return self.factor * (z if self.link is None else self.link.standardise(z))


class Decoded(OutOfPlace):
    """The mean of p(z_{i−1}|z_i), at γ of both, or of p(x|z_1)."""

    high: Tensor
    low: Tensor | None

    def __init__(self, link: DiffusionLink, high: Tensor, low: Tensor | None = None) -> None:
        super().__init__()
        self.link = link
        self.register_buffer("high", high)
        self.register_buffer("low", low)

    def forward(self, z: Tensor) -> Tensor:
        """``[n, D]`` of latents ``[n, D]``."""
        if self.low is not None:
            return self.link._decoder(z, self.low, self.high)[0]
        return self.link.standardise.inverse(self.link.denoiser.clean(z, self.high))


@torch.no_grad()
def levels(link: DiffusionLink) -> tuple[list[Density], list[Density]]:
    """Encoders q(z_1|x), q(z_2|z_1), … and decoders p(x|z_1), p(z_1|z_2), … of an unconditional link.

    They share its denoiser; schedule and standardisation are those of now. O(T).
    """
    gammas, unit = link.gammas(), link.standardise.scale

    def gaussian(mean: OutOfPlace, scale: ScaleModel) -> Density:
        return ConditionalGaussian(mean, link.features, link.features, scale)

    observed = PerFeatureScale(link.features).to(unit)
    observed.log_std.copy_(unit.log() + gammas[0] / 2)
    encoders = [gaussian(Encoded(alpha(gammas[0]), link), FixedScale(float(sigma(gammas[0]))))]
    decoders = [gaussian(Decoded(link, gammas[0]), observed.requires_grad_(False))]
    for low, high in pairwise(gammas):
        change = (-torch.expm1(low - high)).sqrt()
        encoders.append(gaussian(Encoded(alpha(high) / alpha(low)), FixedScale(float(change * sigma(high)))))
        decoders.append(gaussian(Decoded(link, high, low), FixedScale(float(change * sigma(low)))))
    return encoders, decoders
