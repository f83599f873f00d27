"""Densities keep the precision of their parameters, whatever ``torch.autocast`` they are called in; and where a lower
one was asked for, claims say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")

DEVICES = "cpu", "cuda"
_IN_FORCE: ContextVar[tuple[tuple[Callable[[nn.Module], bool], str], ...]] = ContextVar("lower precision", default=())


def in_own_precision(method: Callable[P, T]) -> Callable[P, T]:
    """The same method, which an outer ``torch.autocast`` does not reach.

    A log-density whose matrix products are rounded to 8 bits is another one, and no longer normalised; decompositions
    have no such precision at all. Networks may well run lower: :func:`~density.fitting.autocast.lowered` runs them, and
    nothing else, so.

    >>> from density.families.gaussian import Gaussian
    >>> x = torch.tensor([[1.0, 1.001]])
    >>> with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    ...     lower, own = x @ x.mT, Gaussian(2).log_prob(x)
    >>> lower.dtype, own.dtype
    (torch.bfloat16, torch.float32)
    """

    @wraps(method)
    def call(*arguments: P.args, **keywords: P.kwargs) -> T:
        if not any(map(torch.is_autocast_enabled, DEVICES)):
            return method(*arguments, **keywords)
        with ExitStack() as off:
            for device in filter(torch.is_autocast_enabled, DEVICES):
                off.enter_context(torch.autocast(device, enabled=False))
            return method(*arguments, **keywords)

    return call


@contextmanager
def in_lower_precision(concerns: Callable[[nn.Module], bool], words: str) -> Iterator[None]:
    """Within, claims of the models that it concerns say these words.

    >>> with in_lower_precision(lambda model: True, "in bfloat16"):
    ...     lower_precision_of(nn.Identity())
    'in bfloat16'
    >>> lower_precision_of(nn.Identity())
    ''
    """
    token = _IN_FORCE.set((*_IN_FORCE.get(), (concerns, words)))
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def lower_precision_of(model: nn.Module) -> str:
    """The lower precision in which a model computes at the moment, in words; empty where it is its own."""
    return ", ".join(words for concerns, words in _IN_FORCE.get() if concerns(model))
