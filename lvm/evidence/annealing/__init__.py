"""Annealed importance sampling from encoder or prior to the posterior, forwards and backwards."""

from lvm.evidence.annealing.bounds import Sandwich, annealed, sandwich
from lvm.evidence.annealing.chains import FromEncoder, FromPrior
from lvm.evidence.annealing.pilot import Pilot
from lvm.evidence.annealing.reverse import reverse_annealed
from lvm.evidence.annealing.schedules import Adaptive, Linear, Sigmoid

__all__ = [
    "Adaptive",
    "FromEncoder",
    "FromPrior",
    "Linear",
    "Pilot",
    "Sandwich",
    "Sigmoid",
    "annealed",
    "reverse_annealed",
    "sandwich",
]
