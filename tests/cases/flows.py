"""Flows by name, conditional and not, for tests that every flow passes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from density import (
    ConditionalGaussian,
    mlp,
)
from flows import (
    Flow,
    GaussianAutoregressive,
    LULinear,
    Permutation,
    QRLinear,
    glow,
    iaf,
    linear_flow,
    maf,
    neural_spline_flow,
    real_nvp,
    spline_maf,
)
from tests.cases.transforms import CONTEXT, NARROW, vector
from tests.laws.transforms import randomise


def conditional_base(context: int = CONTEXT) -> ConditionalGaussian:
    return ConditionalGaussian(mlp(context, 4, (8,)), features=2, context_features=context)


FLOWS: dict[str, Callable[[], Flow]] = {
    "maf, one feature": lambda: maf(1, 2, NARROW),
    "maf, one feature, context": lambda: maf(1, 2, NARROW, CONTEXT),
    "real nvp, one feature, context": lambda: real_nvp(1, 2, NARROW, CONTEXT),
    "glow, one feature": lambda: glow(1, 2, NARROW),
    "neural spline flow, one feature, context": lambda: neural_spline_flow(1, 2, NARROW, CONTEXT),
    "spline maf, one feature": lambda: spline_maf(1, 2, NARROW),
    "linear, lu": lambda: linear_flow(2),
    "linear, qr": lambda: linear_flow(2, QRLinear),
    "real nvp": lambda: real_nvp(2, 4, NARROW),
    "glow, context": lambda: glow(2, 3, NARROW, CONTEXT),
    "maf": lambda: maf(2, 3, NARROW),
    "spline maf, context": lambda: spline_maf(2, 2, NARROW, CONTEXT),
    "iaf, context": lambda: iaf(2, 2, NARROW, CONTEXT),
    "flow on a flow": lambda: Flow(real_nvp(2, 2, NARROW, CONTEXT), Permutation([1, 0])),
    "conditional base": lambda: Flow(conditional_base(), LULinear(2)),
    "conditional base and transform": lambda: Flow(
        conditional_base(), GaussianAutoregressive(2, NARROW, context_features=CONTEXT)
    ),
}


def built(name: str, generator: Generator) -> tuple[Flow, Tensor | None]:
    flow = randomise(FLOWS[name](), generator)
    return flow, vector(generator, CONTEXT) if flow.context_features else None
