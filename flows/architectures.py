"""Well-known flows over a standard normal base. Each starts as the identity, or in glow's case a rotation.

Data and contexts may have any units: ``initialise``, with which ``fit`` begins, standardises both, as part of the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.families.gaussian import StandardNormal
from density.families.noise import normal_noise
from flows.chain import Chain
from flows.flow import Flow
from flows.layers.activation_norm import ActNorm
from flows.layers.autoregressive import GaussianAutoregressive
from flows.layers.coupling import AffineCoupling, SplineCoupling
from flows.layers.linear import Linear
from flows.layers.lu import LULinear
from flows.layers.standardised_context import StandardisedContext
from flows.monotone.spline import RationalQuadratic
from flows.transform import Inverse, Transform


def linear_flow(features: int, linear: Callable[..., Linear] = LULinear, bias: bool = True) -> Flow:
    """A linear flow z = W x + b, which makes a Gaussian, with W held as the layer holds it.

    With a bias, an activation norm comes before the layer, so that ``fit`` starts from standardised data; both together
    are one affine map.

    Args:
        features: width D.
        linear: makes the layer from width and ``bias=``: :class:`~flows.layers.lu.LULinear`,
            :class:`~flows.layers.qr.QRLinear`.
        bias: whether to add b; without it the density is centred at 0, and data is taken in its own units.

    >>> linear_flow(3, bias=False).transform.matrix().equal(torch.eye(3))
    True
    """
    layer = linear(features, bias=bias)
    return Flow(StandardNormal(features), Chain(ActNorm(features), layer) if bias else layer)


def real_nvp(features: int, layers: int = 8, hidden: Sequence[int] = (128, 128), context_features: int = 0) -> Flow:
    """RealNVP: affine couplings with alternating checker masks, each after an activation norm.

    Dinh et al. 2017, arXiv:1605.08803.

    Args:
        features: width D ≥ 2.
        layers: how many couplings; two or more, so that every feature moves.
        hidden: hidden widths of each network.
        context_features: width C of the context, which goes to every coupling, standardised by ``fit``.

    Raises:
        ValueError: a count is out of range.

    >>> real_nvp(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.6758
    """
    _check_couplings(features, layers, "real_nvp")
    parts: list[Transform] = []
    for layer in range(layers):
        mask = [feature % 2 == layer % 2 for feature in range(features)]
        parts += [ActNorm(features), AffineCoupling(mask, hidden, context_features)]
    return _flow(features, parts)


def glow(
    features: int,
    layers: int = 8,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    *,
    generator: Generator | None = None,
) -> Flow:
    """Glow: steps of activation norm, LU-linear layer and affine coupling.

    Kingma & Dhariwal 2018, arXiv:1807.03039, fig. 2a. Each linear layer starts as a random rotation, decomposed
    once; the coupling passes the first half of the features.

    Args:
        features: width D ≥ 2.
        layers: how many steps; two or more.
        hidden: hidden widths of each network.
        context_features: width C of the context, which goes to every coupling, standardised by ``fit``.
        generator: draws the rotations; by default torch's global one.

    Raises:
        ValueError: a count is out of range.

    >>> glow(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.6758
    """
    _check_couplings(features, layers, "glow")
    mask = [feature < features // 2 for feature in range(features)]
    parts: list[Transform] = []
    for _ in range(layers):
        rotation = LULinear.from_matrix(_random_rotation(features, generator))
        parts += [ActNorm(features), rotation, AffineCoupling(mask, hidden, context_features)]
    return _flow(features, parts)


def neural_spline_flow(
    features: int,
    layers: int = 8,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    spline: RationalQuadratic = RationalQuadratic(),
    *,
    generator: Generator | None = None,
) -> Flow:
    """A neural spline flow: steps of activation norm, LU-linear layer and rational-quadratic spline coupling.

    Durkan et al. 2019, arXiv:1906.04032. Each linear layer starts as a random rotation, decomposed once; the coupling
    passes the first half of the features.

    Args:
        features: width D ≥ 2.
        layers: how many steps; two or more.
        hidden: hidden widths of each network.
        context_features: width C of the context, which goes to every coupling, standardised by ``fit``.
        spline: bins and bound.
        generator: draws the rotations; by default torch's global one.

    Raises:
        ValueError: a count is out of range.

    >>> neural_spline_flow(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.6758
    """
    _check_couplings(features, layers, "neural_spline_flow")
    mask = [feature < features // 2 for feature in range(features)]
    parts: list[Transform] = []
    for _ in range(layers):
        rotation = LULinear.from_matrix(_random_rotation(features, generator))
        parts += [ActNorm(features), rotation, SplineCoupling(mask, hidden, context_features, spline)]
    return _flow(features, parts)


def maf(features: int, layers: int = 5, hidden: Sequence[int] = (128, 128), context_features: int = 0) -> Flow:
    """A masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057): alternating orders, activation norms.

    One pass of each network for ``log_prob``; about as much arithmetic, in D steps, for a sample. One feature makes a
    Gaussian (given the context).

    Args:
        features: width D.
        layers: how many autoregressive layers.
        hidden: hidden widths of each network.
        context_features: width C of the context, which goes to every layer, standardised by ``fit``.

    Raises:
        ValueError: a count is out of range.

    >>> maf(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.6758
    """
    return _autoregressive(features, layers, hidden, context_features, lambda layer: layer, "maf")


def iaf(features: int, layers: int = 5, hidden: Sequence[int] = (128, 128), context_features: int = 0) -> Flow:
    """An inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934): :func:`maf` with each layer inverted.

    One pass of each network for a sample; about as much arithmetic, in D steps, for ``log_prob``. Arguments and errors
    as for :func:`maf`.

    >>> iaf(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.6758
    """
    return _autoregressive(features, layers, hidden, context_features, Inverse, "iaf")


def _autoregressive(
    features: int,
    layers: int,
    hidden: Sequence[int],
    context_features: int,
    direction: Callable[[Transform], Transform],
    owner: str,
) -> Flow:
    features = check_count(features, f"{owner}: features")
    layers = check_count(layers, f"{owner}: layers")
    parts: list[Transform] = []
    for layer in range(layers):
        order = range(features) if layer % 2 == 0 else range(features - 1, -1, -1)
        autoregressive = GaussianAutoregressive(features, hidden, order, context_features)
        parts += [ActNorm(features), direction(autoregressive)]
    return _flow(features, parts)


def _flow(features: int, parts: list[Transform]) -> Flow:
    """The chain of these over a standard normal; the context, if they take one, in units of its own."""
    chain = Chain(*parts)
    return Flow(StandardNormal(features), StandardisedContext(chain) if chain.context_features else chain)


def _check_couplings(features: int, layers: int, owner: str) -> None:
    features = check_count(features, f"{owner}: features")
    layers = check_count(layers, f"{owner}: layers")
    if features < 2:
        raise ValueError(
            f"{owner} couples features and needs at least 2; got {features}. For one feature use a spline, "
            "Flow(StandardNormal(1), Chain(ActNorm(1), SplineAutoregressive(1))), or for a Gaussian maf(1)"
        )
    if layers < 2:
        raise ValueError(f"{owner} needs at least 2 layers, or some features are never transformed; got {layers}")


def _random_rotation(features: int, generator: Generator | None) -> Tensor:
    """A uniform rotation: Q of a Gaussian matrix, signs fixed by R (Mezzadri 2007, arXiv:math-ph/0609050, §5)."""
    q, r = torch.linalg.qr(normal_noise(features, features, generator=generator))
    q = q * r.diagonal().sign()
    return torch.cat([q[:, :1] * torch.linalg.det(q).sign(), q[:, 1:]], 1)
