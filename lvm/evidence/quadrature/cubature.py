"""∫ exp f(z) dz for many f at once, over boxes that adapt to each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from density.checks import free_to_look
from lvm.evidence.quadrature.boxes import SHARE, WORTH_TRIMMING, Assessment, Boxes, Leaves, assess, pieces
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.partition import Partition
from lvm.evidence.quadrature.rows import count_by, log_sum_by, marked
from lvm.evidence.quadrature.rules import GaussKronrod

NODES_AT_ONCE = 2**16  # that are assessed together on a CPU
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

    def search(self) -> Leaves:
        """Boxes that hold all mass worth counting and whose nodes resolve it."""
        shared = self.partition.boxes
        values = self.integrand.shared(self.partition.nodes(self.rule))
        if self.partition.log_prior is not None:  # what is missing of the prior may lie where the data is most likely
            likelihood = (values - self.partition.log_prior).nan_to_num(nan=-math.inf, posinf=-math.inf).amax(1)
            self.neglected = likelihood + math.log(self.partition.missing)
        point = torch.arange(self.points, device=values.device).repeat_interleave(shared.point.numel())
        boxes = Boxes(point, shared.centre.repeat(self.points, 1), shared.half.repeat(self.points, 1))
        self.evaluations += shared.point.numel() * self.rule.nodes.shape[0]
        return self._resolved(boxes, values.unflatten(1, (shared.point.numel(), -1)).flatten(0, 1), searching=True)

    def refined(self, leaves: Leaves, value: Tensor, unfinished: Tensor, tolerance: Tensor) -> Leaves | None:
        """The leaves of unfinished points halved where their error is more than their share; None if none can be."""
        point, cut = leaves.point, leaves.cut
        share = value + (tolerance / 2).log() - count_by(point, self.points).clamp_min(1).log()
        chosen = unfinished[point] & (leaves.error > share[point]) & ~leaves.boxes.beyond_resolution()
        chosen &= self._affordable(point, pieces(cut) * chosen)
        parents, children = self.integrand.look(chosen.sum(), (pieces(cut) * chosen).sum())
        if not parents:
            return None
        halving = marked(chosen, parents)
        halves, there = leaves.boxes[halving].halved(cut.index_select(0, halving))
        kept = leaves[marked(~chosen, point.numel() - parents)]
        return kept + self._resolved(halves[marked(there, children)])

    def total(self, leaves: Leaves) -> tuple[Tensor, Tensor]:
        """log-integrals and their errors, ``[n]``, from the Kronrod values of the leaves."""
        value = log_sum_by(leaves.point, leaves.mass, self.points)
        return value, self.error_of(value, log_sum_by(leaves.point, leaves.error, self.points))

    def outgrown(self, leaves: Leaves) -> Tensor:
        """Points with mass at the border of the region, or places of high density beyond it: ``[n]``."""
        region = self.partition.region
        kept = leaves.trimmed
        at_border = self._any_of(leaves.point, region.touched(kept.centre - kept.half, kept.centre + kept.half))
        floor = self.low + math.log(self.tolerance.aim * SHARE) - (2 * region.half).log().sum()
        beyond = region.outside(self.seeds) & (self.known > floor.unsqueeze(1))
        return at_border | beyond.any(1)

    def error_of(self, value: Tensor, error: Tensor) -> Tensor:
        """Of the log, from logs of integral and error; with what was neglected, and the rounding of the log-joint."""
        relative = (torch.logaddexp(error, self.neglected + math.log(2)) - value).exp()
        relative = relative + self.partition.uncertain
        rounding = ROUNDING * self.peak.abs().clamp_min(1)
        return torch.where(relative < 1, -torch.log1p(-relative), torch.inf) + rounding  # nan is not < 1

    def _resolved(self, pending: Boxes, values: Tensor | None = None, *, searching: bool = False) -> Leaves:
        """Trim and halve boxes until their nodes resolve the integrand; negligible ones are counted and dropped.

        A round works on all boxes that there may be, marks those that there are, and asks once how many.
        """
        leaves = Leaves.none(self.rule.dimensions, self.low)
        spanned = self.low.new_full((self.points,), math.inf)  # smallest log-volume that each point's boxes have filled
        while pending.point.numel():
            spanned = torch.minimum(spanned, log_sum_by(pending.point, pending.log_volume, self.points))
            found = self._assess(pending, values)
            values = None
            self._learn(found)
            floor = self.low[found.point] + math.log(self.tolerance.aim * SHARE)
            kept = ~(found.negligible | (found.optimistic < floor))
            self._neglect(found.point, found.mass, ~kept)
            if free_to_look(kept):  # or else those that are dropped are carried along to the end of the round
                found = found[kept.nonzero().squeeze(1)]
                kept = torch.ones_like(found.negligible)

            trim = kept & found.worth_trimming
            split = kept & ~trim & found.rough.any(1) & ~found.boxes.beyond_resolution()
            trim &= self._affordable(found.point, trim)
            split &= self._affordable(found.point, pieces(found.rough) * split)
            self._neglect(found.point, found.outside, trim)
            halves, there = found.boxes.halved(found.rough)
            pending = found.trimmed + halves
            waiting = torch.cat([trim, there & split.repeat_interleave(2**self.rule.dimensions)])
            settled = torch.cat([torch.ones_like(leaves.point, dtype=torch.bool), kept & ~(trim | split)])
            leaves += Leaves.of(found)
            if searching:
                pending, waiting, settled = self._merged(pending, waiting, leaves, settled, spanned)
            more, count = self.integrand.look(waiting.sum(), settled.sum())
            pending, leaves = pending[marked(waiting, more)], leaves[marked(settled, count)]
        return leaves

    def _merged(
        self, pending: Boxes, waiting: Tensor, leaves: Leaves, settled: Tensor, spanned: Tensor
    ) -> tuple[Boxes, Tensor, Tensor]:
        """One box for all those of a point that nearly fill it, as when the first grid has cut a mode in pieces.

        A point is merged only when its boxes have shrunk, and never just after halving, so that the search ends.

        Args:
            pending, waiting: boxes, and which of them there are.
            leaves, settled: the same of leaves.

        Returns:
            The boxes with one more for each point, which of them there are now, and which leaves.
        """
        every, there = pending + leaves.trimmed, torch.cat([waiting, settled])
        point, n = every.point, self.points
        index = point.unsqueeze(1).expand_as(every.half)
        low, high = (
            self.low.new_full((n, every.half.shape[1]), absent).scatter_reduce_(
                0, index, torch.where(there.unsqueeze(1), end, absent), reduce
            )
            for end, absent, reduce in (
                (every.centre - every.half, math.inf, "amin"),
                (every.centre + every.half, -math.inf, "amax"),
            )
        )
        volume = (high - low).log().sum(1)
        filled = log_sum_by(point, torch.where(there, every.log_volume, -math.inf), n)
        merge = (
            (count_by(point, n, there) > 1)
            & self._any_of(pending.point, waiting)
            & ~self.divided(every, there)
            & (volume < filled + MERGED)
            & (volume < spanned + math.log(WORTH_TRIMMING))
        )
        one = Boxes(torch.arange(n, device=point.device), (low + high) / 2, (high - low) / 2)
        return (
            pending + one,
            torch.cat([waiting & ~merge[pending.point], merge]),
            settled & ~merge[leaves.point],
        )

    def divided(self, boxes: Boxes | Leaves, there: Tensor) -> Tensor:
        """Points with boxes where the prior has details too fine for larger boxes and for lattices: ``[n]``."""
        return self._any_of(boxes.point, there & self.partition.divided(boxes.centre))

    def _any_of(self, point: Tensor, mask: Tensor) -> Tensor:
        """Points with a row that is marked: ``[n]``."""
        return count_by(point, self.points, mask) > 0

    def _assess(self, boxes: Boxes, values: Tensor | None) -> Assessment:
        parts = []
        size = self.rule.nodes.shape[0]
        at_once = max(1, max(NODES_AT_ONCE, self.integrand.decoded) // size)
        blocks = boxes.split(at_once)
        given = [None] * len(blocks) if values is None else values.split(at_once)
        for part, log_joint in zip(blocks, given, strict=True):
            point = part.point
            if log_joint is None:
                nodes = self.rule.nodes_of(part.centre, part.half)
                log_joint = self.integrand.at(point.repeat_interleave(size), nodes.flatten(0, 1)).view(-1, size)
            of_point = (t.index_select(0, point) for t in (self.seeds, self.known))
            parts.append(assess(part, log_joint, self.rule, self.low[point], self.tolerance.aim, *of_point))
        return Assessment.concatenate(parts)

    def _learn(self, assessed: Assessment) -> None:
        certain = torch.where(assessed.rough.any(1), assessed.guess, torch.maximum(assessed.guess, assessed.mass))
        self.low = torch.maximum(self.low, log_sum_by(assessed.point, certain, self.points))
        self.peak.scatter_reduce_(0, assessed.point, assessed.peak, "amax")

    def _neglect(self, point: Tensor, mass: Tensor, which: Tensor) -> None:
        mass = torch.where(which, mass, -math.inf)
        self.neglected = torch.logaddexp(self.neglected, log_sum_by(point, mass, self.points))

    def _affordable(self, point: Tensor, wanted: Tensor) -> Tensor:
        """Which rows belong to points that can still pay for all boxes that they want; these are then paid for."""
        cost = count_by(point, self.points, wanted) * self.rule.nodes.shape[0]
        affordable = self.evaluations + cost <= self.max_evaluations
        self.evaluations += torch.where(affordable, cost, 0)
        return affordable[point]
