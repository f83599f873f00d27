# ruff: noqa: ANN401
"""Blocks are as large as the device's memory takes, and say the same whatever that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from density import LogDensity
from density.data.blocks import (
    ROWS_AT_ONCE,
    SCALARS_OF_A_FEATURE,
    SCALARS_OF_A_ROW,
    SHARE,
    rows_at_once,
    rows_in_memory,
)
from lvm import PPCA
from lvm.evidence import FromEncoder, Linear, Pilot, annealed, importance
from tests.device.comparing import ROUNDING, seed
from tests.device.pretended import pretended
from tests.laws.transforms import randomise

D, LARGE = 3, 2**37
ROW = 8 * (SCALARS_OF_A_ROW + SCALARS_OF_A_FEATURE * D)  # bytes, in double precision
SMALL = SHARE * 100 * ROW  # of a hundred rows: blocks of 64


@pytest.mark.parametrize(("memory", "rows"), [(SMALL, 64), (SHARE * 128 * ROW, 128), (SHARE * ROW // 2, 1), (0, 1)])
def test_rows_are_a_power_of_two_that_fits(memory: int, rows: int) -> None:
    with pretended(memory):
        x = torch.empty(5, D, dtype=torch.float64, device="cuda")
        assert rows_at_once(x) == rows_in_memory(x) == rows
        assert rows_at_once(x.cpu()) == 2**12
        assert rows_in_memory(x.cpu()) == ROWS_AT_ONCE


def test_a_gpu_holds_more_and_rows_of_half_the_bytes_are_twice_as_many() -> None:
    with pretended(LARGE):
        x = torch.empty(5, D, dtype=torch.float64, device="cuda")
        assert rows_in_memory(x) == 2**18
        assert rows_in_memory(x.float()) == 2**19
        assert rows_in_memory(x.new_empty(1, 10**9)) == 1


def test_what_others_hold_is_not_counted_on_but_what_torch_keeps_is() -> None:
    with pretended(SMALL):
        x = torch.empty(5, D, dtype=torch.float64, device="cuda")
        with patch.object(torch.cuda, "mem_get_info", lambda device: (20 * ROW, SMALL)):
            assert rows_in_memory(x) == 16
            with (
                patch.object(torch.cuda, "memory_reserved", lambda device: 50 * ROW),
                patch.object(torch.cuda, "memory_allocated", lambda device: 30 * ROW),
            ):
                assert rows_in_memory(x) == 32


PILOT = Pilot(chains=4, temperatures=2, transitions=1)
CLAIMS: dict[str, Callable[[Any, Tensor], LogDensity]] = {
    "log_density": lambda model, x: model.log_density(x),
    "importance": lambda model, x: importance(model, x, draws=30, generator=seed("cuda")),
    "annealed": lambda model, x: annealed(
        model, x, steps=2, chains=4, start=FromEncoder(), schedule=Linear(), pilot=PILOT, generator=seed("cuda")
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_values_do_not_depend_on_memory(name: str) -> None:
    """Of a model that knows its posterior, whose log-weights do not depend on the draws."""
    found, sizes = [], list[int]()
    of = {"log_density": "log_prob", "importance": "_log_weights", "annealed": "_log_joint"}[name]
    method = getattr(PPCA, of)

    class Counted(PPCA):
        """Notes how many rows pass through it together."""

    def counted(self: PPCA, *arguments: Any, **settings: Any) -> Tensor:
        value: Tensor = method(self, *arguments, **settings)
        sizes.append(value.numel())
        return value

    setattr(Counted, of, counted)
    for memory, most in ((SMALL, 64), (LARGE, 10**6)):
        with pretended(memory):
            torch.manual_seed(3)
            model = randomise(Counted(D, 2).double(), seed("cpu")).to("cuda")
            x = torch.randn(70, D, generator=seed("cpu"), dtype=torch.float64).to("cuda")
            sizes.clear()
            found.append(CLAIMS[name](model, x).value.cpu())
            assert max(sizes) <= most
            assert max(sizes) > 64 or memory == SMALL
    torch.testing.assert_close(*found, rtol=ROUNDING, atol=ROUNDING)
