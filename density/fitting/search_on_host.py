"""L-BFGS for parameters on an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class SearchOnHost(torch.optim.LBFGS):
    """An L-BFGS whose search runs on the CPU, and the objective where its parameters are.

    Search directions and line searches are a few products of vectors, and a decision after each: an accelerator is
    waited for dozens of times an evaluation of the objective. Here a step works on a copy of the parameters, one vector
    on the CPU, and an evaluation sends it there and brings back value and gradient: one wait. The numbers are those of
    :class:`torch.optim.LBFGS`, whose settings these are, and its state is that of one vector.

    Args:
        parameters: floating-point tensors of one dtype, anywhere.
        settings: as those of :class:`torch.optim.LBFGS`.
    """

    def __init__(self, parameters: list[nn.Parameter], **settings: Any) -> None:  # noqa: ANN401 - those of LBFGS
        self.searched = list(parameters)
        self.vector = nn.Parameter(torch.cat([p.detach().flatten() for p in self.searched]).cpu())
        super().__init__([self.vector], **settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in [*self.searched, self.vector]:
            parameter.grad = None

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step from where the parameters are; the objective's value before it."""
        with torch.no_grad():
            self.vector.copy_(self._joined([p.detach() for p in self.searched]))

        def evaluated() -> Tensor:
            self._spread()
            loss = closure().detach()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.searched]
            found = self._joined([loss, *gradients])
            self.vector.grad = found[1:].to(self.vector.dtype)
            return found[0]

        loss = super().step(evaluated)
        self._spread()
        return loss

    @torch.no_grad()
    def _spread(self) -> None:
        """Give the parameters the values of the vector."""
        there = self.vector.detach().to(self.searched[0].device)
        for parameter, values in zip(self.searched, there.split([p.numel() for p in self.searched]), strict=True):
            parameter.copy_(values.view_as(parameter))

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        return torch.cat([t.detach().flatten() for t in tensors]).cpu()
