"""Exact densities by change of variables."""

from density.compilation.functions import compiled
from density.images.networks import ResidualBlock, convolutional_network, residual_network
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
from flows.architectures.continuous import continuous_flow
from flows.architectures.couplings import glow, neural_spline_flow, real_nvp
from flows.architectures.images import image_flow, image_nvp
from flows.architectures.linear_gaussian import linear_flow
from flows.chain import Chain
from flows.continuous.flow_matching import FlowMatching
from flows.continuous.solver import UnsolvedODE
from flows.continuous.trace import ExactTrace, Hutchinson
from flows.continuous.transform import ContinuousTransform
from flows.flow import Flow
from flows.images.conditioner import ImageConditioner, image_coupling
from flows.images.masks import channel_halves, checkerboard
from flows.images.squeezes import squeeze
from flows.layers.by_feature.activation_norm import ActNorm
from flows.layers.by_feature.bounded import BoxLogit, HalfLineLog, on_box, on_half_line
from flows.layers.by_feature.elementwise import Affine, Logit, Sigmoid
from flows.layers.by_feature.elementwise_spline import ElementwiseSpline
from flows.layers.conditional.autoregressive import Autoregressive, GaussianAutoregressive, SplineAutoregressive
from flows.layers.conditional.coupling import AffineCoupling, Coupling, SplineCoupling
from flows.layers.conditional.embedded_context import EmbeddedContext
from flows.layers.conditional.standardised_context import StandardisedContext
from flows.layers.linear_maps.linear import Linear
from flows.layers.linear_maps.lu import LULinear
from flows.layers.linear_maps.permutation import Permutation
from flows.layers.linear_maps.qr import QRLinear
from flows.layers.linear_maps.whitening import Whitening
from flows.layers.on_features import OnFeatures
from flows.layers.pixelwise import PixelWise
from flows.monotone.monotone import Monotone
from flows.monotone.spline import RationalQuadratic
from flows.networks.masked import MaskedLinear, MaskedMLP, MaskedResidualMLP
from flows.objective import FlowObjective, MaximumLikelihood
from flows.transform import Inverse, Transform

__all__ = [
    "ActNorm",
    "Affine",
    "AffineCoupling",
    "Autoregressive",
    "BoxLogit",
    "Chain",
    "ContinuousTransform",
    "Coupling",
    "ElementwiseSpline",
    "EmbeddedContext",
    "ExactTrace",
    "Flow",
    "FlowMatching",
    "FlowObjective",
    "GaussianAutoregressive",
    "HalfLineLog",
    "Hutchinson",
    "ImageConditioner",
    "Inverse",
    "LULinear",
    "Linear",
    "Logit",
    "MaskedLinear",
    "MaskedMLP",
    "MaskedResidualMLP",
    "MaximumLikelihood",
    "Monotone",
    "OnFeatures",
    "Permutation",
    "PixelWise",
    "QRLinear",
    "RationalQuadratic",
    "ResidualBlock",
    "Sigmoid",
    "SplineAutoregressive",
    "SplineCoupling",
    "StandardisedContext",
    "Transform",
    "UnsolvedODE",
    "Whitening",
    "alternating",
    "alternating_orders",
    "channel_halves",
    "checkerboard",
    "compiled",
    "continuous_flow",
    "convolutional_network",
    "first_half",
    "glow",
    "halves",
    "iaf",
    "image_coupling",
    "image_flow",
    "image_nvp",
    "linear_flow",
    "maf",
    "neural_spline_flow",
    "on_box",
    "on_half_line",
    "random_masks",
    "random_orders",
    "random_rotation",
    "real_nvp",
    "residual_network",
    "spline_maf",
    "squeeze",
]
