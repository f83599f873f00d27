"""Chains of transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from density.initialisation import StartingPoints
from density.numerical import numerical_parts
from density.support import Step, Support, preimage
from flows.folding import Fold, folded
from flows.networks.columns import by_columns
from flows.transform import Transform


class Chain(Transform):
    r"""A chain of transforms, the first nearest to the data: z = f_K(… f_1(x)), log-determinants add.

    Args:
        transforms: the parts. Those that fix a width must fix the same one, and likewise for contexts, which go to
            every part that takes one. No parts make the identity.

    Raises:
        ValueError: two parts do not fit; the message names them.

    Affine parts in a row that hold a matrix are applied as one (:func:`~flows.folding.folded`).

    Cost: at most the sum over the parts.

    >>> import torch
    >>> from flows import LULinear, Permutation
    >>> chain = Chain(LULinear.from_matrix(2.0 * torch.eye(3)), Permutation([2, 0, 1]))
    >>> z, log_det = chain(torch.tensor([1.0, 2.0, 3.0]))
    >>> z.tolist(), round(log_det.item(), 4)
    ([6.0, 2.0, 4.0], 2.0794)
    """

    def __init__(self, *transforms: Transform) -> None:
        super().__init__()
        owner = type(self).__name__
        for position, part in enumerate(transforms):
            if not isinstance(part, Transform):
                raise TypeError(f"{owner} is made of Transforms; part {position} is a {type(part).__name__}")
        self.parts = nn.ModuleList(transforms)
        self.features = _agreed([part.features for part in transforms], transforms, "features", owner)
        contexts = [part.context_features or None for part in transforms]
        self.context_features = _agreed(contexts, transforms, "context features", owner) or 0

    @property
    def domain(self) -> Support | None:
        return _taken(self._sequence(), inverse=False)

    @property
    def image(self) -> Support | None:
        return _taken(self._sequence()[::-1], inverse=True)

    def _sequence(self) -> list[Transform]:
        return cast("list[Transform]", list(self.parts))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._forward_columns, x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._inverse_columns, z, context)

    def _forward_points(self, x: Tensor, context: Tensor | None) -> Tensor:
        if not numerical_parts(self):
            return self._forward(x, context)[0]
        for part in self._sequence():
            x = part._forward_points(x, context)
        return x

    def _inverse_points(self, z: Tensor, context: Tensor | None) -> Tensor:
        if not numerical_parts(self):
            return self._inverse(z, context)[0]
        for part in reversed(self._sequence()):
            z = part._inverse_points(z, context)
        return z

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_dets = []
        for part in folded(self._sequence(), x.shape[1], inverse=False):
            x, term = part.forward(x) if isinstance(part, Fold) else part._forward_columns(x, context)
            log_dets.append(term)
        return x, _total(log_dets, x)

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_dets = []
        for part in reversed(folded(self._sequence(), z.shape[1], inverse=True)):
            z, term = part.inverse(z) if isinstance(part, Fold) else part._inverse_columns(z, context)
            log_dets.append(term)
        return z, _total(log_dets, z)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        for part in self._sequence():
            x = part._initialise(x, context)
        return x


def _taken(parts: Sequence[Transform], *, inverse: bool) -> Support | None:
    """What transforms take, one after the other, up to the first that needs a context to go on from."""
    steps: list[Step] = []
    for part in parts:
        name = type(part).__name__
        if inverse:
            steps.append(Step(f"{name}.inverse", part.image, partial(_moved, part._inverse)))
        else:
            steps.append(Step(name, part.domain, partial(_moved, part._forward)))
        if part.context_features:
            break
    return preimage(steps)


def _moved(hook: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    return hook(x, None)[0]


def _total(log_dets: list[Tensor], x: Tensor) -> Tensor:
    """The sum, ``[n]``, of log-determinants that are one number, one for each point, or one for each feature of it."""
    rows = [term for term in log_dets if term.ndim == 2]
    vectors = [term for term in log_dets if term.ndim == 1]
    numbers = [term for term in log_dets if term.ndim == 0]
    totals = [torch.cat(rows).sum(0)] if rows else []
    totals += [torch.stack(alike).sum(0) for alike in (vectors, numbers) if alike]
    total = sum(totals[1:], totals[0]) if totals else x.new_zeros(())
    return total.expand(x.shape[1:])


def _agreed(sizes: Sequence[int | None], transforms: Sequence[Transform], what: str, owner: str) -> int | None:
    """The one size that all parts share which fix one, None if none does."""
    first: int | None = None
    for position, size in enumerate(sizes):
        if size is None:
            continue
        if first is None:
            first = position
        elif size != sizes[first]:
            raise ValueError(
                f"{owner}: part {first} ({type(transforms[first]).__name__}) has {sizes[first]} {what}, "
                f"part {position} ({type(transforms[position]).__name__}) has {size}; they must agree"
            )
    return None if first is None else sizes[first]
