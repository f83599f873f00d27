"""The region of latent space to look for mass in: that of the prior, and places that prior and encoder name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from density.contract import Density
from density.families.categorical import CategoricalFamily
from density.families.gaussian import GaussianFamily
from lvm.evidence.quadrature.joint import Joint
from lvm.evidence.quadrature.rows import marked
from lvm.latent import LatentVariableModel

DEVIATIONS = 9.0  # of a Gaussian prior, outside of which its mass is 1e-19
DIVISIONS = {1: 32, 2: 6, 3: 3}  # boxes along an axis, by the number of latents
DRAWS = {1: 2**16, 2: 2**15, 3: 2**13}  # that show where any other prior is
OF_COMPONENTS = 2**12  # draws of a prior whose components are known, before they are stretched
STRETCHED = (1.0, 1.5, 2.25)  # so that draws of a Gaussian component reach eight standard deviations
SEEDS = 12  # places kept of those named by the prior, and of those named by the encoder
CANDIDATES = 256


@dataclass(frozen=True, eq=False)
class Draws:
    """Places z ``[k, d]`` where a prior may be, and its log-density there ``[k]``.

    Attributes:
        reach: half-width of the region that holds the prior, in units of what the places span.
    """

    z: Tensor
    log_prior: Tensor
    reach: float

    @staticmethod
    def of(prior: Density, generator: Generator | None) -> Draws:
        """Draws that show where a prior is; of a mixture, as many of each component whatever its weight, and tails."""
        if isinstance(prior, LatentVariableModel) and isinstance(prior.prior, CategoricalFamily):
            components = prior.prior.enumerate()
            each = max(2**6, OF_COMPONENTS // components.shape[0])
            z = prior.decoder.sample(each, context=components, generator=generator)
            z = torch.cat([z.mean(0) + stretch * (z - z.mean(0)) for stretch in STRETCHED]).flatten(0, 1)
            reach = 0.6
        else:
            reach = 1.4
            z = prior.sample(DRAWS[prior.features], generator=generator)
        log_prior = prior.log_prob(z)
        usable = z.isfinite().all(-1) & log_prior.isfinite()
        usable = marked(usable, int(usable.sum()))
        return Draws(z.index_select(0, usable), log_prior.index_select(0, usable), reach)

    def __getitem__(self, index: Tensor) -> Draws:
        return replace(self, z=self.z.index_select(0, index), log_prior=self.log_prior.index_select(0, index))


@dataclass(frozen=True, eq=False)
class Region:
    """A box centre ± half ``[d]`` to search."""

    centre: Tensor
    half: Tensor

    @staticmethod
    def of(prior: GaussianFamily) -> Region:
        """Nine standard deviations of a Gaussian prior."""
        mean, scale = prior.at(None)
        return Region(mean.detach(), DEVIATIONS * scale.dense().square().sum(-1).sqrt())

    @staticmethod
    def around(draws: Draws) -> Region:
        """Wider than draws span: more than nine standard deviations of a Gaussian, or of each of several."""
        low, high = draws.z.amin(0), draws.z.amax(0)
        return Region((low + high) / 2, draws.reach * (high - low))

    def grown(self, factor: float) -> Region:
        return Region(self.centre, factor * self.half)

    @property
    def boxes(self) -> int:
        """How many equal boxes fill the region."""
        return DIVISIONS[self.centre.numel()] ** self.centre.numel()

    def divided(self) -> tuple[Tensor, Tensor]:
        """Centres ``[m, d]`` and half-widths ``[m, d]`` of equal boxes that fill the region."""
        d = self.centre.numel()
        ticks = torch.linspace(-1, 1, 2 * DIVISIONS[d] + 1, dtype=self.half.dtype, device=self.half.device)[1::2]
        offsets = torch.cartesian_prod(*[ticks] * d).reshape(-1, d)
        return self.centre + self.half * offsets, (self.half / DIVISIONS[d]).expand_as(offsets)

    def number_of_box(self, z: Tensor) -> Tensor:
        """Which of the equal boxes each of the places ``[k, d]`` within the region lies in: ``[k]``."""
        d = self.centre.numel()
        steps = ((z - self.centre) / self.half + 1) * (DIVISIONS[d] / 2)
        steps = steps.floor().clamp(0, DIVISIONS[d] - 1).long()
        powers = DIVISIONS[d] ** torch.arange(d - 1, -1, -1, device=z.device)
        return (steps * powers).sum(-1)

    def outside(self, z: Tensor) -> Tensor:
        """Whether places ``[*batch, d]`` lie outside: ``[*batch]``."""
        return ((z - self.centre).abs() > self.half).any(-1)

    def touched(self, low: Tensor, high: Tensor) -> Tensor:
        """Whether boxes [low, high] ``[m, d]`` reach the border: ``[m]``."""
        slack = 1e-9 * self.half
        return ((low <= self.centre - self.half + slack) | (high >= self.centre + self.half - slack)).any(-1)


def seeds(joint: Joint, rows: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """The best of the encoder's and of the prior's draws for each point: places ``[n, s, d]``, log-joint ``[n, s]``."""
    best_places, best_values = [], []
    draws = joint.encoded(rows, CANDIDATES // 8, generator)
    for z in (draws, joint.prior.sample(CANDIDATES, generator=generator).unsqueeze(1)):
        values = joint(rows, z).nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        top, index = values.topk(min(SEEDS, values.shape[0]), dim=0)
        best_values.append(top.mT)
        z = z.expand(*values.shape, z.shape[-1])
        best_places.append(z.gather(0, index.unsqueeze(-1).expand(*index.shape, z.shape[-1])).movedim(0, 1))
    return torch.cat(best_places, 1), torch.cat(best_values, 1)
