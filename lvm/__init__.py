"""Latent-variable models."""

from lvm.em import Present
from lvm.latent import ElboTerms, ExactLatentVariableModel, ExactLayeredModel, LatentVariableModel, LayeredModel
from lvm.links import Link, StochasticLink
from lvm.mixture.covariance import CollapsedComponent, Diagonal, Full, Spherical, Tied
from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture
from lvm.mixture.starts import Given, KMeansPlusPlus, RandomPoints, RandomResponsibilities
from lvm.mixture.stochastic_em import StochasticEM
from lvm.ppca.model import PPCA, ClosedForm, EMSolver
from lvm.vae.linear import LinearVAE
from lvm.vae.model import VAE

__all__ = [
    "EM",
    "PPCA",
    "VAE",
    "ClosedForm",
    "CollapsedComponent",
    "Diagonal",
    "EMSolver",
    "ElboTerms",
    "ExactLatentVariableModel",
    "ExactLayeredModel",
    "Full",
    "GaussianMixture",
    "Given",
    "KMeansPlusPlus",
    "LatentVariableModel",
    "LayeredModel",
    "LinearVAE",
    "Link",
    "Present",
    "RandomPoints",
    "RandomResponsibilities",
    "Spherical",
    "StochasticEM",
    "StochasticLink",
    "Tied",
]
