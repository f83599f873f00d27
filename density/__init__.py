"""The common log-density interface and the small densities that everything else is made of."""

from density.contract import Bound, Density, ExactModel, Model
from density.data.chunks import Chunks
from density.data.findings import Findings, examine
from density.data.ties import TiedColumns
from density.families.bernoulli import Bernoulli, BernoulliFamily, ConditionalBernoulli
from density.families.categorical import Categorical, CategoricalFamily, ConditionalCategorical
from density.families.conditional_gaussian import (
    ConditionalGaussian,
    FixedScale,
    GlobalScale,
    NetworkScale,
    PerFeatureScale,
    ScaleModel,
)
from density.families.gaussian import DiagonalGaussian, Gaussian, GaussianFamily, StandardNormal
from density.families.kl import kl
from density.families.nets import mlp
from density.families.rescaled import Rescaled
from density.families.student import StudentT
from density.fitting.ascent import maximise
from density.fitting.best_weights import NonFiniteObjective
from density.fitting.checkpoint import Checkpoint, CheckpointMismatch
from density.fitting.optimisers import adam, constant, cosine, lbfgs
from density.fitting.selection import Selection, select
from density.fitting.training import Training
from density.history import History
from density.initialisation import Standardisation
from density.linalg.moments import Moments
from density.log_density import BitsPerDimension, Claim, Difference, Kind, LogDensity, Measure
from density.parallel.sharded import sharded
from density.rebuildable import Rebuildable
from density.saving.files import UnusableFile
from density.saving.models import load, save
from density.weight_diagnostics import WeightDiagnostics

__all__ = [
    "Bernoulli",
    "BernoulliFamily",
    "BitsPerDimension",
    "Bound",
    "Categorical",
    "CategoricalFamily",
    "Checkpoint",
    "CheckpointMismatch",
    "Chunks",
    "Claim",
    "ConditionalBernoulli",
    "ConditionalCategorical",
    "ConditionalGaussian",
    "Density",
    "DiagonalGaussian",
    "Difference",
    "ExactModel",
    "Findings",
    "FixedScale",
    "Gaussian",
    "GaussianFamily",
    "GlobalScale",
    "History",
    "Kind",
    "LogDensity",
    "Measure",
    "Model",
    "Moments",
    "NetworkScale",
    "NonFiniteObjective",
    "PerFeatureScale",
    "Rebuildable",
    "Rescaled",
    "ScaleModel",
    "Selection",
    "StandardNormal",
    "Standardisation",
    "StudentT",
    "TiedColumns",
    "Training",
    "UnusableFile",
    "WeightDiagnostics",
    "adam",
    "constant",
    "cosine",
    "examine",
    "kl",
    "lbfgs",
    "load",
    "maximise",
    "mlp",
    "save",
    "select",
    "sharded",
]
