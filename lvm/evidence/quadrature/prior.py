"""Where a prior has its mass, proved by integrating the prior itself: its integral is known to be 1."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Generator

from density.contract import Density
from density.families.gaussian import GaussianFamily
from lvm.evidence.quadrature.boxes import SHARE
from lvm.evidence.quadrature.cubature import Tolerance
from lvm.evidence.quadrature.integral import integrate
from lvm.evidence.quadrature.integrand import Integrand
from lvm.evidence.quadrature.partition import Partition, resolving
from lvm.evidence.quadrature.region import Draws, Region
from lvm.evidence.quadrature.rules import GaussKronrod

UNEXPLAINED = (1e-2, 1e-4, 1e-6)  # relative errors at draws of the prior, tried until no mass is missing
UNSHOWN = 3.0  # what none of N draws shows has a mass of at most 3/N, with 95 % confidence
CANCELLED = 20.0  # what the rule's own error hides is at most 20 times what the two leave, with the same confidence
MARGIN = 0.1  # of the tolerance, for the integral of the prior
GROWTHS = 40  # of the region: doublings for a Gaussian prior, ever larger factors for others


class Prior:
    """A prior as the search for mass sees it: partitions of growing regions around it.

    The first partition is tested on the prior itself, by the same rules as the integrals that begin with it and without
    the decoder. Mass that is missing there may be missing everywhere.

    Args:
        density: over at most three continuous latents.
        tolerance: of the integrals to come.
        max_evaluations: of the prior, for its own integral.
        generator: of draws of any prior that is not Gaussian.
    """

    def __init__(
        self,
        density: Density,
        rule: GaussKronrod,
        tolerance: Tolerance,
        max_evaluations: int,
        generator: Generator | None,
    ) -> None:
        self.density = density
        self.rule = rule
        self.tolerance = Tolerance(MARGIN * tolerance.aim, MARGIN * tolerance.enough)
        self.max_evaluations = max_evaluations
        self.off = self.error = 0.0  # distance of the prior's integral from 1, and its own error estimate
        if isinstance(density, GaussianFamily):
            self.partitions = [Partition.equal(Region.of(density))]
        else:
            self.draws = Draws.of(density, generator)
            self.partitions = [self._proved()]

    def partition(self, growth: int) -> Partition:
        """That of the region after so many growths."""
        while len(self.partitions) <= growth:
            region = self.partitions[-1].region
            if isinstance(self.density, GaussianFamily):
                self.partitions.append(Partition.equal(region.grown(2)))
            else:
                self.partitions.append(self._weighed(self._resolving(region.grown(2 ** len(self.partitions)))))
        return self.partitions[growth]

    def _proved(self) -> Partition:
        """The first region that holds the prior, cut until all of it is seen or no further cut shows more."""
        best = self.draws.log_prior.argmax().unsqueeze(0)
        place, value = self.draws.z[best].unsqueeze(0), self.draws.log_prior[best].unsqueeze(0)
        prior = Integrand.of_prior(self.density)
        region = Region.around(self.draws)
        for self.unexplained in UNEXPLAINED:
            for growth in range(GROWTHS):
                partition = self._resolving(region)
                integral = integrate(prior, partition, self.rule, place, value, self.tolerance, self.max_evaluations)
                if not integral.outgrown.numel():
                    break
                region = region.grown(2 ** (growth + 1))
            total, self.error = torch.cat([integral.value, integral.error]).tolist()
            self.off = abs(math.expm1(total))
            if self.off - self.error <= self.tolerance.aim:
                break
        return self._weighed(partition)

    def _resolving(self, region: Region) -> Partition:
        floor = SHARE * self.tolerance.aim
        return resolving(region, self.density, self.rule, self.draws, self.unexplained, floor)

    def _weighed(self, partition: Partition) -> Partition:
        """With the mass that is missing beyond the error of the prior's integral, and what that error may hide."""
        missing = self.off - self.error
        if missing > SHARE * self.tolerance.aim:
            log_prior = Integrand.of_prior(self.density).shared(partition.nodes(self.rule))
            partition = replace(partition, missing=missing, log_prior=log_prior)
        hidden = min(self.error, CANCELLED * self.off, UNSHOWN / self.draws.log_prior.numel())
        hidden = max(hidden, self.tolerance.aim)  # what the prior's integral was not asked for
        return replace(partition, uncertain=hidden if self.error < 1 else math.inf)
