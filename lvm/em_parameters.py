"""Parameters that EM climbs in, as records of tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from torch import Tensor

from density.data.digest import data_in_words


class Parameters(ABC):
    """Parameters that EM climbs in: a record of tensors, in float64, that checkpoints hold and processes share."""

    def require_regular(self) -> None:  # noqa: B027 - most M-steps mark nothing
        """Raise Degenerate if an M-step, which need not look, marked these parameters as no maximum."""

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in an order that :meth:`having` takes."""

    @abstractmethod
    def having(self, *tensors: Tensor) -> Self:
        """The same record of other tensors."""


class ModelParameters(Parameters):
    """Parameters of a model, of which some may stay what they are while EM maximises over the others.

    Attributes:
        names: of the tensors, in their order.
        fixed: the names of those that stay.
    """

    names: ClassVar[tuple[str, ...]]
    fixed: frozenset[str]

    def keeping(self, found: Self) -> Self:
        """Those found, but what is fixed stays."""
        if not self.fixed:
            return found
        pairs = zip(self.names, self.tensors(), found.tensors(), strict=True)
        return self.having(*(own if name in self.fixed else new for name, own, new in pairs))

    def fixed_in_words(self) -> dict[str, str]:
        """What is fixed, and where, by which a checkpoint knows it; nothing if nothing is."""
        if not self.fixed:
            return {}
        own = [tensor.flatten() for name, tensor in zip(self.names, self.tensors(), strict=True) if name in self.fixed]
        return {"fixed": f"{', '.join(sorted(self.fixed))} {data_in_words(own)}"}

    def require_free(self, owner: str) -> None:
        """Raise ValueError where nothing is left to fit."""
        if len(self.fixed) == len(self.names):
            raise ValueError(f"{owner} has no parameters to fit: none of them has requires_grad")


def frozen(**parameters: Tensor) -> frozenset[str]:
    """The names of parameters without ``requires_grad``."""
    return frozenset(name for name, parameter in parameters.items() if not parameter.requires_grad)
