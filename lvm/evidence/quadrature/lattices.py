"""∫ exp f(z) dz by the trapezoidal rule on lattices that whiten each integrand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lvm.evidence.quadrature.boxes import SHARE, Assessment
from lvm.evidence.quadrature.cubature import ROUNDING, Cubature
from lvm.evidence.quadrature.rules import lattice, log_sum_by

POINTS_AT_ONCE = 2**20
FINER = 0.7  # step of the next lattice
LATTICES = 11
SMOOTH = 1e-5  # the largest error estimate of fast convergence: no lattice gets there at a kink, unless by accident
ACCELERATION = 1.4  # least growth of the number of digits from one lattice to the next where convergence is fast
IN_FINE_LEAF = 6.0  # steps along each axis of a leaf where the prior has fine details
UNKINKED = 10.0  # by which a difference falls from one lattice to the next where there are no kinks
SEVERAL = 3  # lattices before the first that is believed at kinks as they come
EARLY = 2.0  # by which differences of fewer lattices are multiplied
HALVINGS = 3  # of all boxes, that a lattice may cost which does not follow a good one
PROMISING = 0.1  # nats of difference, below which lattices are finer than the details of the integrand
IRRATIONAL = torch.tensor([math.sqrt(2), math.sqrt(3), math.sqrt(5)], dtype=torch.float64)


class Lattices:
    """log-integrals by finer and finer lattices over the leaves of the boxes, and their errors.

    The step is h standard deviations in each direction, with E[∇f ∇fᵀ] for the inverse covariance, which it is for a
    Gaussian; for other posteriors it measures the scale of their details. A lattice consists of two interlaced halves.
    The difference between them, or to the lattice before if that is larger, measures the error; all origins are
    unrelated, lest it be small by accident.

    For a Gaussian the number of its digits doubles from one lattice to the next. Where it grows by two fifths or more,
    the estimate is what that alone predicts from the lattice before. At kinks the error is of the order of h², so each
    difference is about half the one before; the estimate is then what two of them say (in the median six times the
    error; of the first few lattices, with more reserve), and lattices go on only until it is small enough. Leaves that
    hold few points may be missed by all lattices alike: their mass counts as error.

    Attributes:
        value: ``[n]``, nats.
        error: ``[n]``; inf where a lattice costs too much.
    """

    def __init__(self, cubature: Cubature, leaves: Assessment, value: Tensor, error: Tensor) -> None:
        self.cubature = cubature
        self.leaves = leaves
        self.value = value.clone()
        self.error = torch.full_like(error, math.inf)
        self.difference = torch.full_like(error, math.inf)
        self.own = self.error.clone()  # what finer lattices can lower: not what was neglected or may be unseen
        self.basis = self._whitening()
        usable = self.basis.isfinite().all(-1).all(-1)
        self.log_cell = self.basis.diagonal(dim1=1, dim2=2).log().sum(1)
        self.log_volume = log_sum_by(leaves.point, leaves.boxes.log_volume, cubature.points)
        # Cells that no leaf may be smaller than: half a one for each, and several where the prior has fine details.
        d = cubature.rule.dimensions
        fine = cubature.partition.divided(leaves.centre)
        self.log_needed = leaves.boxes.log_volume + torch.where(fine, -d * math.log(IN_FINE_LEAF), math.log(2))
        self._refine((error > cubature.tolerance.aim) & usable & self._affordable())

    def _whitening(self) -> Tensor:
        """B ``[n, d, d]``, lower triangular with B Bᵀ = E[∇f ∇fᵀ]⁻¹; nan where that is singular."""
        leaves, n, d = self.leaves, self.cubature.points, self.cubature.rule.dimensions
        share = (leaves.mass - self.value[leaves.point]).exp().nan_to_num(nan=0.0)
        information = self.value.new_zeros(n, d, d).index_add(
            0, leaves.point, share[:, None, None] * leaves.information
        )
        # Read backwards, J = U Uᵀ with U upper triangular, so that B = U⁻ᵀ is lower triangular and B Bᵀ = J⁻¹.
        factor, info = torch.linalg.cholesky_ex(information.flip(1, 2))
        identity = torch.eye(d).to(factor)
        usable = (info == 0) & factor.isfinite().all(-1).all(-1)
        factor = torch.where(usable[:, None, None], factor, identity)
        basis = torch.linalg.solve_triangular(factor.flip(1, 2).mT, identity, upper=False)
        return torch.where(usable[:, None, None], basis, torch.nan)

    def _affordable(self) -> Tensor:
        """Whether lattices fine enough for all leaves with mass worth counting have fewer points than halving costs:
        ``[n]``."""
        cubature, point = self.cubature, self.leaves.point
        count = point.bincount(minlength=cubature.points)
        least = self.value + math.log(cubature.tolerance.enough) - count.log()  # of which all together may be missed
        counts = self.leaves.mass > least[point]
        finest = self.log_volume.clone().scatter_reduce(0, point[counts], self.log_needed[counts], "amin")
        nodes = cubature.rule.nodes.shape[0] * count
        return (self.log_volume - finest).exp() < nodes.clamp_max(cubature.max_evaluations // 4)

    def _refine(self, trying: Tensor) -> None:
        cubature, leaves = self.cubature, self.leaves
        d = cubature.rule.dimensions
        volume = self.log_volume - self.log_cell
        count = leaves.point.bincount(minlength=cubature.points)
        most = HALVINGS * 2**d * cubature.rule.nodes.shape[0] * count
        # The halves differ by 4 d exp(−2π²/h²) for a Gaussian: start where the second lattice should do,
        # with some reserve for others.
        aim = cubature.tolerance.aim
        step = 0.9 * math.pi * math.sqrt(2 / math.log(4 * d / min(aim, SMOOTH) ** (1 / ACCELERATION)))
        for attempt in range(LATTICES):
            predicted = 2 * (volume - d * math.log(step)).exp()
            trying = trying & ((predicted <= most) | (self.difference < PROMISING))
            trying &= predicted + cubature.evaluations <= cubature.max_evaluations
            if not bool(trying.any()):
                break
            for group in _groups(trying.nonzero().squeeze(1), predicted):
                promising = self._sum(group, attempt, step)
                reached = torch.where(promising, aim, cubature.tolerance.enough)
                trying[group] = self.own[group] > reached
            step *= FINER

    def _sum(self, group: Tensor, attempt: int, step: float) -> Tensor:
        """The lattice of one step for a group of points; returns where the next one may well promise much more."""
        cubature, n = self.cubature, self.cubature.points
        here = torch.isin(self.leaves.point, group)
        chosen = self.leaves[here]
        point = chosen.point
        low, high = chosen.centre - chosen.half, chosen.centre + chosen.half
        share = (chosen.mass - log_sum_by(point, chosen.mass, n)[point]).exp()
        origin = low.new_zeros(n, low.shape[1]).index_add(0, point, share.unsqueeze(1) * chosen.mean)
        log_cell = self.log_cell + low.shape[1] * math.log(step)
        start = attempt * IRRATIONAL[: low.shape[1]].to(low)
        halves = []
        for shift in (start, start + 0.5):
            box, z = lattice(low, high, origin[point], step * self.basis[point], shift)
            values = cubature.integrand.at(point[box], z)
            cubature.evaluations += point[box].bincount(minlength=n)
            halves.append((log_sum_by(point[box], values, n) + log_cell)[group])
        value = torch.logaddexp(*halves) - math.log(2)
        difference = (halves[0] - halves[1]).abs().nan_to_num(nan=math.inf, posinf=math.inf)
        if attempt:
            difference = torch.maximum(difference, (value - self.value[group]).abs())
        before = self.difference[group]
        expected = before.clamp_max(1) ** ACCELERATION
        # Rounding of the log-joint, and what is cut off at the boxes' border.
        noise = ROUNDING * cubature.peak[group].abs() + SHARE * cubature.tolerance.aim
        predicted = torch.maximum(difference, expected)
        fast = (difference <= torch.maximum(expected, noise)) & (predicted <= SMOOTH)
        # Two differences tell at kinks of the finer lattice's error; few lattices are believed with some reserve.
        slow = torch.maximum(difference, before / 2) if attempt >= SEVERAL else EARLY * difference.maximum(before)
        small = self.log_needed[here] < log_cell[point]
        missed = log_sum_by(point[small], chosen.mass[small], n)[group] - value
        error = torch.where(fast, predicted, slow) + missed.exp()
        self.value[group], self.difference[group], self.own[group] = value, difference, error
        self.error[group] = cubature.error_of(value, value + error.log(), group)
        return fast | (difference < before / UNKINKED) if attempt >= SEVERAL else torch.ones_like(fast)


def _groups(points: Tensor, predicted: Tensor) -> Iterator[Tensor]:
    """Points in groups of a bounded number of lattice points."""
    bin_of = (predicted[points].cumsum(0) / POINTS_AT_ONCE).long()
    for which in bin_of.unique().tolist():
        yield points[bin_of == which]
