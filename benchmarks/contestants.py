"""Contestants of a race: what each does, on which device, and why one is absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Work = Callable[[], object]
T = TypeVar("T")
S = TypeVar("S")


class Absent(Exception):
    """A contestant that does not take part, and why; raised by what makes one, and kept in its place.

    >>> print(Absent("computes on the CPU alone"))
    absent: computes on the CPU alone
    """

    def __str__(self) -> str:
        return f"absent: {self.args[0]}"


class Contestant(NamedTuple):
    """A density in some library: its parameters, and how it evaluates rows and draws some."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], object]
    note: str = ""


Contestants = dict[str, Contestant | Absent]
Works = dict[str, Work | Absent]


def present(making: Callable[[], T]) -> T | Absent:
    """What is made; or why not, be it a library that is not installed or one that cannot do it on this device."""
    try:
        return making()
    except Absent as absent:
        return absent
    except Exception as error:
        reason = str(error).strip() or "without a word"
        return Absent(f"{type(error).__name__}: {reason.splitlines()[0]}")


def require_cpu(device: torch.device) -> None:
    """Of a library that can compute nowhere else."""
    if device.type != "cpu":
        raise Absent("computes on the CPU alone")


def peer(library: str) -> ModuleType:
    """Our module about a library, which imports it."""
    return import_module(f"benchmarks.peers.{library.lower()}")


def each(made: Mapping[str, T | Absent], function: Callable[[T], S]) -> dict[str, S | Absent]:
    """A function of all that are present."""
    return {name: one if isinstance(one, Absent) else function(one) for name, one in made.items()}


def built(
    build: Callable[[], Contestants], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Contestants, Tensor]:
    """Contestants, and normal rows of a shape, of a dtype: made on the CPU, so the same everywhere, and moved."""
    torch.set_default_dtype(dtype)
    try:
        made, x = build(), torch.randn(shape)
    finally:
        torch.set_default_dtype(torch.float32)
    for one in made.values():
        if isinstance(one, Contestant):
            one.module.to(device)
    return made, x.to(device)


def agreeing(made: Contestants, x: Tensor, tolerances: Mapping[str, float]) -> Contestants:
    """The same, those absent whose log p(x) is off the first one's by more than a tolerance, in nats."""

    def checked(one: Contestant, tolerance: float) -> Contestant:
        off = (one.log_prob(x) - expected).abs().max().item()
        if not off < tolerance:
            raise Absent(f"computes something else, off by {off:.1e} nats")
        return one

    with torch.no_grad():
        expected = next(iter(made.values())).log_prob(x)
        return {
            name: present(lambda one=one, name=name: checked(one, tolerances[name]))
            if name in tolerances and isinstance(one, Contestant)
            else one
            for name, one in made.items()
        }


def without(made: Contestants, agreed: Contestants) -> Contestants:
    """The same, those absent that are absent there."""
    return {name: agreed[name] if isinstance(agreed[name], Absent) else one for name, one in made.items()}


def notes_of(made: Contestants) -> dict[str, str]:
    """What is to be said of those present."""
    return {name: one.note for name, one in made.items() if isinstance(one, Contestant)}


def works_of(made: Contestants, x: Tensor) -> tuple[Works, Works, Works]:
    """Steps of training on the rows, their evaluation, and draws of as many."""
    return (
        each(made, lambda one: training_step(one.module, lambda: -one.log_prob(x).mean())),
        each(made, lambda one: without_gradients(lambda: one.log_prob(x))),
        each(made, lambda one: without_gradients(lambda: one.sample(len(x)))),
    )


def without_gradients(work: Work) -> Work:
    """The work as one evaluates: no graph is built."""

    def call() -> object:
        with torch.no_grad():
            return work()

    return call


def training_step(module: nn.Module, objective: Callable[[], Tensor]) -> Work:
    """Gradient and step of the same optimiser, fused Adam, for everybody; the objective is minimised."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-6, fused=True)

    def call() -> None:
        optimiser.zero_grad()
        objective().backward()
        optimiser.step()

    return call


def compiled(function: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function as one graph of static shape, on CUDA a CUDA graph, after a first call."""
    options = {"triton.cudagraphs": True} if device.type == "cuda" else None
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def warm(work: Work) -> Work:
    """The same, once called: what a compiler does is not timed."""
    work()
    return work
