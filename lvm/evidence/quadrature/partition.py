"""Boxes that fill a region of latent space, in which the nodes of a rule tell of all that draws of the prior show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from density.contract import Density
from lvm.evidence.quadrature.boxes import Boxes, pieces
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.region import Draws, Region
from lvm.evidence.quadrature.rows import count_by, marked
from lvm.evidence.quadrature.rules import GaussKronrod

NODES = 2**17  # of all boxes together
NARROW = 0.3  # spread of the draws that are not told of, in half-widths; uniform ones have 0.58
KEPT = 2**13  # draws that are not told of, from one round of cuts to the next
VALUES_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Partition:
    """Where the search for mass begins.

    Attributes:
        region: that the boxes fill.
        boxes: their ``point`` is the number of the equal box of the region that each is part of.
        missing: mass of the prior that is certainly not seen in the boxes.
        uncertain: mass of the prior that may be unseen beside that.
        log_prior: at the nodes of all boxes, ``[m N]``; None where nothing is missing.
    """

    region: Region
    boxes: Boxes
    missing: float = 0.0
    uncertain: float = 0.0
    log_prior: Tensor | None = None

    @staticmethod
    def equal(region: Region) -> Partition:
        """Equal boxes, as for a Gaussian prior, whose flanks show everywhere where it is."""
        centre, half = region.divided()
        return Partition(region, Boxes(torch.arange(centre.shape[0], device=centre.device), centre, half))

    def nodes(self, rule: GaussKronrod) -> Tensor:
        """Places ``[m N, d]`` of the rule's nodes in all boxes."""
        return rule.nodes_of(self.boxes.centre, self.boxes.half).flatten(0, 1)

    def divided(self, centre: Tensor) -> Tensor:
        """Whether places ``[k, d]`` lie in an equal box that had to be cut: ``[k]``."""
        return self._cut[self.region.number_of_box(centre)]

    @cached_property
    def _cut(self) -> Tensor:
        return count_by(self.boxes.point, self.region.boxes) > 1


def resolving(
    region: Region, prior: Density, rule: GaussKronrod, draws: Draws, unexplained: float, floor: float
) -> Partition:
    """Equal boxes, cut where the prior has draws that the nodes do not tell of.

    The nodes tell of a draw if a polynomial through them, of the density or of its logarithm, gives the density there.
    So a narrow component that hides between all nodes is found, however little it adds to what is around it.

    Args:
        unexplained: relative error of the polynomial, above which the box is cut.
        floor: mass that a box may have without being cut.
    """
    d = rule.dimensions
    log_prior = Integrand.of_prior(prior)
    pending, settled = Partition.equal(region).boxes, list[Boxes]()
    inside = ~region.outside(draws.z)
    draws = draws[marked(inside, *log_prior.look(inside.sum()))]
    box = region.number_of_box(draws.z)
    room = NODES // rule.nodes.shape[0] - pending.point.numel()
    while pending.point.numel():
        m = pending.point.numel()
        nodes = rule.nodes_of(pending.centre, pending.half)
        values = log_prior.shared(nodes.flatten(0, 1)).view(nodes.shape[:2])
        untold = _untold(pending, values, rule, draws, box, unexplained, log_prior.look)
        untold &= draws.log_prior + pending.log_volume[box] > math.log(floor)
        cut = (count_by(box, m, untold) > 0) & ~pending.beyond_resolution()
        axes = _narrow_axes(pending, draws.z, box, untold)
        untold &= cut[box]
        parents, children, left = log_prior.look(cut.sum(), (pieces(axes) * cut).sum(), untold.sum())
        room -= (2**d - 1) * parents
        if room < 0:
            settled.append(pending)
            break
        settled.append(pending[marked(~cut, m - parents)])
        halving = marked(cut, parents)
        halves, there = pending[halving].halved(axes.index_select(0, halving))
        pending, draws = halves[marked(there, children)], draws[marked(untold, left)[:KEPT]]
        box = _nearest(pending, draws.z)
    return Partition(region, Boxes.concatenate(settled))


def _untold(
    boxes: Boxes,
    values: Tensor,
    rule: GaussKronrod,
    draws: Draws,
    box: Tensor,
    unexplained: float,
    look: Callable[[Tensor], list[int]],
) -> Tensor:
    """Draws ``[k]`` at which both the density and its logarithm are unlike what values at the nodes ``[m, N]`` say."""

    def relative(draws: Draws, box: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights at draws, and values at the nodes relative to the draw's own, a block after the other."""
        size = max(1, VALUES_AT_ONCE // values.shape[1])
        for z, own, here in zip(draws.z.split(size), draws.log_prior.split(size), box.split(size), strict=True):
            centre, half, at_nodes = (t.index_select(0, here) for t in (boxes.centre, boxes.half, values))
            yield rule.interpolation((z - centre) / half), at_nodes - own.unsqueeze(1)

    logs = [(weights * log_ratio).sum(1).abs() for weights, log_ratio in relative(draws, box)]
    untold = torch.cat([draws.log_prior[:0], *logs]).nan_to_num(nan=torch.inf) > unexplained
    again = marked(untold, *look(untold.sum()))
    densities = [
        ((weights * log_ratio.clamp_max(100).exp()).sum(1) - 1).abs()
        for weights, log_ratio in relative(draws[again], box.index_select(0, again))
    ]
    of_density = torch.cat([draws.log_prior[:0], *densities]).nan_to_num(nan=torch.inf)
    return untold.index_put((again,), of_density > unexplained)


def _narrow_axes(boxes: Boxes, z: Tensor, box: Tensor, which: Tensor) -> Tensor:
    """Axes ``[m, d]`` along which those places z ``[k, d]`` in each box lie close together; all if there is none."""
    weight = which.to(z).unsqueeze(1)
    offset = (z - boxes.centre.index_select(0, box)) / boxes.half.index_select(0, box)
    count = torch.zeros_like(boxes.centre[:, :1]).index_add_(0, box, weight).clamp_min(1)
    mean = torch.zeros_like(boxes.centre).index_add_(0, box, weight * offset) / count
    off = weight * (offset - mean.index_select(0, box)).square()
    narrow = (torch.zeros_like(mean).index_add_(0, box, off) / count).sqrt() < NARROW
    return narrow | ~narrow.any(1, keepdim=True)


def _nearest(boxes: Boxes, z: Tensor) -> Tensor:
    """The box that each of the places ``[k, d]`` lies in: ``[k]``."""
    parts = [boxes.point[:0]]
    for places in z.split(max(1, VALUES_AT_ONCE // max(1, boxes.centre.numel()))) if z.shape[0] else ():
        offset = ((places.unsqueeze(1) - boxes.centre) / boxes.half).abs().amax(2)
        parts.append(offset.argmin(1))
    return torch.cat(parts)
