"""L-BFGS whose search runs on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from density import adam
from density.fitting.optimisers import Rates, SearchOnHost


def test_it_is_l_bfgs(generator: Generator) -> None:
    """Bit for bit, on the Rosenbrock function of two tensors, one of which an evaluation may leave without gradient."""
    start = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    ways = []
    for kind in (torch.optim.LBFGS, SearchOnHost):
        parameters = [nn.Parameter(start.clone()), nn.Parameter(torch.ones(1, dtype=torch.float64))]
        optimiser = kind(parameters, lr=0.5, max_iter=7, line_search_fn="strong_wolfe")
        values, points = list[Tensor](), list[Tensor]()

        def closure() -> Tensor:
            optimiser.zero_grad()  # noqa: B023 - called within the round
            x, y = parameters[0].unbind(1)  # noqa: B023
            loss = (100 * (y - x.square()).square() + (1 - x).square()).sum()
            loss.backward()
            return loss

        for _ in range(3):
            values.append(torch.as_tensor(optimiser.step(closure)).detach())
            points.append(parameters[0].detach().clone())
        ways.append((values, points, parameters[1].detach()))
    for mine, other in zip(*ways, strict=True):
        assert all(a.equal(b) for a, b in zip(mine, other, strict=True))
    assert ways[0][0][-1] < ways[0][0][0]


def test_a_step_begins_where_the_parameters_are(generator: Generator) -> None:
    parameter = nn.Parameter(torch.tensor([3.0]))
    optimiser = SearchOnHost([parameter], lr=1.0)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (parameter - 1).square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        parameter.fill_(7.0)
    assert optimiser.step(closure).item() == 36
    assert abs(parameter.item() - 1) < 1e-6


def test_a_step_ends_where_the_search_does() -> None:
    """Also where the objective was not evaluated last: a step without a line search goes on from there."""
    parameter = nn.Parameter(torch.tensor([3.0]))
    optimiser = SearchOnHost([parameter], lr=0.25, max_iter=1)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (parameter - 1).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert parameter.item() == 2.75  # torch's first step is lr · min(1, 1/|g|) · g


@pytest.mark.parametrize("there", [torch.optim.LBFGS, SearchOnHost])
@pytest.mark.parametrize("here", [torch.optim.LBFGS, SearchOnHost])
def test_the_one_goes_on_where_the_other_stopped(there: type[torch.optim.LBFGS], here: type[torch.optim.LBFGS]) -> None:
    """By its state alone, of two tensors."""

    def steps(number: int, kind: type[torch.optim.LBFGS], start: list[Tensor], state: object = None) -> list[object]:
        parameters = [nn.Parameter(t.clone()) for t in start]
        optimiser = kind(parameters, lr=0.5, max_iter=3, line_search_fn="strong_wolfe")
        if state is not None:
            optimiser.load_state_dict(state)  # type: ignore[arg-type]

        def closure() -> Tensor:
            optimiser.zero_grad()
            x, y = parameters
            loss = (100 * (y - x.square()).square() + (1 - x).square()).sum()
            loss.backward()
            return loss

        for _ in range(number):
            optimiser.step(closure)  # type: ignore[arg-type]
        return [[p.detach() for p in parameters], optimiser.state_dict()]

    start = [torch.full((2,), value, dtype=torch.float64) for value in (-1.2, 1.0)]
    whole, _ = steps(4, torch.optim.LBFGS, start)
    halfway, state = steps(2, there, start)
    ended, _ = steps(2, here, halfway, state)  # type: ignore[arg-type]
    assert all(a.equal(b) for a, b in zip(whole, ended, strict=True))  # type: ignore[call-overload]
    assert not any(a.equal(b) for a, b in zip(halfway, ended, strict=True))  # type: ignore[call-overload]


def test_rates_are_numbers_on_the_cpu() -> None:
    optimiser = adam([nn.Parameter(torch.zeros(2))], 0.1)
    Rates(optimiser, captured=True).scale(0.5)
    assert optimiser.param_groups[0]["lr"] == 0.05
    assert not optimiser.param_groups[0]["capturable"]


def test_every_group_has_its_own_rate() -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimiser = torch.optim.SGD([{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:]}], lr=0.1)
    rates = Rates(optimiser, captured=False)
    for factor in (0.5, 0.1):
        rates.scale(factor)
        assert [group["lr"] for group in optimiser.param_groups] == [0.3 * factor, 0.1 * factor]
