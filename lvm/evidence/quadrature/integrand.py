"""log p(x, z) of a few points at many places, in blocks of bounded memory, with its values checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from density.contract import Density

ROWS_AT_ONCE = 2**13  # that pass through the networks together; more would leave the cache
SCALARS_AT_ONCE = 2**21  # of x paired with z


class Integrand:
    """The log-joint of points x ``[n, D]`` as a function of z.

    Args:
        log_joint: log p(x, z), whose batch shapes broadcast.
        x: the points, of a conditional model with their contexts behind them.
        numbers: the number of each point in the user's data, or of the first; errors name them.
        apart: whether the decoder sees every place anew for every point, since their contexts differ.
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

    @classmethod
    def of_prior(cls, prior: Density) -> Self:
        """The prior itself, as the log-joint of one point of one feature that tells nothing: its integral is 1."""
        x = prior.reference.new_zeros(1, 1)
        return cls(lambda x, z: prior.log_prob(z).expand(torch.broadcast_shapes(x.shape[:-1], z.shape[:-1])), x, 0)

    def shared(self, z: Tensor) -> Tensor:
        """At the same places z ``[N, d]`` for all points, each of which the decoder sees once if it may: ``[n, N]``."""
        n = self.x.shape[0]
        block = max(1, min(ROWS_AT_ONCE // n if self.apart else ROWS_AT_ONCE, SCALARS_AT_ONCE // (n * self.x.shape[1])))
        parts = []
        for places in z.split(block):
            values = self.log_joint(self.x.unsqueeze(1), places)
            if values.shape != (n, places.shape[0]):
                raise ValueError(
                    f"log_joint(x, z) must broadcast the batch shapes of x and z: expected {[n, places.shape[0]]} "
                    f"for x {[n, 1, self.x.shape[1]]} and z {list(places.shape)}; got {list(values.shape)}. "
                    "Check the decoder"
                )
            bad = _bad(values)
            if bool(bad.any()):
                point, place = bad.nonzero()[0].tolist()
                self._fail(point, places[place], values[point, place])
            parts.append(values)
        return torch.cat(parts, 1)

    def at(self, point: Tensor, z: Tensor) -> Tensor:
        """At z ``[N, d]`` for the points ``[N]``: ``[N]``."""
        block = max(1, min(ROWS_AT_ONCE, SCALARS_AT_ONCE // self.x.shape[1]))
        parts = []
        for which, places in zip(point.split(block), z.split(block), strict=True):
            values = self.log_joint(self.x[which], places)
            bad = _bad(values)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                self._fail(int(which[row]), places[row], values[row])
            parts.append(values)
        return torch.cat(parts) if parts else self.x.new_empty(0)

    def _fail(self, point: int, place: Tensor, value: Tensor) -> None:
        where = ", ".join(f"{coordinate:.6g}" for coordinate in place.tolist())
        raise ValueError(
            f"log p(x, z) of point {int(self.numbers[point])} at z = ({where}) is {value.item()}; the model's "
            "densities overflow there, within the reach of its prior. Check that it was fitted to data on this scale"
        )


def _bad(values: Tensor) -> Tensor:
    return values.isnan() | values.isposinf()
