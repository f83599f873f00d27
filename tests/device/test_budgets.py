"""A step asks no more of a device than its budget: kernels, waits for an answer, numbers sent there."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.device.budgets import COLUMNS, committed, measured
from tests.device.counting import CLIPPING, counting
from tests.device.pretended import pretended
from tests.device.steps import STEPS

BUDGETS = committed()


def test_every_step_has_a_budget() -> None:
    assert [*BUDGETS] == [*STEPS]


DEAR = {  # and near to others
    "iaf, 5 layers: training step",
    "iaf, 5 layers: log_prob",
    "maf, 5 layers: sample",
    "EM, tied covariances: iteration",
    "EM, diagonal covariances: iteration",
    "stochastic EM: epoch of four steps",
    "quadrature: round of halving",
    "quadrature, 4 points in two dimensions",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in DEAR else ()) for name in STEPS])
def test_a_step_is_within_its_budget(name: str) -> None:
    found = measured(name)
    grown = {column: found[column] for column in COLUMNS if found[column] > BUDGETS[name][column]}
    assert not grown, (
        f"{name} asks more of the device than its budget {BUDGETS[name]}: {grown}. If that is what it must cost, write "
        f"the budget anew: python -m tests.device.budgets '{name}'"
    )


COUNTED: dict[str, tuple[tuple[int, int, int], Callable[[Tensor, Tensor], object]]] = {
    "a sum": ((1, 0, 0), lambda x, host: x + 1),
    "views": ((0, 0, 0), lambda x, host: x.view(2, 3).mT[0].detach()),
    "memory": ((0, 0, 0), lambda x, host: x.new_empty(3)),
    "on the host": ((0, 0, 0), lambda x, host: (host + 1).sum().item()),
    "item": ((1, 1, 0), lambda x, host: x.sum().item()),
    "a condition": ((1, 1, 0), lambda x, host: bool(x.any())),
    "a list": ((0, 1, 0), lambda x, host: x.tolist()),
    "a copy to the host": ((1, 1, 0), lambda x, host: x.cpu()),
    "the same, written there": ((1, 1, 0), lambda x, host: host.copy_(x)),
    "a mask": ((2, 1, 0), lambda x, host: x[x > 3]),
    "a mask that is filled": ((2, 0, 0), lambda x, host: x.masked_fill(x > 3, 0.0)),
    "nonzero": ((1, 1, 0), lambda x, host: x.nonzero()),
    "repetitions by a tensor": ((3, 1, 0), lambda x, host: x.repeat_interleave(x.int())),
    "eigenvalues": ((2, 1, 0), lambda x, host: torch.linalg.eigvalsh(x.diag())),
    "a factor": ((3, 0, 0), lambda x, host: torch.linalg.cholesky_ex((x + 1).diag())[0]),
    "multinomial draws": ((1, 0, 0), lambda x, host: x.multinomial(2, replacement=True)),
    "one of them": ((1, 1, 0), lambda x, host: x.multinomial(1, replacement=True)),
    "those without replacement": ((1, 1, 0), lambda x, host: x.multinomial(2)),
    "a copy to the device": ((1, 0, 1), lambda x, host: host.to("cuda")),
    "the same, written there from the host": ((1, 0, 1), lambda x, host: x.copy_(host)),
    "numbers": ((0, 0, 1), lambda x, host: torch.tensor([1.0, 2.0], device="cuda")),
    "numbers like it": ((0, 0, 1), lambda x, host: x.new_tensor([1.0, 2.0])),
    "an index from the host": ((1, 0, 1), lambda x, host: x[[0, 2]]),
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted(name: str) -> None:
    counted, work = COUNTED[name]
    with pretended():
        x = torch.arange(6.0, device="cuda")
        with counting() as counts:
            work(x, torch.arange(6.0))
    assert counts.totals == counted, counts


def test_gradients_are_counted_and_clipped_at_once() -> None:
    with pretended():
        layer = nn.Linear(3, 2).to("cuda")
        x = torch.ones(4, 3, device="cuda")
        with counting() as counts:
            layer(x).sum().backward()
        assert counts.kernels["mm"] == 1  # the input has no gradient
        assert counts.totals[1:] == (0, 0)
        with counting() as counts:
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        assert counts.totals == (CLIPPING, 0, 0)


def test_a_wait_says_where() -> None:
    with pretended():
        x = torch.arange(6.0, device="cuda")
        with counting() as counts:
            x.max().item()
    (line,) = counts.waits
    assert re.fullmatch(r"_local_scalar_dense at tests/device/test_budgets\.py:\d+", line)
