"""Probabilistic principal component analysis: closed form, EM, missing entries."""

from lvm.ppca.climb import RandomWeight
from lvm.ppca.model import PPCA, Posterior, PrincipalAxes
from lvm.ppca.observed_em import MissingEM
from lvm.ppca.randomised import Randomised
from lvm.ppca.solvers import ClosedForm, EMSolver, Solver

__all__ = [
    "PPCA",
    "ClosedForm",
    "EMSolver",
    "MissingEM",
    "Posterior",
    "PrincipalAxes",
    "RandomWeight",
    "Randomised",
    "Solver",
]
