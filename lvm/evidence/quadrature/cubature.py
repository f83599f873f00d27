"""∫ exp f(z) dz for many f at once, over boxes that adapt to each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lvm.evidence.quadrature.boxes import SHARE, WORTH_TRIMMING, Assessment, Boxes, assess
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.partition import Partition
from lvm.evidence.quadrature.rules import GaussKronrod, lattice, log_sum_by

NODES_AT_ONCE = 2**18
LATTICE_POINTS_AT_ONCE = 2**20
MERGED = math.log(3.0)  # how much larger one box may be than those that it replaces
FINER = 0.7  # step of the next lattice
LATTICES = 9
SMOOTH = 1e-5  # the largest error estimate that is believed: no lattice gets there at a kink, unless by accident
ACCELERATION = 1.4  # least growth of the number of digits from one lattice to the next
HALVINGS = 3  # of all boxes, that a lattice may cost which does not follow a good one
PROMISING = 0.1  # nats of difference, below which lattices are finer than the details of the integrand
IRRATIONAL = torch.tensor([math.sqrt(2), math.sqrt(3), math.sqrt(5)], dtype=torch.float64)
ROUNDING = 8 * torch.finfo(torch.float64).eps


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
        tolerance: float,
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
        return value, self._error(value, log_sum_by(leaves.point, leaves.error, self.points))

    def outgrown(self, leaves: Assessment) -> Tensor:
        """Points with mass at the border of the region, or places of high density beyond it: ``[n]``."""
        region = self.partition.region
        kept = leaves.trimmed
        at_border = torch.zeros_like(self.low, dtype=torch.bool)
        at_border[leaves.point[region.touched(kept.centre - kept.half, kept.centre + kept.half)]] = True
        floor = self.low + math.log(self.tolerance * SHARE) - (2 * region.half).log().sum()
        beyond = region.outside(self.seeds) & (self.known > floor.unsqueeze(1))
        return at_border | beyond.any(1)

    def trapezoidal(self, leaves: Assessment, value: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """log-integrals by finer and finer lattices over the leaves, and their errors; inf where it costs too much.

        The step is h standard deviations in each direction, with E[∇f ∇fᵀ] for the inverse covariance, which it is for
        a Gaussian; for other posteriors it measures the scale of their details. A lattice consists of two interlaced
        halves. The difference between them, or to the lattice before if that is larger, measures the error; all origins
        are unrelated, lest it be small by accident. For a Gaussian the number of its digits doubles from one lattice to
        the next; at a kink it hardly grows. Where it grows by two fifths or more, the estimate is what that alone
        predicts from the lattice before, and elsewhere the lattice is not believed.
        """
        d = self.rule.dimensions
        result, estimate, differences = (
            value.clone(),
            torch.full_like(error, math.inf),
            torch.full_like(error, math.inf),
        )
        share = (leaves.mass - value[leaves.point]).exp().nan_to_num(nan=0.0)
        information = value.new_zeros(self.points, d, d).index_add(
            0, leaves.point, share[:, None, None] * leaves.information
        )
        # Read backwards, J = U Uᵀ with U upper triangular, so that B = U⁻ᵀ is lower triangular and B Bᵀ = J⁻¹.
        factor, info = torch.linalg.cholesky_ex(information.flip(1, 2))
        usable = (info == 0) & factor.isfinite().all(-1).all(-1)
        factor = torch.where(usable[:, None, None], factor, torch.eye(d).to(factor))
        basis = torch.linalg.solve_triangular(factor.flip(1, 2).mT, torch.eye(d).to(factor), upper=False)
        log_det = basis.diagonal(dim1=1, dim2=2).log().sum(1)
        volume = log_sum_by(leaves.point, leaves.boxes.log_volume, self.points) - log_det
        count = leaves.point.bincount(minlength=self.points)
        most = HALVINGS * 2**d * self.rule.nodes.shape[0] * count
        # The halves differ by 4 d exp(−2π²/h²) for a Gaussian: start where the second lattice should do,
        # with some reserve for others.
        tolerance = min(self.tolerance, SMOOTH)
        step = 0.9 * math.pi * math.sqrt(2 / math.log(4 * d / tolerance ** (1 / ACCELERATION)))
        trying = (error > self.tolerance) & usable & ~self._divided(leaves)
        for attempt in range(LATTICES):
            predicted = 2 * (volume - d * math.log(step)).exp()
            trying &= (predicted <= most) | (differences < PROMISING)
            trying &= predicted + self.evaluations <= self.max_evaluations
            if not bool(trying.any()):
                break
            for group in _groups(trying.nonzero().squeeze(1), predicted):
                self._sum_lattices(
                    leaves, group, attempt, step * basis, log_det + d * math.log(step), result, estimate, differences
                )
            trying &= estimate > tolerance
            step *= FINER
        return result, torch.where(estimate <= SMOOTH, estimate, torch.inf)

    def _sum_lattices(
        self,
        leaves: Assessment,
        group: Tensor,
        attempt: int,
        basis: Tensor,
        log_cell: Tensor,
        result: Tensor,
        estimate: Tensor,
        differences: Tensor,
    ) -> None:
        """The lattice of one step for a group of points; what it gives is written into the last three arguments."""
        chosen = leaves[torch.isin(leaves.point, group)]
        point = chosen.point
        low, high = chosen.centre - chosen.half, chosen.centre + chosen.half
        share = (chosen.mass - log_sum_by(point, chosen.mass, self.points)[point]).exp()
        origin = low.new_zeros(self.points, low.shape[1]).index_add(0, point, share.unsqueeze(1) * chosen.mean)
        start = attempt * IRRATIONAL[: low.shape[1]].to(low)
        halves = []
        for shift in (start, start + 0.5):
            box, z = lattice(low, high, origin[point], basis[point], shift)
            values = self.integrand.at(point[box], z)
            self.evaluations += point[box].bincount(minlength=self.points)
            halves.append((log_sum_by(point[box], values, self.points) + log_cell)[group])
        value = torch.logaddexp(*halves) - math.log(2)
        difference = (halves[0] - halves[1]).abs().nan_to_num(nan=math.inf, posinf=math.inf)
        if attempt:
            difference = torch.maximum(difference, (value - result[group]).abs())
        expected = differences[group].clamp_max(1) ** ACCELERATION
        noise = ROUNDING * self.peak[group].abs() + SHARE * self.tolerance  # of the log-joint, and at the boxes' border
        spectral = difference <= torch.maximum(expected, noise)
        error = torch.where(spectral, torch.maximum(difference, expected), torch.inf)
        result[group], differences[group] = value, difference
        estimate[group] = self._error(value, value + error.log(), group)

    def _error(self, value: Tensor, error: Tensor, points: Tensor | slice = slice(None)) -> Tensor:
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
            floor = self.low[assessed.point] + math.log(self.tolerance * SHARE)
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
        merge = several & waiting & ~self._divided(every) & (volume < filled + MERGED) & (volume < spanned + math.log(WORTH_TRIMMING))
        which = merge.nonzero().squeeze(1)
        boxes = Boxes(which, ((low + high) / 2)[which], ((high - low) / 2)[which])
        return leaves[~merge[leaves.point]], pending[~merge[pending.point]] + boxes

    def _divided(self, boxes: Boxes | Assessment) -> Tensor:
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
                    part, log_joint, self.rule, self.low[point], self.tolerance, self.seeds[point], self.known[point]
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


def _groups(points: Tensor, predicted: Tensor) -> Iterator[Tensor]:
    """Points in groups of a bounded number of lattice points."""
    bin_of = (predicted[points].cumsum(0) / LATTICE_POINTS_AT_ONCE).long()
    for which in bin_of.unique().tolist():
        yield points[bin_of == which]
