# ruff: noqa: ANN401
"""What keeps a CUDA graph from being captured of a computation, seen on the pretended device.

A graph is the kernels of a computation with the numbers that they were launched with, to be launched again as they are.
So nothing may wait or bring numbers from the host on the way, and nothing may differ from one time to the next but the
numbers on the device: no operation, no shape, no number of Python, no tensor of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.device.counting import counting
from tests.device.pretended import Pretended, leaves


@dataclass
class Recording:
    """What a computation did, each operation with shapes and numbers, and what it should not have done."""

    operations: list[str] = field(default_factory=list)
    blocking: list[str] = field(default_factory=list)


class _Mixtures(TorchFunctionMode):
    """Sees numbers of the CPU among tensors of the device, which a kernel is launched with."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in leaves(args, kwargs or {}) if isinstance(t, Tensor)]
        there = [isinstance(t, Pretended) for t in given]
        if any(there) and not all(there):
            self.recording.blocking.append(f"a tensor of the CPU in {getattr(func, '__name__', func)}")
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "profiler":
            return func(*args, **(kwargs or {}))
        self.recording.operations.append(f"{func}{[_said(value) for value in reversed(leaves(args, kwargs or {}))]}")
        return func(*args, **(kwargs or {}))


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {value.dtype}"
    return "generator" if isinstance(value, torch.Generator) else repr(value)


@contextmanager
def recording() -> Iterator[Recording]:
    """Record what is done on the pretended device within."""
    found = Recording()
    with counting() as counts, _Mixtures(found), _Operations(found):
        yield found
    found.blocking += [f"waits in {line}" for line in counts.waits]
    found.blocking += [f"brings numbers from the host in {line}" for line in counts.uploads]


def blockers(one: Recording, other: Recording) -> list[str]:
    """What keeps one graph from standing for both computations, in words; nothing where it could."""
    pairs = zip_longest(one.operations, other.operations, fillvalue="nothing")
    changed = [f"{first}, and the next time {second}" for first, second in pairs if first != second]
    return list(dict.fromkeys([*one.blocking, *other.blocking, *changed[:3]]))
