"""Continuous flows on one network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from density.checks import check_count
from density.contract import Density
from density.families.gaussian import StandardNormal
from density.families.nets import mlp
from density.families.timed import Timed
from flows.architectures.steps import Base
from flows.chain import Chain
from flows.continuous.trace import Trace
from flows.continuous.transform import EXACT_TRACE, ContinuousTransform
from flows.flow import Flow
from flows.layers.by_feature.activation_norm import ActNorm
from flows.layers.linear_maps.whitening import Whitening
from flows.transform import Transform


def continuous_flow(
    features: int,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    *,
    trace: Trace = EXACT_TRACE,
    tolerance: float = 1e-6,
    activation: Callable[[], nn.Module] = nn.SiLU,
    whiten: bool = True,
    base: Base = StandardNormal,
) -> Flow:
    """A continuous flow whose velocity is one perceptron of point, time and context, and starts as 0.

    Before it come an activation norm and, if asked for, whitening: both are set from the data by the first ``fit``, and
    the norm is trained with the rest where the objective has a gradient for it, which flow matching has not.

    Args:
        features: width D.
        hidden: widths of the hidden layers.
        context_features: C; 0 for an unconditional flow. The first ``fit`` standardises the contexts.
        trace, tolerance: see :class:`~flows.continuous.transform.ContinuousTransform`.
        activation: makes the module between two layers. Smooth ones take fewer steps of the solver.
        whiten: whether to whiten the data.
        base: density of z, or what makes it from the width.

    Raises:
        ValueError: a size or the tolerance is out of range.

    >>> import torch
    >>> flow = continuous_flow(2, hidden=(8,))
    >>> flow.log_density(torch.zeros(1, 2))
    log p(x) = -1.8379 ± nan (data) nats, exact (change of variables, solved to 2e-05 nats), Lebesgue measure, 1 points
    """
    features = check_count(features, "continuous_flow: features")
    context_features = check_count(context_features, "continuous_flow: context_features", least=0)
    network = mlp(features + 1 + context_features, features, hidden, activation, zero_init=True)
    velocity = Timed(network, features, context_features)
    moving = ContinuousTransform(velocity, features, context_features, trace=trace, tolerance=tolerance)
    before: list[Transform] = [ActNorm(features)]
    if whiten and features > 1:
        before.append(Whitening(features))
    return Flow(base if isinstance(base, Density) else base(features), Chain(*before, moving))
