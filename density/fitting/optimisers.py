"""Optimisers and learning-rate schedules of gradient fits; any function of the same form is another one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Parameters = list[nn.Parameter] | list[dict[str, Any]]
OptimiserOf = Callable[[Any, float], Optimizer]  # of Parameters; a function of a list of parameters will do
Schedule = Callable[[float], float]


def adam(parameters: Parameters, learning_rate: float) -> Optimizer:
    """Adam (Kingma & Ba 2015), all parameters in one fused step where the device has one.

    Where the parameters come in groups with a weight decay of their own, it is AdamW (Loshchilov & Hutter 2019): at
    each step weights shrink by the factor 1 − learning rate · decay, whatever their gradient is.

    >>> adam([torch.nn.Parameter(torch.zeros(2))], 0.01).defaults["lr"]
    0.01
    """
    groups = [group for group in parameters if isinstance(group, dict)]
    single = [p for group in groups for p in group["params"]] or list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in single)
    if groups:
        return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0, fused=fused)
    return torch.optim.Adam(single, lr=learning_rate, fused=fused)


def lbfgs(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
    """L-BFGS with a strong-Wolfe line search: for full batches and objectives without sampling noise.

    Of parameters on an accelerator the search runs on the CPU (:class:`SearchOnHost`).

    >>> lbfgs([torch.nn.Parameter(torch.zeros(2))], 1.0).defaults["line_search_fn"]
    'strong_wolfe'
    """
    kind = torch.optim.LBFGS if all(p.device.type == "cpu" for p in parameters) else SearchOnHost
    return kind(
        parameters, lr=learning_rate, max_iter=20, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=1e-12
    )


class SearchOnHost(torch.optim.LBFGS):
    """An L-BFGS whose search runs on the CPU, and the objective where its parameters are.

    Search directions and line searches are a few products of vectors, and a decision after each: an accelerator is
    waited for dozens of times an evaluation of the objective. Here a step works on a copy of the parameters, one vector
    on the CPU. An evaluation sends it there and brings back value and gradient: one wait. The first of a step brings
    the parameters as well and sends nothing; where the last evaluation is where the step ends, as it mostly is, no more
    is sent. The numbers are those of :class:`torch.optim.LBFGS`, whose settings these are, and so is its
    ``state_dict``: the one continues what the other began.

    Args:
        parameters: floating-point tensors of one dtype, anywhere.
        settings: as those of :class:`torch.optim.LBFGS`.
    """

    def __init__(self, parameters: list[nn.Parameter], **settings: Any) -> None:  # noqa: ANN401 - those of LBFGS
        self.searched = list(parameters)
        self.vector = nn.Parameter(_on_host(self.searched))
        super().__init__([self.vector], **settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in [*self.searched, self.vector]:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["param_groups"][0]["params"] = [*range(len(self.searched))]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        (group,) = state_dict["param_groups"]
        super().load_state_dict({**state_dict, "param_groups": [{**group, "params": [0]}]})

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step from where the parameters are; the objective's value before it."""
        size = self.vector.numel()

        def brought(beside: list[Tensor]) -> tuple[Tensor, Tensor]:
            """Value and gradient where the parameters are, in one look, and what lies beside them."""
            loss = closure()
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.searched]
            found = _on_host([loss, *gradients, *beside])
            self.vector.grad = found[1 : 1 + size].to(self.vector.dtype)
            return found[0], found[1 + size :]

        value, where = brought([*self.searched])
        known = [value]
        with torch.no_grad():
            sent = self.vector.copy_(where).clone()

        def evaluated() -> Tensor:
            nonlocal sent
            if known:
                return known.pop()
            sent = self._send()
            return brought([])[0]

        loss = super().step(evaluated)
        if not self.vector.equal(sent):
            self._send()
        return loss

    @torch.no_grad()
    def _send(self) -> Tensor:
        """Give the parameters the values of the vector, a copy of which is returned."""
        sent = self.vector.detach().clone()
        there = sent.to(self.searched[0].device)
        for parameter, values in zip(self.searched, there.split([p.numel() for p in self.searched]), strict=True):
            parameter.copy_(values.view_as(parameter))
        return sent


def _on_host(tensors: list[Any]) -> Tensor:
    """All their numbers in one vector on the CPU."""
    return torch.cat([t.detach().flatten() for t in tensors]).cpu()


class Rates:
    """The learning rates of an optimiser's groups, scaled together.

    A graph that is captured repeats the numbers it was captured with. Where steps are to be captured, the rate of a
    group on CUDA is therefore a tensor there, written in place, and the optimiser counts its steps there
    (``capturable``), if it is one that can: Adam and its kin.

    Args:
        optimiser: whose groups have the rates that are scaled.
        captured: whether graphs are made of its steps.

    >>> optimiser = adam([nn.Parameter(torch.zeros(2))], 0.01)
    >>> Rates(optimiser, captured=False).scale(0.5)
    >>> optimiser.param_groups[0]["lr"]
    0.005
    """

    def __init__(self, optimiser: Optimizer, captured: bool) -> None:
        self.optimiser = optimiser
        self.own = [group["lr"] for group in optimiser.param_groups]
        self.written: list[Tensor | None] = []
        for group in optimiser.param_groups:
            able = captured and "capturable" in group and all(p.device.type == "cuda" for p in group["params"])
            if able:
                group["capturable"] = True
            like = {"device": group["params"][0].device, "dtype": torch.float32}  # as which fused kernels read a rate
            self.written.append(torch.empty((), **like) if able else None)

    def scale(self, factor: float) -> None:
        """The rates of the next step: each group's own times a factor."""
        for group, own, written in zip(self.optimiser.param_groups, self.own, self.written, strict=True):
            group["lr"] = own * factor if written is None else written.fill_(own * factor)


def constant(progress: float) -> float:
    """The learning rate stays as it is.

    >>> constant(0.0), constant(0.9)
    (1.0, 1.0)
    """
    return 1.0


def cosine(progress: float) -> float:
    """The learning rate falls to zero along half a cosine (Loshchilov & Hutter 2017).

    >>> [round(cosine(progress), 4) for progress in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * progress))
