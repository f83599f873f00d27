"""log p(x, z) of a few points at many places, in blocks of bounded memory, with its values checked."""

from __future__ import annotations

import torch
from torch import Tensor

from lvm.latent import LatentVariableModel

ROWS_AT_ONCE = 2**13  # that pass through the networks together; more would leave the cache
SCALARS_AT_ONCE = 2**21  # of x paired with z


class Integrand:
    """The log-joint of points x ``[n, D]`` as a function of z.

    Args:
        numbers: the number of each point in the user's data, or of the first; errors name them.
    """

    def __init__(self, model: LatentVariableModel, x: Tensor, numbers: Tensor | int) -> None:
        self.model = model
        self.x = x
        self.numbers = torch.arange(x.shape[0]) + numbers if isinstance(numbers, int) else numbers

    def shared(self, z: Tensor) -> Tensor:
        """At the same places z ``[N, d]`` for all points, so that the decoder sees each once: ``[n, N]``."""
        n = self.x.shape[0]
        block = max(1, min(ROWS_AT_ONCE, SCALARS_AT_ONCE // (n * self.model.features)))
        parts = []
        for places in z.split(block):
            values = self.model.log_joint(self.x.unsqueeze(1), places)
            if values.shape != (n, places.shape[0]):
                raise ValueError(
                    f"log_joint(x, z) must broadcast the batch shapes of x and z: expected {[n, places.shape[0]]} "
                    f"for x {[n, 1, self.model.features]} and z {list(places.shape)}; got {list(values.shape)}. "
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
        block = max(1, min(ROWS_AT_ONCE, SCALARS_AT_ONCE // self.model.features))
        parts = []
        for which, places in zip(point.split(block), z.split(block), strict=True):
            values = self.model.log_joint(self.x[which], places)
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
