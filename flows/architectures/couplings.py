"""Flows of coupling layers. Each starts as its base, standardised; as a rotation of it with random rotations.

Data and contexts may have any units: ``initialise``, with which ``fit`` begins, standardises both, as part of the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from density.checks import check_count
from density.families.student import StudentT
from flows.architectures.arrangements import Masks, Mixing, alternating
from flows.architectures.steps import Base, flow_of_steps
from flows.flow import Flow
from flows.layers.conditional.autoregressive import GaussianAutoregressive, SplineAutoregressive
from flows.layers.conditional.coupling import AffineCoupling, SplineCoupling
from flows.layers.linear_maps.lu import LULinear
from flows.monotone.spline import RationalQuadratic
from flows.transform import Transform


def real_nvp(
    features: int,
    layers: int = 8,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    *,
    masks: Masks = alternating,
    linear: Mixing | None = None,
    activation: Callable[[], nn.Module] = nn.Tanh,
    dropout: float = 0.0,
    whiten: bool = True,
    base: Base = StudentT,
) -> Flow:
    """RealNVP: affine couplings with alternating checker masks, each after an activation norm.

    Dinh et al. 2017, arXiv:1605.08803. One feature has nothing to be coupled to: each layer is an affine map of it,
    given the context, and the flow a Student-t distribution.

    Args:
        features: width D.
        layers: how many couplings; two or more of several features, so that every one moves.
        hidden: hidden widths of each network.
        context_features: width C of the context, which goes to every coupling, standardised by ``fit``.
        masks: of width and number of the layer, which features pass: :func:`~flows.architectures.alternating`,
            :func:`~flows.architectures.halves`, :func:`~flows.architectures.first_half`,
            :func:`~flows.architectures.random_masks`.
        linear: makes a linear layer before each coupling from the width: :class:`~flows.LULinear`, which
            starts as the identity, :func:`~flows.architectures.random_rotation`; None for none.
        activation: of the networks' hidden layers; see :class:`~flows.AffineCoupling`.
        dropout: share of the networks' hidden units that is dropped in training.
        whiten: whether the first activation norm is followed by a :class:`~flows.Whitening`.
        base: density of z, or what makes it from the width. By default Student-t distributions of learned tails, by
            which one row far outside the training data costs a few nats, where with
            :class:`~density.families.gaussian.StandardNormal` it may cost thousands and rule the mean.

    Raises:
        ValueError: a count is out of range, or without linear layers some feature passes every coupling.

    >>> import torch
    >>> real_nvp(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.7258
    """
    affine = _affine(hidden, context_features, activation, dropout)
    return _coupled(features, layers, affine, masks, linear, whiten, base, "real_nvp")


def glow(
    features: int,
    layers: int = 8,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    *,
    masks: Masks = alternating,
    linear: Mixing | None = LULinear,
    activation: Callable[[], nn.Module] = nn.Tanh,
    dropout: float = 0.0,
    whiten: bool = True,
    base: Base = StudentT,
) -> Flow:
    """Glow: steps of activation norm, LU-linear layer and affine coupling.

    Kingma & Dhariwal 2018, arXiv:1807.03039, fig. 2a, arranged for tables: linear layers start as the identity and
    masks alternate. The paper's arrangement, for channels of images, is ``masks=first_half, linear=random_rotation()``.

    Args:
        features, layers, hidden, context_features, masks, linear, activation, dropout, whiten, base: as for
            :func:`real_nvp`, which with a linear layer is this flow.

    Raises:
        ValueError: as for :func:`real_nvp`.

    >>> import torch
    >>> glow(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.7258
    """
    affine = _affine(hidden, context_features, activation, dropout)
    return _coupled(features, layers, affine, masks, linear, whiten, base, "glow")


def neural_spline_flow(
    features: int,
    layers: int = 8,
    hidden: Sequence[int] = (128, 128),
    context_features: int = 0,
    spline: RationalQuadratic = RationalQuadratic(),
    *,
    masks: Masks = alternating,
    linear: Mixing | None = LULinear,
    activation: Callable[[], nn.Module] = nn.GELU,
    dropout: float = 0.0,
    whiten: bool = True,
    base: Base = StudentT,
) -> Flow:
    """A neural spline flow: steps of activation norm, LU-linear layer and rational-quadratic spline coupling.

    Durkan et al. 2019, arXiv:1906.04032, with linear layers that start as the identity and masks that alternate. One
    feature goes through splines, which the context bends.

    Args:
        spline: bins and bound; outside the bound, in units of the standardised data, each layer is the identity.
        activation: of the networks' hidden layers; unbounded by default, since splines bound what networks may do.
        features, layers, hidden, context_features, masks, linear, dropout, whiten, base: as for :func:`real_nvp`.

    Raises:
        ValueError: as for :func:`real_nvp`.

    >>> import torch
    >>> neural_spline_flow(4, layers=2, hidden=(8,)).log_prob(torch.zeros(1, 4)).item()
    -3.7258
    """

    def splines(mask: Sequence[bool] | None) -> Transform:
        if mask is None:
            return SplineAutoregressive(
                1, hidden, None, context_features, spline, activation=activation, dropout=dropout
            )
        return SplineCoupling(mask, hidden, context_features, spline, activation=activation, dropout=dropout)

    return _coupled(features, layers, splines, masks, linear, whiten, base, "neural_spline_flow")


def _affine(
    hidden: Sequence[int], context_features: int, activation: Callable[[], nn.Module], dropout: float
) -> Callable[[Sequence[bool] | None], Transform]:
    """Makes affine layers from masks; from None for one feature."""

    def affine(mask: Sequence[bool] | None) -> Transform:
        if mask is None:
            return GaussianAutoregressive(1, hidden, None, context_features, activation=activation, dropout=dropout)
        return AffineCoupling(mask, hidden, context_features, activation=activation, dropout=dropout)

    return affine


def _coupled(
    features: int,
    layers: int,
    layer: Callable[[Sequence[bool] | None], Transform],
    masks: Masks,
    linear: Mixing | None,
    whiten: bool,
    base: Base,
    owner: str,
) -> Flow:
    """Steps whose layers are made from masks; from None for one feature, which no mask can cut in two."""
    features = check_count(features, f"{owner}: features")
    layers = check_count(layers, f"{owner}: layers")
    if features == 1:
        return flow_of_steps(1, layers, lambda _: layer(None), None, whiten, base)
    if layers < 2:
        raise ValueError(f"{owner} needs at least 2 layers, or some features are never transformed; got {layers}")
    chosen = [masks(features, number) for number in range(layers)]
    for number, mask in enumerate(chosen):
        if len(mask) != features:
            raise ValueError(
                f"{owner} expects masks of its {features} features; that of layer {number} has {len(mask)}"
            )
    still = [feature for feature, passes in enumerate(zip(*chosen, strict=True)) if all(passes)]
    if linear is None and still:
        raise ValueError(
            f"{owner}: feature {still[0]} passes all {layers} couplings, so that it is never transformed; "
            "take other masks, or a linear layer before each coupling"
        )
    return flow_of_steps(features, layers, lambda number: layer(chosen[number]), linear, whiten, base)
