"""∫ exp f(z) dz for many f at once, over boxes that adapt to each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lvm.evidence.quadrature.boxes import SHARE, WORTH_TRIMMING, Assessment, Boxes, assess
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.partition import Partition
from lvm.evidence.quadrature.rules import GaussKronrod, log_sum_by

NODES_AT_ONCE = 2**18
MERGED = math.log(3.0)  # how much larger one box may be than those that it replaces
ROUNDING = 8 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Tolerance:
    """Error estimates in nats: ``aim`` to be reached where convergence is fast or cheap, ``enough`` elsewhere."""

    aim: float
    enough: float


class Cubature:
    """The state of n integrals: what is known of their size, what was neglected, how much work was done.

    Args:
        seeds, known: places ``[n, s, d]`` where the log-joint of each point is known, and its values ``[n, s]``.
    """

    def __init__(
        self,
        integrand: Integrand,
        partition: Partition,
        rule: GaussKronrod,
        seeds: Tensor,
        known: Tensor,
        tolerance: Tolerance,
        max_evaluations: int,
    ) -> None:
        self.integrand = integrand
        self.partition = partition
        self.rule = rule
        self.seeds = seeds
        self.known = known
        self.tolerance = tolerance
        self.max_evaluations = max_evaluations
        self.points = integrand.x.shape[0]
        self.low = integrand.x.new_full((self.points,), -math.inf)  # cautious log-integral
        self.peak = known.amax(1)
        self.neglected = self.low.clone()  # log-mass
        self.evaluations = torch.zeros(self.points, dtype=torch.long, device=self.low.device)

    def search(self) -> Assessment:
        """Boxes that hold all mass worth counting and whose nodes resolve it."""
        shared = self.partition.boxes
        values = self.integrand.shared(self.partition.nodes(self.rule))
        if self.partition.log_prior is not None:  # what is missing of the prior may lie where the data is most likely
            likelihood = (values - self.partition.log_prior).nan_to_num(nan=-math.inf, posinf=-math.inf).amax(1)
            self.neglected = likelihood + math.log(self.partition.missing)
        point = torch.arange(self.points, device=values.device).repeat_interleave(shared.point.numel())
        boxes = Boxes(point, shared.centre.repeat(self.points, 1), shared.half.repeat(self.points, 1))
        self._count(boxes)
        return self._resolved(boxes, values.unflatten(1, (shared.point.numel(), -1)).flatten(0, 1), searching=True)

    def refined(self, leaves: Assessment, value: Tensor, unfinished: Tensor, tolerance: Tensor) -> Assessment | None:
        """The leaves of unfinished points halved where their error is more than their share; None if none can be."""
        count = leaves.point.bincount(minlength=self.points).clamp_min(1)
        share = value + (tolerance / 2).log() - count.log()
        chosen = unfinished[leaves.point] & (leaves.error > share[leaves.point]) & ~leaves.boxes.beyond_resolution()
        wanted = leaves[chosen]
        chosen &= self._affordable(wanted.boxes.halved(wanted.cut), leaves.point)
        if not bool(chosen.any()):
            return None
        parents = leaves[chosen]
        children = self._resolved(parents.boxes.halved(parents.cut))
        return leaves[~chosen] + children

    def total(self, leaves: Assessment) -> tuple[Tensor, Tensor]:
        """log-integrals and their errors, ``[n]``, from the Kronrod values of the leaves."""
        value = log_sum_by(leaves.point, leaves.mass, self.points)
        return value, self.error_of(value, log_sum_by(leaves.point, leaves.error, self.points))

    def outgrown(self, leaves: Assessment) -> Tensor:
        """Points with mass at the border of the region, or places of high density beyond it: ``[n]``."""
        region = self.partition.region
        kept = leaves.trimmed
        at_border = torch.zeros_like(self.low, dtype=torch.bool)
        at_border[leaves.point[region.touched(kept.centre - kept.half, kept.centre + kept.half)]] = True
        floor = self.low + math.log(self.tolerance.aim * SHARE) - (2 * region.half).log().sum()
        beyond = region.outside(self.seeds) & (self.known > floor.unsqueeze(1))
        return at_border | beyond.any(1)

    def error_of(self, value: Tensor, error: Tensor, points: Tensor | slice = slice(None)) -> Tensor:
        """Of the log, from logs of integral and error; with what was neglected, and the rounding of the log-joint."""
        relative = (torch.logaddexp(error, self.neglected[points] + math.log(2)) - value).exp()
        relative = relative + self.partition.uncertain
        rounding = ROUNDING * self.peak[points].abs().clamp_min(1)
        return torch.where(relative < 1, -torch.log1p(-relative), torch.inf) + rounding  # nan is not < 1

    def _resolved(self, pending: Boxes, values: Tensor | None = None, *, searching: bool = False) -> Assessment:
        """Trim and halve boxes until their nodes resolve the integrand; negligible ones are counted and dropped."""
        leaves: Assessment | None = None
        spanned = self.low.new_full((self.points,), math.inf)  # smallest log-volume that each point's boxes have filled
        while pending.point.numel():
            spanned = torch.minimum(spanned, log_sum_by(pending.point, pending.log_volume, self.points))
            assessed = self._assess(pending, values)
            values = None
            self._learn(assessed)
            floor = self.low[assessed.point] + math.log(self.tolerance.aim * SHARE)
            dropped = assessed.negligible | (assessed.optimistic < floor)
            self._neglect(assessed.point[dropped], assessed.mass[dropped])
            assessed = assessed[~dropped]

            trim = assessed.worth_trimming
            split = ~trim & assessed.rough.any(1) & ~assessed.boxes.beyond_resolution()
            trim &= self._affordable(assessed.boxes[trim], assessed.point)
            halved = assessed[split]
            split &= self._affordable(halved.boxes.halved(halved.rough), assessed.point)
            trimmed, halved = assessed[trim], assessed[split]
            self._neglect(trimmed.point, trimmed.outside)
            leaf = assessed[~(trim | split)]
            unresolved = leaf.rough.any(1)
            leaf = replace(leaf, error=torch.where(unresolved, leaf.optimistic, leaf.error))
            leaves = leaf if leaves is None else leaves + leaf
            pending = trimmed.trimmed + halved.boxes.halved(halved.rough)
            if searching:
                leaves, pending = self._merged(leaves, pending, spanned)
        assert leaves is not None, "there is at least one point"
        return leaves

    def _merged(self, leaves: Assessment, pending: Boxes, spanned: Tensor) -> tuple[Assessment, Boxes]:
        """One box for all those of a point that nearly fill it, as when the first grid has cut a mode in pieces.

        A point is merged only when its boxes have shrunk, and never just after halving, so that the search ends.
        """
        kept = leaves.trimmed
        every = pending + kept
        shape = (self.points, every.half.shape[1])
        index = every.point.unsqueeze(1).expand_as(every.half)
        low = self.low.new_full(shape, math.inf).scatter_reduce(0, index, every.centre - every.half, "amin")
        high = self.low.new_full(shape, -math.inf).scatter_reduce(0, index, every.centre + every.half, "amax")
        volume = (high - low).log().sum(1)
        filled = log_sum_by(every.point, every.log_volume, self.points)
        several = every.point.bincount(minlength=self.points) > 1
        waiting = pending.point.bincount(minlength=self.points) > 0
        merge = (
            several
            & waiting
            & ~self.divided(every)
            & (volume < filled + MERGED)
            & (volume < spanned + math.log(WORTH_TRIMMING))
        )
        which = merge.nonzero().squeeze(1)
        boxes = Boxes(which, ((low + high) / 2)[which], ((high - low) / 2)[which])
        return leaves[~merge[leaves.point]], pending[~merge[pending.point]] + boxes

    def divided(self, boxes: Boxes | Assessment) -> Tensor:
        """Points with boxes where the prior has details too fine for larger boxes and for lattices: ``[n]``."""
        divided = torch.zeros_like(self.low, dtype=torch.bool)
        divided[boxes.point[self.partition.divided(boxes.centre)]] = True
        return divided

    def _assess(self, boxes: Boxes, values: Tensor | None) -> Assessment:
        parts = []
        size = self.rule.nodes.shape[0]
        for rows in torch.arange(boxes.point.numel(), device=self.low.device).split(max(1, NODES_AT_ONCE // size)):
            part = boxes[rows]
            if values is None:
                nodes = self.rule.nodes_of(part.centre, part.half)
                log_joint = self.integrand.at(part.point.repeat_interleave(size), nodes.flatten(0, 1)).unflatten(
                    0, (-1, size)
                )
            else:
                log_joint = values[rows]
            point = part.point
            parts.append(
                assess(
                    part,
                    log_joint,
                    self.rule,
                    self.low[point],
                    self.tolerance.aim,
                    self.seeds[point],
                    self.known[point],
                )
            )
        return Assessment.concatenate(parts)

    def _learn(self, assessed: Assessment) -> None:
        certain = torch.where(assessed.rough.any(1), assessed.guess, torch.maximum(assessed.guess, assessed.mass))
        self.low = torch.maximum(self.low, log_sum_by(assessed.point, certain, self.points))
        self.peak.scatter_reduce_(0, assessed.point, assessed.peak, "amax")

    def _neglect(self, point: Tensor, mass: Tensor) -> None:
        self.neglected = torch.logaddexp(self.neglected, log_sum_by(point, mass, self.points))

    def _affordable(self, wanted: Boxes, point: Tensor) -> Tensor:
        """Which rows belong to points that can still pay for all boxes that they want; these are then paid for."""
        cost = wanted.point.bincount(minlength=self.points) * self.rule.nodes.shape[0]
        affordable = self.evaluations + cost <= self.max_evaluations
        self.evaluations += torch.where(affordable, cost, 0)
        return affordable[point]

    def _count(self, boxes: Boxes) -> None:
        self.evaluations += boxes.point.bincount(minlength=self.points) * self.rule.nodes.shape[0]
