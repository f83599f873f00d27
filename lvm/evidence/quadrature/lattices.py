"""∫ exp f(z) dz by the trapezoidal rule on lattices that whiten each integrand."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lvm.evidence.quadrature.boxes import SHARE, Leaves
from lvm.evidence.quadrature.clipped import Lattice
from lvm.evidence.quadrature.cubature import ROUNDING, Cubature
from lvm.evidence.quadrature.rows import count_by, log_sum_by

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
IRRATIONAL = math.sqrt(2), math.sqrt(3), math.sqrt(5)


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

    def __init__(self, cubature: Cubature, leaves: Leaves, value: Tensor, error: Tensor) -> None:
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
        information = self.value.new_zeros(n, d, d).index_add_(
            0, leaves.point, share[:, None, None] * leaves.information
        )
        self.mean = self.value.new_zeros(n, d).index_add_(0, leaves.point, share.unsqueeze(1) * leaves.mean)
        # Read backwards, J = U Uᵀ with U upper triangular, so that B = U⁻ᵀ is lower triangular and B Bᵀ = J⁻¹.
        factor, info = torch.linalg.cholesky_ex(information.flip(1, 2))
        identity = torch.eye(d, dtype=factor.dtype, device=factor.device)
        usable = (info == 0) & factor.isfinite().all(-1).all(-1)
        factor = torch.where(usable[:, None, None], factor, identity)
        basis = torch.linalg.solve_triangular(factor.flip(1, 2).mT, identity, upper=False)
        return torch.where(usable[:, None, None], basis, torch.nan)

    def _affordable(self) -> Tensor:
        """Whether lattices fine enough for all leaves with mass worth counting have fewer points than halving costs:
        ``[n]``."""
        cubature, point = self.cubature, self.leaves.point
        count = count_by(point, cubature.points)
        least = self.value + math.log(cubature.tolerance.enough) - count.log()  # of which all together may be missed
        needed = torch.where(self.leaves.mass > least[point], self.log_needed, math.inf)
        finest = self.log_volume.clone().scatter_reduce_(0, point, needed, "amin")
        nodes = cubature.rule.nodes.shape[0] * count
        return (self.log_volume - finest).exp() < nodes.clamp_max(cubature.max_evaluations // 4)

    def _refine(self, trying: Tensor) -> None:
        cubature, leaves = self.cubature, self.leaves
        d = cubature.rule.dimensions
        volume = self.log_volume - self.log_cell
        most = HALVINGS * 2**d * cubature.rule.nodes.shape[0] * count_by(leaves.point, cubature.points)
        # The halves differ by 4 d exp(−2π²/h²) for a Gaussian: start where the second lattice should do,
        # with some reserve for others.
        aim = cubature.tolerance.aim
        step = 0.9 * math.pi * math.sqrt(2 / math.log(4 * d / min(aim, SMOOTH) ** (1 / ACCELERATION)))
        for attempt in range(LATTICES):
            predicted = 2 * (volume - d * math.log(step)).exp()
            trying = trying & ((predicted <= most) | (self.difference < PROMISING))
            trying &= predicted + cubature.evaluations <= cubature.max_evaluations
            lattice = self._lattice(trying, attempt, step)
            tried, lines = cubature.integrand.look(trying.any(), lattice.lines)
            if not tried:
                break
            promising = self._sum(lattice, lines, trying, attempt, step)
            trying = trying & (self.own > torch.where(promising, aim, cubature.tolerance.enough))
            step *= FINER

    def _lattice(self, trying: Tensor, attempt: int, step: float) -> Lattice:
        """The two halves of the lattice of one step, one after the other, over all leaves of the points marked."""
        leaves, point, basis = self.leaves, self.leaves.point, step * self.basis
        origin = self.mean
        for j, irrational in enumerate(IRRATIONAL[: origin.shape[1]]):
            origin = origin + (attempt * irrational) * basis[:, :, j]
        low, high = leaves.centre - leaves.half, leaves.centre + leaves.half
        high = torch.where(trying[point].unsqueeze(1), high, low)  # the half-open box of the others is empty
        return Lattice.interlaced(low, high, origin.index_select(0, point), basis.index_select(0, point))

    def _sum(self, lattice: Lattice, lines: int, trying: Tensor, attempt: int, step: float) -> Tensor:
        """Evaluate a lattice for the points marked; returns where the next one may well promise much more: ``[n]``."""
        cubature, n, leaves = self.cubature, self.cubature.points, self.leaves
        log_cell = self.log_cell + cubature.rule.dimensions * math.log(step)
        owner = torch.cat([leaves.point, leaves.point + n])
        halves = self.value.new_full((2 * n,), -math.inf)
        for box, z in lattice.points(lines, lambda number: cubature.integrand.look(number)[0], POINTS_AT_ONCE):
            half = owner.index_select(0, box)
            point = half % n
            halves = torch.logaddexp(halves, log_sum_by(half, cubature.integrand.at(point, z), 2 * n))
            cubature.evaluations += count_by(point, n)
        first, second = halves.unflatten(0, (2, n)) + log_cell
        value = torch.logaddexp(first, second) - math.log(2)
        difference = (first - second).abs().nan_to_num(nan=math.inf, posinf=math.inf)
        before = self.difference
        if attempt:
            difference = torch.maximum(difference, (value - self.value).abs())
        expected = before.clamp_max(1) ** ACCELERATION
        # Rounding of the log-joint, and what is cut off at the boxes' border.
        noise = ROUNDING * cubature.peak.abs() + SHARE * cubature.tolerance.aim
        predicted = torch.maximum(difference, expected)
        fast = (difference <= torch.maximum(expected, noise)) & (predicted <= SMOOTH)
        # Two differences tell at kinks of the finer lattice's error; few lattices are believed with some reserve.
        slow = torch.maximum(difference, before / 2) if attempt >= SEVERAL else EARLY * difference.maximum(before)
        small = torch.where(self.log_needed < log_cell[leaves.point], leaves.mass, -math.inf)
        own = torch.where(fast, predicted, slow) + (log_sum_by(leaves.point, small, n) - value).exp()
        error = cubature.error_of(value, value + own.log())
        self.value, self.difference, self.own, self.error = (
            torch.where(trying, new, old)
            for new, old in (
                (value, self.value),
                (difference, before),
                (own, self.own),
                (error, self.error),
            )
        )
        return fast | (difference < before / UNKINKED) if attempt >= SEVERAL else torch.ones_like(fast)
