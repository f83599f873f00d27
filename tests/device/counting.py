# ruff: noqa: ANN401
"""What a computation asks of the pretended device: kernels, waits for its answers, and copies to it.

A kernel is an operation of torch's that writes numbers: views and bare memory are none, and one that takes several
launches on CUDA (a sort, a random permutation) counts as one. A wait is an operation of which CUDA's version brings a
number or a size to the host, and stops until everything before it is done: ``item``, ``nonzero``, a mask as an index, a
decomposition that says whether it succeeded. Numbers of Python that become tensors there are uploads.

Gradients are clipped on CUDA by a few kernels for all parameters, on the CPU by two for each: here by CUDA's number.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.device import pretended
from tests.device.pretended import Pretended, leaves

ROOT = Path(__file__).parents[2]
TOOLS = {Path(__file__), Path(pretended.__file__)}
FREE = {  # no kernel: memory without numbers, and the same tensor by another name
    *("detach", "alias", "lift_fresh", "_unsafe_view", "empty", "empty_like", "new_empty", "empty_strided"),
    *("new_empty_strided", "_local_scalar_dense", "set_", "resize_"),
}
ASKING = {  # of which CUDA's version asks the device, and waits for the answer
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "_linalg_check_errors", "_linalg_eigh"),
    *("_linalg_svd", "_unique2", "unique_dim", "unique_consecutive", "bincount", "masked_scatter"),
}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
MOVING = {Tensor.to, Tensor.cpu, Tensor.cuda}
MADE = {torch.tensor, torch.as_tensor, Tensor.new_tensor}
CLIPPING = 8  # kernels: all norms, their norm and its stack, four for the factor, all products


@dataclass
class Counts:
    """Kernels by operation; waits and uploads by operation and line."""

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)

    @property
    def totals(self) -> tuple[int, int, int]:
        """Kernels, waits, uploads."""
        return self.kernels.total(), self.waits.total(), self.uploads.total()


class _Functions(TorchFunctionMode):
    """Tells what concerns the device, and sees the copies, which are none in what it is computed by."""

    def __init__(self, counts: Counts, off: list[object]) -> None:
        super().__init__()
        self.counts, self.off = counts, off

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.off or getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        given = leaves(args, kwargs)
        there = any(isinstance(t, Pretended) for t in given)
        asked = [str(t) for t in given if isinstance(t, torch.device | str)]
        if not there and not any(name.startswith("cuda") for name in asked):
            self.off.append(func)  # what follows happens on the host
            try:
                return func(*args, **kwargs)
            finally:
                self.off.pop()
        found = func(*args, **kwargs)
        way = _way(func, args, found)
        if way is not None:
            counted: Counter[str] = getattr(self.counts, way)
            counted[f"{getattr(func, '__name__', func)} at {_line()}"] += 1
        return found


def _way(func: Any, args: Any, found: Any) -> str | None:
    """Whether a call brought numbers from the device, which waits, or to it."""
    there = isinstance(found, Pretended)
    if func in MOVING and isinstance(found, Tensor) and there is not isinstance(args[0], Pretended):
        return "uploads" if there else "waits"
    if func == Tensor.copy_ and isinstance(args[0], Pretended) is not isinstance(args[1], Pretended):
        return "waits" if isinstance(args[1], Pretended) else "uploads"
    if func in MADE and there and not any(isinstance(t, Pretended) for t in leaves(args[func == Tensor.new_tensor])):
        return "uploads"
    if func == Tensor.__getitem__ and there and _from_host(args[1]):
        return "uploads"
    return "waits" if func == Tensor.tolist and isinstance(args[0], Pretended) else None


class _Operations(TorchDispatchMode):
    """Sees what is computed, in gradients and inside of torch's own functions as well."""

    def __init__(self, counts: Counts, off: list[object]) -> None:
        super().__init__()
        self.counts, self.off = counts, off

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.off:
            name = func.overloadpacket.__name__
            if _asks(name, args, kwargs):
                self.counts.waits[f"{name} at {_line()}"] += 1
            if not func.is_view and name not in FREE:
                self.counts.kernels[name] += 1
        return func(*args, **kwargs)


def _asks(name: str, args: Any, kwargs: Any) -> bool:
    if name in INDEXED:
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        number = name.startswith("index_put") and len(masks) == len(args[1]) == 1 and args[2].numel() == 1
        return bool(masks) and not number  # x[mask] = number is a fill
    if name == "multinomial":  # draws without replacement, or one, look whether these are probabilities
        return args[1] == 1 or not (args[2] if len(args) > 2 else False)
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return name in ASKING


def _from_host(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(i, list) or (isinstance(i, Tensor) and not isinstance(i, Pretended)) for i in parts)


def _line() -> str:
    """The innermost line of code that is neither torch's nor of these tools."""
    frame = sys._getframe(2)
    while frame is not None:
        place = _place(frame.f_code.co_filename)
        if place is not None:
            return f"{place}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "a backward pass"


@cache
def _place(filename: str) -> str | None:
    path = Path(filename)
    if path in TOOLS or ".venv" in path.parts or not path.is_relative_to(ROOT):
        return None
    return str(path.relative_to(ROOT))


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what is asked of the pretended device within, inside of :func:`~tests.device.pretended.pretended`."""
    counts, off = Counts(), list[object]()

    def clipped(*arguments: Any, clip: Callable[..., Any] = nn.utils.clip_grad_norm_, **settings: Any) -> Any:
        off.append(clip)
        try:
            return clip(*arguments, **settings)
        finally:
            off.pop()
            counts.kernels["clip_grad_norm_"] += CLIPPING

    with patch.object(nn.utils, "clip_grad_norm_", clipped), _Functions(counts, off), _Operations(counts, off):
        yield counts


def of_a_step(run: Callable[[int], object]) -> tuple[int, int, int]:
    """Kernels, waits and uploads of one more step, of a computation that does as many as it is told."""
    found = []
    for steps in (1, 2):
        with counting() as counts:
            run(steps)
        found.append(counts.totals)
    few, more = found
    return more[0] - few[0], more[1] - few[1], more[2] - few[2]
