"""Where flows and latent-variable models meet."""

from typing import TYPE_CHECKING, Any

from bridge.adapters.distribution import FromDistribution, from_distribution
from bridge.adapters.freia import FromFreia, from_freia
from bridge.adapters.functions import AdaptedVAE, from_functions
from bridge.adapters.log_prob import FromLogProb, from_log_prob
from bridge.adapters.normflows import from_normflows
from bridge.adapters.pomegranate import from_pomegranate
from bridge.adapters.pyro import from_pyro
from bridge.adapters.pythae import from_pythae
from bridge.adapters.scvi import FromScvi, from_scvi
from bridge.adapters.velocity import from_score, from_velocity
from bridge.adapters.zuko import from_zuko
from bridge.comparison.comparing import Comparison, compare
from bridge.comparison.pair import Pair
from bridge.comparison.standing import Standing
from bridge.conversions.linear import as_autoregressive, as_flow, as_linear_vae, as_ppca, as_vae
from bridge.conversions.mixtures import as_mixture
from bridge.conversions.nflows import flow_from_nflows, from_nflows, linear_from_nflows, to_nflows
from bridge.conversions.sklearn import mixture_from_sklearn, mixture_to_sklearn, ppca_from_sklearn, ppca_to_sklearn
from bridge.diffusion_ode import ProbabilityFlowVelocity, probability_flow
from bridge.exactness.check import Check, Exactness, check_exact
from bridge.flow_vae import DeltaLink, FlowVAE
from bridge.hybrids import (
    autoregressive_posterior,
    coupling_posterior,
    flow_with_vae_top,
    with_flow_decoder,
    with_flow_prior,
    with_posterior,
)
from bridge.marginal_bound import MarginalBound
from bridge.relaxation import DiagonalJacobianEncoder, GaussianRelaxation, JacobianEncoder, RelaxedDecoder
from bridge.survae.augmentation import Augmentation, ReLU
from bridge.survae.chain import LinkChain, latent_measure
from bridge.survae.dequantisation import UniformDequantisation, VariationalDequantisation
from bridge.survae.layer import GenerativeSurjection, InferenceSurjection, Layer
from bridge.survae.layered import LooseLayeredModel, TightLayeredModel, layered
from bridge.survae.permutations import Sort, StochasticPermutation
from bridge.survae.ranges import HalfNormal, InverseSoftplus, Log, Spacings
from bridge.survae.surjections import Abs, Max, Slice
from density.families.composed.featured import Featured
from significance.statement import Statement, Verdict

if TYPE_CHECKING:
    from bridge.estimator.density_estimator import DensityEstimator as DensityEstimator

__all__ = [
    "Abs",
    "AdaptedVAE",
    "Augmentation",
    "Check",
    "Comparison",
    "DeltaLink",
    "DiagonalJacobianEncoder",
    "Exactness",
    "Featured",
    "FlowVAE",
    "FromDistribution",
    "FromFreia",
    "FromLogProb",
    "FromScvi",
    "GaussianRelaxation",
    "GenerativeSurjection",
    "HalfNormal",
    "InferenceSurjection",
    "InverseSoftplus",
    "JacobianEncoder",
    "Layer",
    "LinkChain",
    "Log",
    "LooseLayeredModel",
    "MarginalBound",
    "Max",
    "Pair",
    "ProbabilityFlowVelocity",
    "ReLU",
    "RelaxedDecoder",
    "Slice",
    "Sort",
    "Spacings",
    "Standing",
    "Statement",
    "StochasticPermutation",
    "TightLayeredModel",
    "UniformDequantisation",
    "VariationalDequantisation",
    "Verdict",
    "as_autoregressive",
    "as_flow",
    "as_linear_vae",
    "as_mixture",
    "as_ppca",
    "as_vae",
    "autoregressive_posterior",
    "check_exact",
    "compare",
    "coupling_posterior",
    "flow_from_nflows",
    "flow_with_vae_top",
    "from_distribution",
    "from_freia",
    "from_functions",
    "from_log_prob",
    "from_nflows",
    "from_normflows",
    "from_pomegranate",
    "from_pyro",
    "from_pythae",
    "from_score",
    "from_scvi",
    "from_velocity",
    "from_zuko",
    "latent_measure",
    "layered",
    "linear_from_nflows",
    "mixture_from_sklearn",
    "mixture_to_sklearn",
    "ppca_from_sklearn",
    "ppca_to_sklearn",
    "probability_flow",
    "to_nflows",
    "with_flow_decoder",
    "with_flow_prior",
    "with_posterior",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a class, whose library is imported when it is asked for
    if name == "DensityEstimator":
        from bridge.estimator.density_estimator import DensityEstimator

        return DensityEstimator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
