"""Evaluation mode: what a model says of points depends on its weights and on nothing that it did before.

Dropout and batch normalisation have two modes, and a network is in the wrong one after every ``train()``: dropout
draws, and batch normalisation makes a point's value depend on its neighbours and moves its own statistics. A claim
about log p(x) is therefore always computed in evaluation mode, whatever the mode it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from torch import nn

Claiming = TypeVar("Claiming", bound=Callable[..., Any])


@contextmanager
def mode_kept(module: nn.Module) -> Iterator[None]:
    """Whatever happens inside, also an error: every part is left in the mode, training or evaluation, it was in."""
    found = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in found:
            _put(part, training)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of a module in evaluation mode, and afterwards, also after an error, in the mode it was in. O(parts).

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(network):
    ...     [part.training for part in network]
    [False, False]
    >>> [part.training for part in network]
    [True, False]
    """
    found = [part for part in module.modules() if part.training]
    for part in found:
        _put(part, False)
    try:
        yield
    finally:
        for part in found:
            _put(part, True)


def _put(part: nn.Module, training: bool) -> None:
    held = vars(part)
    if "training" in held:
        held["training"] = training  # what setting the attribute does, at a tenth of the time
    else:  # a scripted module holds it elsewhere
        part.training = training


def evaluated(claim: Claiming) -> Claiming:
    """Make a function of a model, its first argument, run with that model in evaluation mode: every claim is one.

    >>> @evaluated
    ... def twice(network, x):
    ...     return network(x).equal(network(x))
    >>> import torch
    >>> twice(nn.Dropout(), torch.ones(100))
    True
    """

    @wraps(claim)
    def evaluate(model: object, *arguments: object, **settings: object) -> object:
        if not isinstance(model, nn.Module):  # the claim itself says what it expected
            return claim(model, *arguments, **settings)
        with evaluating(model):
            return claim(model, *arguments, **settings)

    return cast(Claiming, evaluate)
