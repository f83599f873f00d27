"""What float32 costs, by depth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator

from flows import ActNorm, AffineCoupling, Chain, GaussianAutoregressive, LULinear, QRLinear, SplineCoupling, Transform
from tests.cases.transforms import matrix
from tests.laws.transforms import randomise

D = 8


def coupling(layer: int, generator: Generator) -> list[Transform]:
    return [AffineCoupling(torch.arange(D) % 2 == layer % 2, (32,))]


def autoregressive(layer: int, generator: Generator) -> list[Transform]:
    return [GaussianAutoregressive(D, (32,), range(D) if layer % 2 else range(D - 1, -1, -1))]


def lu(layer: int, generator: Generator) -> list[Transform]:
    return [LULinear.from_matrix(torch.linalg.qr(matrix(generator, D)).Q)]


def qr(layer: int, generator: Generator) -> list[Transform]:
    return [QRLinear(D, generator=generator)]


def glow(layer: int, generator: Generator) -> list[Transform]:
    return lu(layer, generator) + coupling(layer, generator)


def spline(layer: int, generator: Generator) -> list[Transform]:
    return [SplineCoupling(torch.arange(D) % 2 == layer % 2, (32,))]


# Allowed errors after 1, 10 and 50 layers, each with an activation norm. eps is 1.2e-7; a layer adds a few of its own
# roundings (a matrix of 8 by 8 some tens) and stretches those before it, by a factor that compounds. Five times what
# was measured over five seeds.
TOLERANCES: dict[Callable[[int, Generator], list[Transform]], tuple[float, float, float]] = {
    coupling: (1e-6, 3e-6, 1e-4),
    autoregressive: (1e-6, 3e-6, 2e-5),
    spline: (1e-5, 1e-4, 5e-3),
    lu: (4e-6, 1e-5, 3e-5),
    qr: (1e-5, 3e-5, 1e-4),
    glow: (4e-6, 2e-5, 2e-2),  # couplings of rotated features: the least tame of these
}


@pytest.mark.parametrize("position", [0, 1, 2], ids=["1 layer", "10 layers", "50 layers"])
@pytest.mark.parametrize("build", TOLERANCES, ids=lambda build: build.__name__)
def test_float32_against_float64(
    build: Callable[[int, Generator], list[Transform]], position: int, generator: Generator
) -> None:
    depth, tolerance = (1, 10, 50)[position], TOLERANCES[build][position]
    parts = [part for layer in range(depth) for part in (ActNorm(D), *build(layer, generator))]
    transform = randomise(Chain(*parts), generator, scale=0.05)
    x = torch.randn(200, D, generator=generator, dtype=torch.float64, device=generator.device).float()
    with torch.no_grad():
        transform.initialise(x.double())
        expected, expected_log_det = transform.forward(x.double())
        transform = transform.float()
        z, log_det = transform.forward(x)
        back, back_log_det = transform.inverse(z)
    for error in (
        (back - x) / (1 + x.abs()),
        (z - expected) / (1 + expected.abs()),
        log_det - expected_log_det,
        log_det + back_log_det,
    ):
        assert error.abs().max() <= tolerance


def test_log_determinants_accumulate_in_the_dtype_of_x() -> None:
    """50 terms of 1/3: in float64 they add up to float64 accuracy whatever the default dtype is."""
    norm = ActNorm(1).double()
    with torch.no_grad():
        norm.log_scale.fill_(1 / 3)
    _, log_det = Chain(*[norm] * 50).forward(torch.zeros(1, dtype=torch.float64))
    assert abs(log_det.item() + 50 / 3) < 1e-13
