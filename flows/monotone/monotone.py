"""Increasing functions of one number, with parameters of its own for each: what couplings and autoregressions apply."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

Derivatives = tuple[Tensor, Tensor, Tensor, Tensor]


class Monotone(ABC):
    """An increasing bijection of the reals, elementwise.

    Attributes:
        parameters: how many parameters P a number has.
        names: what they are called, for errors.

    >>> import torch
    >>> class Shift(Monotone):
    ...     parameters, names = 1, "shifts"
    ...
    ...     def forward(self, x, theta):
    ...         return x + theta[0], torch.zeros_like(x)
    ...
    ...     def inverse(self, z, theta):
    ...         return z - theta[0], torch.zeros_like(z)
    >>> Shift().forward(torch.ones(2), torch.full((1, 2), 3.0))[0].tolist()
    [4.0, 4.0]
    """

    parameters: int
    names: str

    @abstractmethod
    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dx, both shaped like x, for parameters ``[P, *x.shape]``."""

    @abstractmethod
    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dz, both shaped like z, for parameters ``[P, *z.shape]``."""

    def inverse_derivatives(self, z: Tensor, theta: Tensor) -> Derivatives:
        """Of x by z and by θ, then of log dx/dz by z and by θ; shaped like z and θ, and not recorded.

        By automatic differentiation; a subclass that knows them spares that.
        """
        z, theta = z.detach().requires_grad_(), theta.detach().requires_grad_()
        with torch.enable_grad():
            x, log_derivative = self.inverse(z, theta)

        def by_both(number: Tensor) -> tuple[Tensor, Tensor]:
            if not number.requires_grad:
                return torch.zeros_like(z), torch.zeros_like(theta)
            one = torch.ones_like(number)
            by_z, by_theta = torch.autograd.grad(number, (z, theta), one, retain_graph=True, materialize_grads=True)
            return by_z, by_theta

        return *by_both(x), *by_both(log_derivative)
