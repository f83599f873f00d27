"""The common log-density interface and the small densities that everything else is made of."""

from density.contract import Bound, Density, ExactModel, Model
from density.data.chunks import Chunks
from density.data.findings import Findings, examine
from density.data.ties import TiedColumns
from density.families.bernoulli import Bernoulli, BernoulliFamily, ConditionalBernoulli
from density.families.categorical import Categorical, CategoricalFamily, ConditionalCategorical
from density.families.composed.category import Category
from density.families.composed.columns import Columns
from density.families.composed.featured import Featured
from density.families.composed.indicators import Indicators
from density.families.composed.observed_entries import ObservedEntries
from density.families.composed.product import Product
from density.families.composed.table_input import TableInput
from density.families.conditional_gaussian import (
    ConditionalGaussian,
    FixedScale,
    GlobalScale,
    NetworkScale,
    PerFeatureScale,
    ScaleModel,
)
from density.families.counts.counts import Counts
from density.families.counts.negative_binomial import NegativeBinomial
from density.families.counts.poisson import Poisson
from density.families.counts.zero_inflated import ZeroInflated
from density.families.gaussian import DiagonalGaussian, Gaussian, GaussianFamily, StandardNormal
from density.families.kl import kl
from density.families.levels.categorical_levels import CategoricalLevels
from density.families.levels.discretised_logistic import DiscretisedLogistic
from density.families.levels.grey import GreyLevels
from density.families.likelihoods.bernoulli import BernoulliLikelihood
from density.families.likelihoods.exponential import ExponentialFamily
from density.families.likelihoods.gaussian import GaussianLikelihood
from density.families.likelihoods.inputs import LogCounts, Masked, Recentred
from density.families.likelihoods.likelihood import Likelihood
from density.families.likelihoods.univariate import (
    ConditionallyIndependent,
    Independent,
    IndependentFamily,
    UnivariateLikelihood,
)
from density.families.nets import mlp
from density.families.real.location_scale import Laplace, LocationScale, LocationScaleT
from density.families.rescaled import Rescaled
from density.families.student import StudentT
from density.families.timed import Timed
from density.families.unit_interval.beta import Beta
from density.families.unit_interval.continuous_bernoulli import ContinuousBernoulli
from density.families.unit_interval.logit_normal import LogitNormal
from density.fitting.ascent import maximise
from density.fitting.autocast import lowered, tensor_float_32
from density.fitting.best_weights import NonFiniteObjective
from density.fitting.checkpoint import Checkpoint, CheckpointMismatch
from density.fitting.optimisers import adam, constant, cosine, lbfgs
from density.fitting.selection import Selection, select
from density.fitting.training import LastBatch, Training
from density.history import History
from density.images.encoding import Enlarged, ImageDecoder, ImageEncoder
from density.images.networks import ResidualBlock, convolutional_network, residual_network
from density.initialisation import Standardisation
from density.linalg.moments import Moments
from density.log_density import BitsPerDimension, Claim, Difference, Kind, LogDensity
from density.measure import Measure, ProductMeasure, ReferenceMeasure
from density.parallel.sharded import sharded
from density.rebuildable import Rebuildable
from density.saving.files import UnusableFile
from density.saving.models import load, save
from density.weight_diagnostics import WeightDiagnostics

__all__ = [
    "Bernoulli",
    "BernoulliFamily",
    "BernoulliLikelihood",
    "Beta",
    "BitsPerDimension",
    "Bound",
    "Categorical",
    "CategoricalFamily",
    "CategoricalLevels",
    "Category",
    "Checkpoint",
    "CheckpointMismatch",
    "Chunks",
    "Claim",
    "Columns",
    "ConditionalBernoulli",
    "ConditionalCategorical",
    "ConditionalGaussian",
    "ConditionallyIndependent",
    "ContinuousBernoulli",
    "Counts",
    "Density",
    "DiagonalGaussian",
    "Difference",
    "DiscretisedLogistic",
    "Enlarged",
    "ExactModel",
    "ExponentialFamily",
    "Featured",
    "Findings",
    "FixedScale",
    "Gaussian",
    "GaussianFamily",
    "GaussianLikelihood",
    "GlobalScale",
    "GreyLevels",
    "History",
    "ImageDecoder",
    "ImageEncoder",
    "Independent",
    "IndependentFamily",
    "Indicators",
    "Kind",
    "Laplace",
    "LastBatch",
    "Likelihood",
    "LocationScale",
    "LocationScaleT",
    "LogCounts",
    "LogDensity",
    "LogitNormal",
    "Masked",
    "Measure",
    "Model",
    "Moments",
    "NegativeBinomial",
    "NetworkScale",
    "NonFiniteObjective",
    "ObservedEntries",
    "PerFeatureScale",
    "Poisson",
    "Product",
    "ProductMeasure",
    "Rebuildable",
    "Recentred",
    "ReferenceMeasure",
    "Rescaled",
    "ResidualBlock",
    "ScaleModel",
    "Selection",
    "StandardNormal",
    "Standardisation",
    "StudentT",
    "TableInput",
    "TiedColumns",
    "Timed",
    "Training",
    "UnivariateLikelihood",
    "UnusableFile",
    "WeightDiagnostics",
    "ZeroInflated",
    "adam",
    "constant",
    "convolutional_network",
    "cosine",
    "examine",
    "kl",
    "lbfgs",
    "load",
    "lowered",
    "maximise",
    "mlp",
    "residual_network",
    "save",
    "select",
    "sharded",
    "tensor_float_32",
]
