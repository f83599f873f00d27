"""Where a prior has its mass, proved by integrating the prior itself: its integral is known to be 1."""

from __future__ import annotations

import math
from dataclasses import replace

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
UNSHOWN = 3.0  # draws: what none of N draws shows has a mass of at most 3/N, with 95 % confidence
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
        if isinstance(density, GaussianFamily):
            self.partitions = [Partition.equal(Region.of(density))]
        else:
            self.draws = Draws.of(density, generator)
            self.partitions = [self._proved()]

    def partition(self, growth: int) -> Partition:
        """That of the region which has been doubled so often."""
        while len(self.partitions) <= growth:
            last = self.partitions[-1]
            if isinstance(self.density, GaussianFamily):
                self.partitions.append(Partition.equal(last.region.grown(2)))
            else:
                region = last.region.grown(2 ** len(self.partitions))
                larger = resolving(region, self.density, self.rule, self.draws, self.unexplained)
                self.partitions.append(self._completed(larger, last.missing, last.uncertain))
        return self.partitions[growth]

    def _proved(self) -> Partition:
        """The first region that holds the prior, cut until all of it is seen or no further cut shows more."""
        best = self.draws.log_prior.argmax().unsqueeze(0)
        place, value = self.draws.z[best].unsqueeze(0), self.draws.log_prior[best].unsqueeze(0)
        region = Region.around(self.draws)
        for self.unexplained in UNEXPLAINED:
            for growth in range(GROWTHS):
                partition = resolving(region, self.density, self.rule, self.draws, self.unexplained)
                integral = integrate(
                    Integrand.of_prior(self.density),
                    partition,
                    self.rule,
                    place,
                    value,
                    self.tolerance,
                    self.max_evaluations,
                )
                if not bool(integral.outgrown):
                    break
                region = region.grown(2 ** (growth + 1))
            error = integral.error.item()
            missing = abs(math.expm1(integral.value.item())) - error
            if missing <= SHARE * self.tolerance.aim:
                return self._completed(partition, 0.0, error)
        return self._completed(partition, missing, error)

    def _completed(self, partition: Partition, missing: float, error: float) -> Partition:
        uncertain = min(error, UNSHOWN / self.draws.log_prior.numel())
        if not missing:
            return replace(partition, uncertain=uncertain)
        log_prior = Integrand.of_prior(self.density).shared(partition.nodes(self.rule))
        return replace(partition, missing=missing, uncertain=uncertain, log_prior=log_prior)
