"""Arguments that have another name now: the former one is refused with the new one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Target = TypeVar("Target", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[Target], Target]:
    """A decorator that says what a function, or a class, takes instead of each former argument.

    >>> @renamed(warm_start="start=Present()")
    ... def fit(start: object = None) -> None: ...
    >>> fit(warm_start=True)
    Traceback (most recent call last):
        ...
    TypeError: fit takes start=Present() instead of warm_start
    """

    def refusing(function: Callable[..., Any], owner: str) -> Callable[..., Any]:
        @wraps(function)
        def checked(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - whatever the function takes
            for former in names:
                if former in keywords:
                    raise TypeError(f"{owner} takes {names[former]} instead of {former}")
            return function(*arguments, **keywords)

        return checked

    def decorate(target: Target) -> Target:
        if not isinstance(target, type):
            return cast("Target", refusing(target, target.__qualname__))
        constructor: Any = target
        constructor.__init__ = refusing(constructor.__init__, target.__qualname__)
        return target

    return decorate
