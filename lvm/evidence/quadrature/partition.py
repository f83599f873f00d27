"""Boxes that fill a region of latent space, in which the nodes of a rule tell of all that draws of the prior show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from density.contract import Density
from lvm.evidence.quadrature.boxes import Boxes
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.region import Draws, Region
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
        pieces = self.boxes.point.bincount()
        return (pieces > 1)[self.region.number_of_box(centre)]


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
    whole = Partition.equal(region)
    d = rule.dimensions
    log_prior = Integrand.of_prior(prior)
    pending, settled = whole.boxes, list[Boxes]()
    draws = draws[~region.outside(draws.z)]
    box = region.number_of_box(draws.z)
    room = NODES // rule.nodes.shape[0] - pending.point.numel()
    while pending.point.numel():
        nodes = rule.nodes_of(pending.centre, pending.half)
        values = log_prior.shared(nodes.flatten(0, 1)).reshape(nodes.shape[:2])
        missed = _missed(pending, values, rule, draws, box, unexplained)
        missed &= draws.log_prior + pending.log_volume[box] > math.log(floor)
        cut = torch.zeros_like(pending.point, dtype=torch.bool)
        cut[box[missed]] = True
        cut &= ~pending.beyond_resolution()
        room -= (2**d - 1) * int(cut.sum())
        if room < 0:
            cut.zero_()
        axes = _narrow_axes(pending, draws.z[missed], box[missed])
        settled.append(pending[~cut])
        pending, draws = pending[cut].halved(axes[cut]), draws[(missed & cut[box]).nonzero().squeeze(1)[:KEPT]]
        box = _nearest(pending, draws.z)
    return Partition(region, Boxes.concatenate(settled))


def _missed(boxes: Boxes, values: Tensor, rule: GaussKronrod, draws: Draws, box: Tensor, unexplained: float) -> Tensor:
    """Draws ``[k]`` at which both the density and its logarithm are unlike what values at the nodes ``[m, N]`` say."""
    parts = [draws.log_prior[:0]]
    for rows in torch.arange(box.numel(), device=box.device).split(VALUES_AT_ONCE // values.shape[1]):
        here = box[rows]
        weights = rule.interpolation((draws.z[rows] - boxes.centre[here]) / boxes.half[here])
        relative = values[here] - draws.log_prior[rows].unsqueeze(1)
        error = (weights * relative).sum(1).abs().nan_to_num(nan=torch.inf)
        worse = error > unexplained
        of_density = ((weights[worse] * relative[worse].clamp_max(100).exp()).sum(1) - 1).abs()
        parts.append(error.masked_scatter(worse, torch.minimum(error[worse], of_density.nan_to_num(nan=torch.inf))))
    return torch.cat(parts) > unexplained


def _narrow_axes(boxes: Boxes, z: Tensor, box: Tensor) -> Tensor:
    """Axes ``[m, d]`` along which the places z ``[k, d]`` in each box lie close together; all if there is none."""
    offset = (z - boxes.centre[box]) / boxes.half[box]
    count = box.bincount(minlength=boxes.point.numel()).clamp_min(1).unsqueeze(1)
    mean = torch.zeros_like(boxes.centre).index_add(0, box, offset) / count
    spread = (torch.zeros_like(mean).index_add(0, box, (offset - mean[box]).square()) / count).sqrt()
    narrow = spread < NARROW
    return narrow | ~narrow.any(1, keepdim=True)


def _nearest(boxes: Boxes, z: Tensor) -> Tensor:
    """The box that each of the places ``[k, d]`` lies in: ``[k]``."""
    parts = [boxes.point[:0]]
    for places in z.split(max(1, VALUES_AT_ONCE // max(1, boxes.centre.numel()))) if z.shape[0] else ():
        offset = ((places.unsqueeze(1) - boxes.centre) / boxes.half).abs().amax(2)
        parts.append(offset.argmin(1))
    return torch.cat(parts)
