"""Latent-variable models."""

from lvm.covariance import CollapsedComponent, Diagonal, Full, Spherical, Tied
from lvm.em import EM
from lvm.initialisation import Given, KMeansPlusPlus, Present, RandomPoints, RandomResponsibilities
from lvm.latent import (
    ElboTerms,
    ExactLatentVariableModel,
    ExactLayeredModel,
    LatentVariableModel,
    LayeredModel,
    Link,
    StochasticLink,
)
from lvm.linear_vae import LinearVAE
from lvm.mixture import GaussianMixture
from lvm.ppca import PPCA, ClosedForm, EMSolver
from lvm.stochastic_em import StochasticEM
from lvm.vae import VAE

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
