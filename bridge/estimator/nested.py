"""Parameters of a parameter: the arguments of a function, and the fields of a settings object, by their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial

UNSET = inspect.Parameter.empty
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def settings_of(value: object) -> dict[str, object]:
    """What can be set in a value, and what it is set to; ``UNSET`` for an argument that is required and not given.

    Of a data class, its fields. Of a function, its arguments but for the first, which it will be called with.

    >>> def build(features, components, ridge=0.1): ...
    >>> settings_of(partial(build, components=2))
    {'components': 2, 'ridge': 0.1}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    if not callable(value):
        return {}
    try:
        arguments = list(inspect.signature(value).parameters.values())[1:]
    except ValueError:  # written in another language
        return {}
    return {argument.name: argument.default for argument in arguments if argument.kind in NAMED}


def having(value: object, changes: Mapping[str, object], name: str) -> object:
    """A value like this one but for some of its settings: another data class, or a ``functools.partial``.

    Args:
        value: is not changed.
        changes: by names that :func:`settings_of` knows.
        name: of the value, for the error.

    Raises:
        ValueError: something has no such setting.

    >>> from density import Training
    >>> having(Training(epochs=5), {"learning_rate": 0.1}, "training").learning_rate
    0.1
    """
    known = settings_of(value)
    if unknown := [each for each in changes if each not in known]:
        raise ValueError(
            f"Invalid parameter {unknown[0]!r} for {name}, which is {value!r}. Valid parameters are: {list(known)}"
        )
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **changes)
    assert callable(value), "what is neither has no settings"
    return partial(value, **changes)
