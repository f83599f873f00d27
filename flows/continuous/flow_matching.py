"""Flow matching: the velocity of a continuous flow by regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.families.noise import stratified_noise
from flows.chain import Chain
from flows.continuous.transform import ContinuousTransform
from flows.objective import FlowObjective, PushForward
from flows.transform import Transform


@dataclass(frozen=True)
class FlowMatching(FlowObjective):
    r"""Conditional flow matching along straight paths (Lipman et al. 2023, arXiv:2210.02747, equation 23, σ_min = 0).

    .. math:: -E_{t,\, z} \|v(x_t, t) - (z - x)\|^2, \qquad x_t = (1 - t)\, x + t z, \qquad t \sim U(0, 1)

    with z from the base: of all velocities that one is the best which takes the data to the base. Nothing is solved,
    so a step costs one evaluation of the velocity. It is no likelihood, and no bound on one: its value has a floor that
    depends on the data, and a fit that is better by it need not be so by log p(x).

    The flow's transform is a :class:`~flows.continuous.transform.ContinuousTransform`, or a chain that ends with one:
    points are matched as they leave what is before it, which stays as it started from the data. Times are stratified
    over a batch: each is uniform, and together they leave no gap.

    Raises:
        TypeError: in use, another transform.

    >>> from density import StandardNormal, Timed, Training, mlp
    >>> from flows import Flow
    >>> flow = Flow(StandardNormal(2), ContinuousTransform(Timed(mlp(3, 2, (8,)), 2), 2))
    >>> history = flow.fit(torch.randn(64, 2), Training(epochs=1, progress=False), objective=FlowMatching())
    >>> len(history.objective)
    1
    """

    def __call__(
        self, flow: PushForward, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        before, last = _parted(flow.transform)
        with torch.no_grad():
            for part in before:
                x = part._forward_points(x, context)
            given = context if flow.base.context_features else None
            if given is None:
                z = flow.base.sample(len(x), generator=generator)
            else:
                z = flow.base.sample(1, context=given, generator=generator).squeeze(0)
            t = stratified_noise(x[:, :1], generator)
        output = last.velocities((1 - t) * x + t * z, t, context if last.context_features else None)
        return -(output - (z - x)).square().sum(1)


def _parted(transform: Transform) -> tuple[list[Transform], ContinuousTransform]:
    """What comes before a continuous transform, and that."""
    parts = transform._sequence() if isinstance(transform, Chain) else [transform]
    last = parts[-1] if parts else transform
    if not isinstance(last, ContinuousTransform):
        raise TypeError(
            "FlowMatching fits the velocity of a ContinuousTransform, alone or at the end of a Chain; got "
            f"{type(transform).__name__}{f' that ends with {type(last).__name__}' if last is not transform else ''}"
        )
    return parts[:-1], last
