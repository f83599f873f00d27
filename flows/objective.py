"""What the fit of a flow maximises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator, Tensor

from density.contract import Density, ExactModel
from density.numerical import numerical_parts, running
from flows.transform import Transform


class PushForward(ExactModel):
    """A density by a base and a transform, as an objective sees it; :class:`~flows.flow.Flow` is one."""

    base: Density
    transform: Transform


class FlowObjective(ABC):
    """A number for each point, whose mean the fit of a flow maximises.

    >>> isinstance(MaximumLikelihood(), FlowObjective)
    True
    """

    @abstractmethod
    def __call__(
        self, flow: PushForward, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """``[n]`` at points ``[n, D]`` and contexts ``[n, C]``, differentiable in the flow's parameters.

        Args:
            generator: of what is drawn, on the device of x.
        """


@dataclass(frozen=True)
class MaximumLikelihood(FlowObjective):
    """log p(x), nats.

    Args:
        looseness: by how much the solvers of continuous flows are looser in the fit than in claims, whose errors are
            stated. Steps of a fit are noisier than that by far.

    Raises:
        ValueError: a looseness below 1.

    >>> import torch
    >>> from density import StandardNormal, Training
    >>> from flows import Flow, LULinear
    >>> flow = Flow(StandardNormal(2), LULinear(2))
    >>> history = flow.fit(torch.randn(64, 2), Training(epochs=1, progress=False), objective=MaximumLikelihood())
    >>> len(history.objective)
    1
    """

    looseness: float = 1.0

    def __post_init__(self) -> None:
        if not self.looseness >= 1:
            raise ValueError(f"MaximumLikelihood: looseness must be at least 1; got {self.looseness}")

    def __call__(
        self, flow: PushForward, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        with running(numerical_parts(flow), looseness=self.looseness, generator=generator):
            return flow.log_prob(x, context)
