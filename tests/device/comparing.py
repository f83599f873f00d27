# ruff: noqa: ANN401
"""A computation on the CPU and on the pretended device: the same numbers and words, and no tensor left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from density import LogDensity
from tests.device.counting import counting
from tests.device.pretended import Generator, Pretended, pretended

ROUNDING = 1e-8  # of another path to the same number, such as AᵀA by strips; and √ε, a spread of equal numbers
OTHERS = ("flows/continuous/solver.py", "bridge/conversions/nflows_transforms.py")  # whose lines call other libraries


def seed(device: str, value: int = 3) -> Generator:
    """A generator there."""
    generator = Generator(device)
    generator.manual_seed(value)
    return generator


def made(case: Any, device: str) -> Any:
    """The model of a case of the tables, built on the CPU and moved."""
    torch.manual_seed(3)
    model = case.make(seed("cpu")).to(device)
    model.load_state_dict(model.state_dict())  # what follows from a loaded tensor follows it to its device
    return model


def both(call: Callable[[str], Any]) -> None:
    """The call with "cpu", and with "cuda" where there is such a device, comes to the same, there on the device."""
    here = list(contents(call("cpu")))
    with pretended():
        there = list(contents(call("cuda")))
    assert len(here) == len(there) > 0
    for mine, other in zip(here, there, strict=True):
        if isinstance(mine, Tensor):
            assert isinstance(other, Pretended), f"a tensor of shape {list(mine.shape)} was left on the CPU"
            other, mine = other.detach().cpu(), mine.detach()
        if isinstance(mine, str):
            assert other == mine
        else:
            torch.testing.assert_close(other, mine, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)


def contents(found: Any) -> Iterator[Any]:
    """All tensors, numbers and words of a result, of lists, dictionaries, models and records as of their parts."""
    if isinstance(found, Tensor | str | float | int):
        yield found
    elif isinstance(found, LogDensity):
        yield from (found.value, found.monte_carlo_error) if found.monte_carlo_error is not None else (found.value,)
    elif isinstance(found, nn.Module):
        yield from contents(found.state_dict())
    elif is_dataclass(found):
        yield from contents([getattr(found, each.name) for each in fields(found) if each.name != "seconds"])
    elif isinstance(found, np.ndarray):
        yield from found.flatten().tolist()
    elif isinstance(found, dict):
        yield from contents([*found.values()])
    elif isinstance(found, list | tuple):
        for part in found:
            yield from contents(part)


@contextmanager
def asking_nothing(device: str, waits: int = 0) -> Iterator[None]:
    """What is computed within neither waits for the device nor sends numbers there: a graph could be captured of it.

    What may wait some times, at most, may send numbers as well.
    """
    if device == "cpu":
        yield
        return
    with counting() as counts:
        yield
    of_ours = [
        {line: n for line, n in counted.items() if not line.partition(" at ")[2].startswith(OTHERS)}
        for counted in (counts.waits, counts.uploads)
    ]
    assert sum(of_ours[0].values()) <= waits, f"waits for the device: {of_ours[0]}"
    assert waits or not of_ours[1], f"sends numbers to the device: {of_ours[1]}"
