"""Fifty layers in float32: how far an inverse is from undoing them, and how the error grows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator

from flows import ActNorm, AffineCoupling, Chain, GaussianAutoregressive, LULinear, Transform
from tests.laws.transforms import randomise

FEATURES, LAYERS = 6, 50
EPS = torch.finfo(torch.float32).eps
Record = Callable[[str, float, float], None]


def coupling(layer: int) -> list[Transform]:
    mask = torch.arange(FEATURES) % 2 == layer % 2
    return [ActNorm(FEATURES), LULinear(FEATURES), AffineCoupling(mask, (16,))]


def autoregressive(layer: int) -> list[Transform]:
    order = range(FEATURES) if layer % 2 == 0 else range(FEATURES - 1, -1, -1)
    return [ActNorm(FEATURES), GaussianAutoregressive(FEATURES, (16,), order)]


@pytest.mark.parametrize("spread", [0.05, 0.1], ids=["mild", "wild"])
@pytest.mark.parametrize("block", [coupling, autoregressive])
def test_the_round_trip_error_of_fifty_layers_is_bounded(
    block: Callable[[int], list[Transform]], spread: float, generator: Generator, record_measurement: Record
) -> None:
    """|f⁻¹(f(x)) − x| ≤ 4 ε L κ max(1, |x|), with L blocks and κ the condition number of ∂f/∂x where it is worst.

    Every block adds rounding of ε to z, which the blocks that undo those before it stretch by up to the ratio of the
    Jacobian's singular values: linear in the number of layers for a given κ. The value z itself is off by ε L κ at
    most, and the log-determinant, a sum of L D terms of size one, by ε L D.
    """
    chain = randomise(Chain(*(part for layer in range(LAYERS) for part in block(layer))), generator, spread)
    x = torch.randn(100, FEATURES, generator=generator, dtype=torch.float64).float()
    chain.initialise(x.double())
    with torch.no_grad():
        exact, exact_log_det = chain(x.double())
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: chain(row)[0]))(x.double())
        singular = torch.linalg.svdvals(jacobian)
        condition = float((singular[:, 0] / singular[:, -1]).max())
        chain = chain.float()
        z, log_det = chain(x)
        back, log_det_back = chain.inverse(z)
    assert 5 < condition < 1e5, "the chain is too near the identity, or too far from anything of use"
    growth = EPS * LAYERS * condition * max(1.0, float(x.abs().max()))
    name = f"50 {block.__name__} blocks in float32"
    record_measurement(f"{name}: round trip", float((back - x).abs().max()), 4 * growth)
    record_measurement(f"{name}: z", float((z - exact).abs().max()), growth)
    record_measurement(f"{name}: log|det|", float((log_det - exact_log_det).abs().max()), EPS * LAYERS * FEATURES)
    record_measurement(f"{name}: log|det| there and back", float((log_det + log_det_back).abs().max()), 4 * growth)


@pytest.mark.parametrize("block", [coupling, autoregressive])
def test_the_round_trip_error_of_fifty_layers_in_float64(
    block: Callable[[int], list[Transform]], generator: Generator, record_measurement: Record
) -> None:
    chain = randomise(Chain(*(part for layer in range(LAYERS) for part in block(layer))), generator, 0.1)
    x = torch.randn(100, FEATURES, generator=generator, dtype=torch.float64)
    chain.initialise(x)
    with torch.no_grad():
        back = chain.inverse(chain(x)[0])[0]
    # As above with ε = 2e-16 and κ below 1e5.
    record_measurement(f"50 {block.__name__} blocks in float64: round trip", float((back - x).abs().max()), 1e-8)
