"""Well-known flows, and how their layers may be arranged."""

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
from flows.architectures.images import image_flow, image_nvp
from flows.architectures.linear_gaussian import linear_flow

__all__ = [
    "alternating",
    "alternating_orders",
    "first_half",
    "glow",
    "halves",
    "iaf",
    "image_flow",
    "image_nvp",
    "linear_flow",
    "maf",
    "neural_spline_flow",
    "random_masks",
    "random_orders",
    "random_rotation",
    "real_nvp",
    "spline_maf",
]
