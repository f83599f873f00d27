"""Evaluation mode: what a model says of points depends on its weights and on nothing that it did before.

Dropout and batch normalisation have two modes, and a network is in the wrong one after every ``train()``: dropout
draws, and batch normalisation makes a point's value depend on its neighbours and moves its own statistics. A claim
about log p(x) is therefore always computed in evaluation mode, whatever the mode it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, TypeVar, cast

from torch import nn

from density.log_density import Claim
from density.own_precision import lower_precision_of

BATCH_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm

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

    Raises:
        ValueError: a batch normalisation keeps no statistics, and would normalise points by each other.

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(network):
    ...     [part.training for part in network]
    [False, False]
    >>> [part.training for part in network]
    [True, False]
    """
    modes = {part: part.training for part in module.modules()}
    found = [part for part, training in modes.items() if training]
    # A train() of its own may do more than set an attribute.
    own = [part for part in found if type(part).train is not nn.Module.train]
    for part in modes:
        if isinstance(part, BATCH_NORMS) and part.running_mean is None:
            raise ValueError(
                f"{type(module).__name__} holds a {type(part).__name__} with track_running_stats=False, by which what "
                "it says of a point depends on the points beside it. Let it track its statistics, or use LayerNorm"
            )
    for part in found:
        _put(part, False)
    try:
        for part in own:
            part.train(False)
        yield
    finally:
        for part in own:
            part.train(True)
        for part in modes if own else found:
            _put(part, modes[part])


def _saying(found: object, words: str) -> object:
    """A claim, or a record of several, whose methods say these words too."""
    if isinstance(found, Claim):
        return found if found.method.endswith(words) else replace(found, method=f"{found.method}, {words}")
    if is_dataclass(found) and not isinstance(found, type):
        return replace(found, **{
            field.name: _saying(getattr(found, field.name), words)
            for field in fields(found) if isinstance(getattr(found, field.name), Claim)
        })  # fmt: skip
    return found


def _put(part: nn.Module, training: bool) -> None:
    held = vars(part)
    if "training" in held:
        held["training"] = training  # what setting the attribute does, at a tenth of the time
    else:  # a scripted module holds it elsewhere
        part.training = training


def evaluated(claim: Claiming) -> Claiming:
    """Make a function of a model, its first argument, run with that model in evaluation mode: every claim is one.

    Where the model computes in a lower precision than its own, because that was asked for, what is claimed says so.

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
            found = claim(model, *arguments, **settings)
        words = lower_precision_of(model)
        return _saying(found, words) if words else found

    return cast(Claiming, evaluate)
