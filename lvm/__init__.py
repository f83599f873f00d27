"""Latent-variable models."""

from lvm.components import Responsibilities
from lvm.diffusion.denoiser import Denoiser, Prediction
from lvm.diffusion.link import DiffusionLink
from lvm.diffusion.model import DiffusionTerms, GaussianDiffusion
from lvm.diffusion.schedule import CosineSchedule, LearnedSchedule, LinearSchedule, Schedule
from lvm.em import Present
from lvm.finite_mixture.components import ProductComponents
from lvm.finite_mixture.model import FiniteMixture
from lvm.hierarchy.markov_chain import MarkovChain
from lvm.hierarchy.model import HierarchicalVAE
from lvm.latent import ElboTerms, ExactLatentVariableModel, LatentVariableModel
from lvm.layered import ExactLayeredModel, LayeredModel, LinkedModel
from lvm.linear_gaussian import LinearGaussian, LinearGaussianPosterior
from lvm.links import Link, StochasticLink
from lvm.mixture.components import Components
from lvm.mixture.covariance import CollapsedComponent, Diagonal, Full, Spherical, Tied
from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture
from lvm.mixture.regularisation import Local, Relative
from lvm.mixture.starts import Given, KMeansPlusPlus, RandomPoints, RandomResponsibilities
from lvm.mixture.stochastic_em import StochasticEM
from lvm.ppca.model import PPCA, ClosedForm, EMSolver
from lvm.ppca.randomised import Randomised
from lvm.vae.amortised import AmortisedModel
from lvm.vae.bounded import FittedByBound
from lvm.vae.linear import LinearEncoder, LinearVAE
from lvm.vae.model import VAE
from lvm.vae.observed import ObservedModel

__all__ = [
    "EM",
    "PPCA",
    "VAE",
    "AmortisedModel",
    "ClosedForm",
    "CollapsedComponent",
    "Components",
    "CosineSchedule",
    "Denoiser",
    "Diagonal",
    "DiffusionLink",
    "DiffusionTerms",
    "EMSolver",
    "ElboTerms",
    "ExactLatentVariableModel",
    "ExactLayeredModel",
    "FiniteMixture",
    "FittedByBound",
    "Full",
    "GaussianDiffusion",
    "GaussianMixture",
    "Given",
    "HierarchicalVAE",
    "KMeansPlusPlus",
    "LatentVariableModel",
    "LayeredModel",
    "LearnedSchedule",
    "LinearEncoder",
    "LinearGaussian",
    "LinearGaussianPosterior",
    "LinearSchedule",
    "LinearVAE",
    "Link",
    "LinkedModel",
    "Local",
    "MarkovChain",
    "ObservedModel",
    "Prediction",
    "Present",
    "ProductComponents",
    "RandomPoints",
    "RandomResponsibilities",
    "Randomised",
    "Relative",
    "Responsibilities",
    "Schedule",
    "Spherical",
    "StochasticEM",
    "StochasticLink",
    "Tied",
]
