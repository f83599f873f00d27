"""Functions compiled by ``torch.compile``, and what happens where a machine cannot."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function compiled by ``torch.compile``, or as it is, with a warning, where this machine cannot compile.

    For many calls with batches of one shape: ``log_prob = compiled(flow.log_prob)``. The first call takes from seconds
    to minutes; the numbers agree to rounding. Whether there is a C++ or Triton compiler shows at the first call.

    Args:
        function: of tensors, such as a model's ``log_prob``.

    >>> from flows import real_nvp
    >>> log_prob = compiled(real_nvp(2, layers=2).log_prob)  # compiled when it is first called
    """
    return attempted(lambda: torch.compile(function), function)


def attempted(compiling: Callable[[], Callable[P, R]], function: Callable[P, R]) -> Callable[P, R]:
    """The function as compiled at the first call, or as it is, with a warning, once a call of that has failed.

    Args:
        compiling: returns the compiled function.
        function: itself.
    """
    fast: Callable[P, R] | None = None
    usable = True

    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        nonlocal fast, usable
        if not usable:
            return function(*arguments, **keywords)
        try:
            if fast is None:
                fast = compiling()
            return fast(*arguments, **keywords)
        except Exception as error:
            result = function(*arguments, **keywords)  # an error of the function itself comes out here
            usable = False
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"torch.compile failed and the function runs as it is: {reason}", stacklevel=2)
            return result

    return call
