"""The common log-density interface and the small densities that everything else is made of."""

from density.bernoulli import Bernoulli, BernoulliFamily, ConditionalBernoulli
from density.categorical import Categorical, CategoricalFamily, ConditionalCategorical
from density.checkpoint import Checkpoint, CheckpointMismatch
from density.contract import Bound, Density, ExactModel, Model
from density.files import UnusableFile
from density.fitting import NonFiniteObjective, Training, adam, constant, cosine, lbfgs, maximise
from density.gaussian import (
    ConditionalGaussian,
    DiagonalGaussian,
    FixedScale,
    Gaussian,
    GaussianFamily,
    GlobalScale,
    NetworkScale,
    PerFeatureScale,
    ScaleModel,
    StandardNormal,
)
from density.history import History
from density.kl import kl
from density.log_density import BitsPerDimension, Claim, Difference, Kind, LogDensity, Measure, WeightDiagnostics
from density.moments import Moments
from density.nets import mlp
from density.rebuildable import Rebuildable
from density.rescaled import Rescaled, Standardisation
from density.saving import load, save
from density.sharded import sharded

__all__ = [
    "Bernoulli",
    "BernoulliFamily",
    "BitsPerDimension",
    "Bound",
    "Categorical",
    "CategoricalFamily",
    "Checkpoint",
    "CheckpointMismatch",
    "Claim",
    "ConditionalBernoulli",
    "ConditionalCategorical",
    "ConditionalGaussian",
    "Density",
    "DiagonalGaussian",
    "Difference",
    "ExactModel",
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
    "StandardNormal",
    "Standardisation",
    "Training",
    "UnusableFile",
    "WeightDiagnostics",
    "adam",
    "constant",
    "cosine",
    "kl",
    "lbfgs",
    "load",
    "maximise",
    "mlp",
    "save",
    "sharded",
]
