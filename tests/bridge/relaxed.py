"""Flows to relax, of bounded condition, and the integrals of a relaxed flow by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from density import Gaussian, StandardNormal
from flows import Flow, LULinear, QRLinear, maf, real_nvp
from flows.layers.linear_maps.linear import Linear
from tests.bridge.comparison import normal
from tests.laws.transforms import randomise

# Weights of this size keep the condition number of a random flow of D features below 100, which a test asserts.
SPREAD = {1: 0.3, 2: 0.12, 8: 0.12, 32: 0.05}


def conditioned(generator: Generator, features: int) -> Tensor:
    """A matrix with singular values from 0.05 to 5, condition 100 (one feature: 2)."""
    left, right = (torch.linalg.qr(normal(generator, features, features))[0] for _ in range(2))
    singular = torch.logspace(math.log10(0.05), math.log10(5), features, dtype=torch.float64)
    return left @ torch.diag(singular if features > 1 else 0 * singular + 2) @ right


def linear(kind: type[Linear], generator: Generator, features: int) -> Flow:
    transform = kind.from_matrix(conditioned(generator, features), normal(generator, features))
    return Flow(StandardNormal(features).double(), transform)


FLOWS: dict[str, Callable[[Generator, int], Flow]] = {
    "LU": lambda g, d: linear(LULinear, g, d),
    "QR": lambda g, d: linear(QRLinear, g, d),
    "coupling": lambda g, d: randomise(real_nvp(d, 4, (16,), base=StandardNormal), g, SPREAD[d]),
    "autoregressive": lambda g, d: randomise(maf(d, 3, (16,), linear=None, base=StandardNormal), g, SPREAD[d]),
}


def nodes(features: int, count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite rule for N(0, I): nodes ``[count^D, D]`` and log-weights."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    log_weights = torch.from_numpy(np.log(weights / weights.sum()))
    grid = torch.cartesian_prod(*[torch.from_numpy(points)] * features).reshape(-1, features)
    return grid, torch.cartesian_prod(*[log_weights] * features).reshape(-1, features).sum(-1)


def blurred(flow: Flow, x: Tensor, sigma: float, count: int) -> Tensor:
    """log ∫ p_flow(x − σu) N(u) du: the evidence seen from the flow's side, without encoder or decoder."""
    u, log_weights = nodes(flow.features, count)
    return (flow.log_prob(x - sigma * u.unsqueeze(1)) + log_weights.unsqueeze(1)).logsumexp(0)


def gaussian_of(flow: Flow) -> Gaussian:
    """The density of an affine flow over a standard normal, from its value and Jacobian at the origin."""
    origin = torch.zeros(flow.features).double()
    inverse = torch.linalg.inv(torch.func.jacrev(lambda x: flow.transform(x)[0])(origin).detach())
    offset = flow.transform(origin)[0].detach()
    return Gaussian.from_moments(-inverse @ offset, inverse @ inverse.mT)
