"""Exact densities by change of variables."""

from flows.architectures.arrangements import (
    alternating,
    alternating_orders,
    first_half,
    halves,
    random_masks,
    random_orders,
    random_rotation,
)
from flows.architectures.autoregressions import iaf, maf, spline_maf
from flows.architectures.couplings import glow, neural_spline_flow, real_nvp
from flows.architectures.linear_gaussian import linear_flow
from flows.chain import Chain
from flows.compilation import compiled
from flows.flow import Flow
from flows.layers.activation_norm import ActNorm
from flows.layers.autoregressive import Autoregressive, GaussianAutoregressive, SplineAutoregressive
from flows.layers.coupling import AffineCoupling, Coupling, SplineCoupling
from flows.layers.elementwise import Affine, Logit, Sigmoid
from flows.layers.elementwise_spline import ElementwiseSpline
from flows.layers.embedded_context import EmbeddedContext
from flows.layers.linear import Linear
from flows.layers.lu import LULinear
from flows.layers.permutation import Permutation
from flows.layers.qr import QRLinear
from flows.layers.standardised_context import StandardisedContext
from flows.monotone.spline import RationalQuadratic
from flows.networks.masked import MaskedLinear, MaskedMLP, MaskedResidualMLP
from flows.transform import Inverse, Transform

__all__ = [
    "ActNorm",
    "Affine",
    "AffineCoupling",
    "Autoregressive",
    "Chain",
    "Coupling",
    "ElementwiseSpline",
    "EmbeddedContext",
    "Flow",
    "GaussianAutoregressive",
    "Inverse",
    "LULinear",
    "Linear",
    "Logit",
    "MaskedLinear",
    "MaskedMLP",
    "MaskedResidualMLP",
    "Permutation",
    "QRLinear",
    "RationalQuadratic",
    "Sigmoid",
    "SplineAutoregressive",
    "SplineCoupling",
    "StandardisedContext",
    "Transform",
    "alternating",
    "alternating_orders",
    "compiled",
    "first_half",
    "glow",
    "halves",
    "iaf",
    "linear_flow",
    "maf",
    "neural_spline_flow",
    "random_masks",
    "random_orders",
    "random_rotation",
    "real_nvp",
    "spline_maf",
]
