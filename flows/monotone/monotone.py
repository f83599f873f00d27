"""Increasing functions of one number, with parameters of its own for each: what couplings and autoregressions apply."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Monotone(ABC):
    """An increasing bijection of the reals, elementwise.

    Attributes:
        parameters: how many parameters P a number has.
        names: what they are called, for errors.
    """

    parameters: int
    names: str

    @abstractmethod
    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dx, both shaped like x, for parameters ``[P, *x.shape]``."""

    @abstractmethod
    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dz, both shaped like z, for parameters ``[P, *z.shape]``."""
