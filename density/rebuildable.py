"""Modules that remember how they were built, so that a file can hold their configuration."""

from __future__ import annotations

import inspect
from typing import Self

from torch import Generator


class Rebuildable:
    """Remembers, by reference, the arguments that an object's class was called with.

    Densities, models, transforms and links do. A network of one's own does when it names this class first among its
    bases; :func:`~density.saving.models.save` can then write any model that holds it.

    Generators are not kept: they draw initial values, and a file holds the values themselves.

    >>> from torch import nn
    >>> class Residual(Rebuildable, nn.Module):
    ...     def __init__(self, width: int, depth: int = 2) -> None:
    ...         super().__init__()
    ...         self.net = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
    >>> arguments_of(Residual(3))
    ([], {'width': 3, 'depth': 2})
    """

    _built_with: tuple[tuple[object, ...], dict[str, object]]

    def __new__(cls, *arguments: object, **keywords: object) -> Self:
        made = super().__new__(cls)
        kept = tuple(None if isinstance(value, Generator) else value for value in arguments)
        named = {name: value for name, value in keywords.items() if not isinstance(value, Generator)}
        made.__dict__["_built_with"] = (kept, named)  # not by setattr: nn.Module would register a module a second time
        return made


def call_signature(cls: type) -> inspect.Signature:
    """What a class is called with: the parameters of its ``__init__``.

    Of a class that inherits both, ``inspect.signature`` reads ``__new__`` in some versions of Python (3.11.2), which
    here takes anything.

    >>> class Own(Rebuildable):
    ...     def __init__(self, width: int, depth: int = 2) -> None: ...
    >>> list(call_signature(type("Heir", (Own,), {})).parameters)
    ['width', 'depth']
    """
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def arguments_of(built: Rebuildable) -> tuple[list[object], dict[str, object]]:
    """What an object was built with: the variadic arguments, and all others by name, defaults included."""
    positional, keywords = built._built_with
    signature = call_signature(type(built))
    bound = signature.bind(*positional, **keywords)
    bound.apply_defaults()
    variadic: list[object] = []
    named: dict[str, object] = {}
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            variadic.extend(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return variadic, named
