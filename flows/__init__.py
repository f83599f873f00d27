"""Exact densities by change of variables."""

from flows.activation_norm import ActNorm
from flows.architectures import glow, iaf, linear_flow, maf, neural_spline_flow, real_nvp
from flows.autoregressive import Autoregressive, GaussianAutoregressive, SplineAutoregressive
from flows.chain import Chain
from flows.compilation import compiled
from flows.coupling import AffineCoupling, Coupling, SplineCoupling
from flows.elementwise import Affine, Logit, Sigmoid
from flows.flow import Flow
from flows.linear import Linear
from flows.lu import LULinear
from flows.masked import MaskedLinear, MaskedMLP, MaskedResidualMLP
from flows.qr import QRLinear
from flows.spline import RationalQuadratic
from flows.transform import Inverse, Permutation, Transform

__all__ = [
    "ActNorm",
    "Affine",
    "AffineCoupling",
    "Autoregressive",
    "Chain",
    "Coupling",
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
    "Transform",
    "compiled",
    "glow",
    "iaf",
    "linear_flow",
    "maf",
    "neural_spline_flow",
    "real_nvp",
]
