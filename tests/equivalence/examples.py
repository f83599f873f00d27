"""Flows of every architecture at random parameters, in float64: a new architecture is one new line."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from bridge.conversions.nflows_transforms import FromNflows
from density import Gaussian
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    Inverse,
    LULinear,
    Permutation,
    QRLinear,
    Sigmoid,
    glow,
    iaf,
    linear_flow,
    maf,
    real_nvp,
)

FEATURES = 5


def randomise(module: nn.Module, generator: Generator, std: float = 0.3) -> None:
    """Every parameter moves away from its start: no test runs at an identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(std * noise.to(parameter))


def random_matrix(generator: Generator, features: int = FEATURES) -> Tensor:
    """An invertible matrix with singular values in [½, 2], of either sign of determinant."""
    left, right = (
        torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64))[0] for _ in range(2)
    )
    singular = 0.5 * 4 ** torch.rand(features, generator=generator, dtype=torch.float64)
    return left @ torch.diag(singular) @ right


def random_gaussian(generator: Generator, features: int = FEATURES) -> Gaussian:
    root = random_matrix(generator, features)
    return Gaussian.from_moments(torch.randn(features, generator=generator, dtype=torch.float64), root @ root.mT)


def _spline() -> FromNflows:
    from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform

    spline = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        FEATURES, 16, num_bins=6, tails="linear", tail_bound=4.0, num_blocks=1
    )
    return FromNflows(spline, FEATURES)


def _chain_of_everything(generator: Generator) -> Chain:
    return Chain(
        Affine(torch.linspace(-1, 1, FEATURES), torch.linspace(0.5, 2, FEATURES)),
        ActNorm(FEATURES),
        LULinear(FEATURES),
        AffineCoupling([True, False, True, False, False], (8,)),
        Permutation([2, 0, 1, 4, 3]),
        GaussianAutoregressive(FEATURES, (10,), order=[3, 1, 0, 2, 4]),
        QRLinear(FEATURES, reflections=3),
        Inverse(AffineCoupling([False, True, False, True, True], (8,))),
        Inverse(Sigmoid()),
        Sigmoid(),
    )


FLOWS: dict[str, Callable[[Generator], Flow]] = {
    "LU-linear": lambda g: linear_flow(FEATURES),
    "QR-linear": lambda g: linear_flow(FEATURES, QRLinear),
    "LU from a matrix": lambda g: Flow(_base(), LULinear.from_matrix(random_matrix(g))),
    "QR from a matrix": lambda g: Flow(_base(), QRLinear.from_matrix(random_matrix(g), torch.ones(FEATURES).double())),
    "coupling (Real NVP)": lambda g: real_nvp(FEATURES, layers=4, hidden=(16,)),
    "LU and coupling (Glow)": lambda g: glow(FEATURES, layers=3, hidden=(16,)),
    "masked autoregressive (MAF)": lambda g: maf(FEATURES, layers=3, hidden=(16,)),
    "inverse autoregressive (IAF)": lambda g: iaf(FEATURES, layers=2, hidden=(16,)),
    "chain of everything": lambda g: Flow(_base(), Chain(*list(_chain_of_everything(g).parts)[:-2])),
    "Gaussian base": lambda g: Flow(random_gaussian(g), LULinear(FEATURES)),
    "spline by nflows": lambda g: Flow(_base(), Chain(_spline(), LULinear(FEATURES))),
}


def _base() -> nn.Module:
    from density import StandardNormal

    return StandardNormal(FEATURES)


def random_flow(name: str, generator: Generator) -> Flow:
    flow = FLOWS[name](generator).double()
    randomise(flow, generator)
    return flow
