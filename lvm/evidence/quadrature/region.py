"""The region of latent space to look for mass in: that of the prior, and places that prior and encoder name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.contract import Density
from density.families.gaussian import GaussianFamily
from lvm.latent import LatentVariableModel

DEVIATIONS = 9.0  # of a Gaussian prior, outside of which its mass is 1e-19
DIVISIONS = {1: 32, 2: 6, 3: 3}  # boxes along an axis, by the number of latents
DRAWS = 4096  # that show where any other prior is
SEEDS = 12  # places kept of those named by the prior, and of those named by the encoder
CANDIDATES = 256


@dataclass(frozen=True, eq=False)
class Region:
    """A box centre ± half ``[d]`` to search."""

    centre: Tensor
    half: Tensor

    @staticmethod
    def of(prior: Density, generator: Generator | None) -> Region:
        """Nine standard deviations of a Gaussian prior; of any other, half as much again as 4096 draws span."""
        if isinstance(prior, GaussianFamily):
            mean, scale = prior.at(None)
            return Region(mean.detach(), DEVIATIONS * scale.dense().square().sum(-1).sqrt())
        draws = prior.sample(DRAWS, generator=generator)
        low, high = draws.amin(0), draws.amax(0)
        return Region((low + high) / 2, 0.75 * (high - low))

    def doubled(self) -> Region:
        return Region(self.centre, 2 * self.half)

    def divided(self) -> tuple[Tensor, Tensor]:
        """Centres ``[m, d]`` and half-widths ``[m, d]`` of equal boxes that fill the region."""
        d = self.centre.numel()
        ticks = torch.linspace(-1, 1, 2 * DIVISIONS[d] + 1, dtype=self.half.dtype, device=self.half.device)[1::2]
        offsets = torch.cartesian_prod(*[ticks] * d).reshape(-1, d)
        return self.centre + self.half * offsets, (self.half / DIVISIONS[d]).expand_as(offsets)

    def outside(self, z: Tensor) -> Tensor:
        """Whether places ``[*batch, d]`` lie outside: ``[*batch]``."""
        return ((z - self.centre).abs() > self.half).any(-1)

    def touched(self, low: Tensor, high: Tensor) -> Tensor:
        """Whether boxes [low, high] ``[m, d]`` reach the border: ``[m]``."""
        slack = 1e-9 * self.half
        return ((low <= self.centre - self.half + slack) | (high >= self.centre + self.half - slack)).any(-1)


def seeds(model: LatentVariableModel, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """The best of the encoder's and of the prior's draws for each point: places ``[n, s, d]``, log-joint ``[n, s]``."""
    best_places, best_values = [], []
    draws = model.encoder.sample(CANDIDATES // 8, context=x, generator=generator)
    for z in (draws, model.prior.sample(CANDIDATES, generator=generator).unsqueeze(1)):
        values = model.log_joint(x, z).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        top, index = values.topk(min(SEEDS, values.shape[0]), dim=0)
        best_values.append(top.mT)
        z = z.expand(*values.shape, z.shape[-1])
        best_places.append(z.gather(0, index.unsqueeze(-1).expand(*index.shape, z.shape[-1])).movedim(0, 1))
    return torch.cat(best_places, 1), torch.cat(best_values, 1)
