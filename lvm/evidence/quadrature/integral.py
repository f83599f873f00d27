"""∫ exp f(z) dz for many f at once, to a tolerance, by boxes and lattices that must agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lvm.evidence.quadrature.cubature import Cubature
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.partition import Partition
from lvm.evidence.quadrature.rules import GaussKronrod

FAST = 20.0  # by which halving divides the error of a smooth integrand, and more; at a kink it is about 4
PATIENCE = 0.1  # of the evaluations, that may go into halving a kink beyond the tolerance that will do


@dataclass(frozen=True)
class Tolerance:
    """Error estimates in nats: ``aim`` to be reached where convergence is fast or cheap, ``enough`` elsewhere."""

    aim: float
    enough: float


@dataclass(frozen=True, eq=False)
class Integral:
    """log of the integral and its error estimate, nats, ``[n]``; outgrown: its mass reaches the region's border."""

    value: Tensor
    error: Tensor
    outgrown: Tensor


def integrate(
    integrand: Integrand,
    partition: Partition,
    rule: GaussKronrod,
    seeds: Tensor,
    known: Tensor,
    tolerance: Tolerance,
    max_evaluations: int,
) -> Integral:
    """See :func:`lvm.evidence.quadrature.adaptive.quadrature`.

    Args:
        seeds, known: places ``[n, s, d]`` where the log-joint of each point is known, and its values ``[n, s]``.
    """
    cubature = Cubature(integrand, partition, rule, seeds, known, tolerance.aim, max_evaluations)
    leaves = cubature.search()
    outgrown = cubature.outgrown(leaves)
    leaves = leaves[~outgrown[leaves.point]]
    value, error = cubature.total(leaves)
    lattice_value, lattice_error = cubature.trapezoidal(leaves, value, error)
    before = torch.full_like(error, torch.inf)
    while True:
        value, error = cubature.total(leaves)
        # Two rules that know nothing of each other must agree, or neither is believed.
        agree = (value - lattice_value).abs() <= error + lattice_error
        better = agree & (lattice_error < error)
        best = torch.where(better, lattice_error, error)
        enough = best <= tolerance.enough
        slow = (error > before / FAST) & (cubature.evaluations > PATIENCE * max_evaluations)
        unfinished = (best > tolerance.aim) & ~(enough & slow) & ~outgrown
        target = torch.where(enough, tolerance.aim, tolerance.enough)
        before = error
        refined = cubature.refined(leaves, value, unfinished, target)
        if refined is None:
            break
        leaves = refined
    return Integral(torch.where(better, lattice_value, value), torch.where(better, lattice_error, error), outgrown)
