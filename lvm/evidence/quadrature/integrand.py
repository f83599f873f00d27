"""log p(x, z) of a few points at many places, in blocks of bounded memory, with its values checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from density.checks import free_to_look
from density.contract import Density
from density.data.blocks import rows_at_once

ROWS_AT_ONCE = 2**13  # that pass through the networks together on a CPU; more would leave the cache
SCALARS_AT_ONCE = 2**21  # of x paired with z there
UNSEEN = 2**22  # values that are not looked at yet


class Integrand:
    """The log-joint of points x ``[n, D]`` as a function of z.

    Args:
        log_joint: log p(x, z), whose batch shapes broadcast.
        x: the points, of a conditional model with their contexts behind them.
        numbers: the number of each point in the user's data, or of the first; errors name them.
        apart: whether the decoder sees every place anew for every point, since their contexts differ.

    Attributes:
        decoded, pairs: how many places pass through the networks together, and how many are paired with an x.
    """

    def __init__(
        self,
        log_joint: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        numbers: Tensor | int,
        *,
        apart: bool = False,
    ) -> None:
        self.log_joint = log_joint
        self.apart = apart
        self.x = x
        self.numbers = torch.arange(x.shape[0]) + numbers if isinstance(numbers, int) else numbers
        if x.device.type == "cpu":
            self.decoded, self.pairs = ROWS_AT_ONCE, SCALARS_AT_ONCE // x.shape[1]
        else:
            self.decoded = self.pairs = rows_at_once(x)
        self._unseen: list[_Values] = []

    @classmethod
    def of_prior(cls, prior: Density) -> Self:
        """The prior itself, as the log-joint of one point of one feature that tells nothing: its integral is 1."""
        x = prior.reference.new_zeros(1, 1)
        return cls(lambda x, z: prior.log_prob(z).expand(torch.broadcast_shapes(x.shape[:-1], z.shape[:-1])), x, 0)

    def shared(self, z: Tensor) -> Tensor:
        """At the same places z ``[N, d]`` for all points, each of which the decoder sees once if it may: ``[n, N]``."""
        n = self.x.shape[0]
        block = max(1, min(self.decoded // n if self.apart else self.decoded, self.pairs // n))
        parts = []
        for places in z.split(block):
            values = self.log_joint(self.x.unsqueeze(1), places)
            if values.shape != (n, places.shape[0]):
                raise ValueError(
                    f"log_joint(x, z) must broadcast the batch shapes of x and z: expected {[n, places.shape[0]]} "
                    f"for x {[n, 1, self.x.shape[1]]} and z {list(places.shape)}; got {list(values.shape)}. "
                    "Check the decoder"
                )
            self._watch(_Values(None, places, values))
            parts.append(values)
        return torch.cat(parts, 1)

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """At z ``[N, d]`` for the points ``[N]``: ``[N]``."""
        block = max(1, min(self.decoded, self.pairs))
        parts = []
        for which, places in zip(point.split(block), z.split(block), strict=True):
            values = self.log_joint(self.x.index_select(0, which), places)
            self._watch(_Values(which, places, values))
            parts.append(values)
        return torch.cat(parts) if parts else self.x.new_empty(0)

    def look(self, *numbers: Tensor) -> list[int]:
        """The values of some integers, all looked at together with what was evaluated since the last look.

        Raises:
            ValueError: a log-joint was nan or +inf.
        """
        unseen, self._unseen = self._unseen, []
        bad = [values.bad() for values in unseen]
        if not bad and not numbers:
            return []
        found: list[int] = torch.stack([number.long() for number in (*bad, *numbers)]).tolist()
        for values, is_bad in zip(unseen, found, strict=False):
            if is_bad:
                self._refuse(values)
        return found[len(bad) :]

    def _watch(self, values: _Values) -> None:
        """Look at once where that waits for nothing, and else before much memory is held by what was not looked at."""
        self._unseen.append(values)
        held = sum(block.log_joint.numel() for block in self._unseen)
        if free_to_look(values.log_joint) or held > UNSEEN:
            self.look()

    def _refuse(self, values: _Values) -> None:
        number, place, value = values.first_bad()
        where = ", ".join(f"{coordinate:.6g}" for coordinate in place.tolist())
        raise ValueError(
            f"log p(x, z) of point {int(self.numbers[number])} at z = ({where}) is {value}; the model's "
            "densities overflow there, within the reach of its prior. Check that it was fitted to data on this scale"
        )


@dataclass(frozen=True, eq=False)
class _Values:
    """Log-joints at places ``[N, d]``: of points ``[N]``, or, where that is None, of all of them, ``[n, N]``."""

    point: Tensor | None
    z: Tensor
    log_joint: Tensor

    def bad(self) -> Tensor:
        """Whether one is nan or +inf."""
        return ~(self.log_joint.amax() < math.inf)

    def first_bad(self) -> tuple[int, Tensor, float]:
        """Point, place and value of the first."""
        *row, column = (~(self.log_joint < math.inf)).nonzero()[0].tolist()
        point = row[0] if self.point is None else int(self.point[column])
        return point, self.z[column], self.log_joint[*row, column].item()
