"""Somebody else's functions: called with the modules that they use in hand, and drawn from with a generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any, Self

import torch
from torch import Generator, nn


class Calls(nn.Module):
    """A function as a module whose parts are the modules that the function uses (:func:`modules_of`).

    So they move, train, and stand in evaluation mode with the model that calls the function, as those of a network do.

    Raises:
        TypeError: it cannot be called; or on a copy, of a function that names modules in its code and would go on
            using the originals.

    >>> network = nn.Linear(2, 1)
    >>> [part is network for part in Calls(lambda x: network(x)).parts]
    [True]
    """

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"expected a module or a function; got {type(function).__name__}")
        self.parts = nn.ModuleList(modules_of(function))
        self.__dict__["function"] = function  # a module is a part already

    def forward(self, *arguments: object) -> Any:  # noqa: ANN401  # whatever the function returns
        return self.function(*arguments)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        if len(self.parts) and inspect.isfunction(self.function):
            raise TypeError(
                f"the function {self.function.__qualname__} names the modules that it uses, so that a copy of it would "
                "go on using the originals. Give the module itself, or one of its methods, which can be copied with it"
            )
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(deepcopy(self.__dict__, memo))
        return made


def modules_of(function: object) -> list[nn.Module]:
    """The modules that a function uses: itself, the one that it is a method of, or those that its code names."""
    if isinstance(function, nn.Module):
        return [function]
    if isinstance(function, partial):
        held = [function.func, *function.args, *function.keywords.values()]
        return _once(module for value in held for module in modules_of(value))
    if inspect.ismethod(function):
        return modules_of(function.__self__)
    if not inspect.isfunction(function):
        return []
    try:
        named = inspect.getclosurevars(function)
    except ValueError:  # a name that is not bound yet
        return []
    values = [*named.nonlocals.values(), *named.globals.values()]
    return _once(value for value in values if isinstance(value, nn.Module))


def is_module(found: object) -> bool:
    """Whether something is a module, without telling a type checker, to which a module of theirs has no attributes."""
    return isinstance(found, nn.Module)


@contextmanager
def seeded(generator: Generator | None, device: torch.device) -> Iterator[None]:
    """Let what draws from torch's global random state draw from a generator, and leave that state as it was.

    None draws from the global state as it is. State of other libraries, such as numpy's, is not reached.

    >>> with seeded(Generator().manual_seed(0), torch.device("cpu")):
    ...     first = torch.rand(3)
    >>> with seeded(Generator().manual_seed(0), torch.device("cpu")):
    ...     first.equal(torch.rand(3))
    True
    """
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _once(modules: Iterator[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(modules))
