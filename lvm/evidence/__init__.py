"""Estimates of log p(x), checks of them, and the gap between it and the ELBO with its causes."""

from density.importance.bound import importance
from lvm.evidence.annealing.bounds import (
    Adaptive,
    FromEncoder,
    FromPrior,
    Linear,
    Pilot,
    Sandwich,
    Sigmoid,
    annealed,
    sandwich,
)
from lvm.evidence.annealing.reverse import reverse_annealed
from lvm.evidence.gap import Gap, Parts, gap
from lvm.evidence.latent_usage import KlParts, LatentUsage, kl_parts, latent_usage
from lvm.evidence.local import LocalElbo, LocalFit, local_elbo
from lvm.evidence.mass.auditing import Audit, audit
from lvm.evidence.mass.intervals import Interval, interval
from lvm.evidence.mass.spaces import Bits, Box, Space
from lvm.evidence.naive import prior_average, prior_importance
from lvm.evidence.quadrature.adaptive import quadrature
from lvm.evidence.states import LatentStates
from lvm.evidence.strongest import evidence
from lvm.evidence.weighted import weighted_sandwich

__all__ = [
    "Adaptive",
    "Audit",
    "Bits",
    "Box",
    "FromEncoder",
    "FromPrior",
    "Gap",
    "Interval",
    "KlParts",
    "LatentStates",
    "LatentUsage",
    "Linear",
    "LocalElbo",
    "LocalFit",
    "Parts",
    "Pilot",
    "Sandwich",
    "Sigmoid",
    "Space",
    "annealed",
    "audit",
    "evidence",
    "gap",
    "importance",
    "interval",
    "kl_parts",
    "latent_usage",
    "local_elbo",
    "prior_average",
    "prior_importance",
    "quadrature",
    "reverse_annealed",
    "sandwich",
    "weighted_sandwich",
]
