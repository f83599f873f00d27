"""∫ exp f(z) dz for many f at once, to a tolerance, by boxes and lattices that must agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lvm.evidence.quadrature.cubature import Cubature, Tolerance
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.lattices import Lattices
from lvm.evidence.quadrature.partition import Partition
from lvm.evidence.quadrature.rows import marked
from lvm.evidence.quadrature.rules import GaussKronrod

FAST = 20.0  # by which halving divides the error of a smooth integrand, and more; at a kink it is about 4
CHEAP = 20_000  # evaluations that may go into halving at kinks beyond the tolerance that will do


@dataclass(frozen=True, eq=False)
class Integral:
    """log of the integral and its error estimate, nats, ``[n]``; outgrown: the points whose mass reaches the region's
    border, ``[k]``."""

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
    cubature = Cubature(integrand, partition, rule, seeds, known, tolerance, max_evaluations)
    leaves = cubature.search()
    outgrown = cubature.outgrown(leaves)
    inside = ~outgrown[leaves.point]
    gone, kept = integrand.look(outgrown.sum(), inside.sum())
    if gone:
        leaves = leaves[marked(inside, kept)]
    value, error = cubature.total(leaves)
    lattices = Lattices(cubature, leaves, value, error)
    before = torch.where(lattices.error <= tolerance.enough, error, torch.inf)
    while True:
        value, error = cubature.total(leaves)
        # Two rules that know nothing of each other must agree, or neither is believed.
        agree = (value - lattices.value).abs() <= error + lattices.error
        better = agree & (lattices.error < error)
        best = torch.where(better, lattices.error, error)
        enough = best <= tolerance.enough
        slow = (error > before / FAST) & (cubature.evaluations > CHEAP)
        # What may be unseen stays: no digits beyond it are looked for.
        least = 2 * cubature.error_of(value, torch.full_like(value, -torch.inf))
        unfinished = (best > least.clamp_min(tolerance.aim)) & ~(enough & slow) & ~outgrown
        target = torch.where(enough, tolerance.aim, tolerance.enough)
        before = error
        refined = cubature.refined(leaves, value, unfinished, target)
        if refined is None:
            break
        leaves = refined
    value, error = torch.where(better, lattices.value, value), torch.where(better, lattices.error, error)
    return Integral(value, error, marked(outgrown, gone))
