"""Exact densities by change of variables."""

from flows.activation_norm import ActNorm
from flows.architectures import glow, iaf, linear_flow, maf, real_nvp
from flows.autoregressive import GaussianAutoregressive, MaskedLinear, MaskedMLP
from flows.coupling import AffineCoupling
from flows.elementwise import Affine, Logit, Sigmoid
from flows.flow import Flow
from flows.linear import Linear
from flows.lu import LULinear
from flows.qr import QRLinear
from flows.transform import Chain, Inverse, Permutation, Transform

__all__ = [
    "ActNorm",
    "Affine",
    "AffineCoupling",
    "Chain",
    "Flow",
    "GaussianAutoregressive",
    "Inverse",
    "LULinear",
    "Linear",
    "Logit",
    "MaskedLinear",
    "MaskedMLP",
    "Permutation",
    "QRLinear",
    "Sigmoid",
    "Transform",
    "glow",
    "iaf",
    "linear_flow",
    "maf",
    "real_nvp",
]
