"""Affine functions of one number, with shift and scale from a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.monotone.monotone import Derivatives, Monotone

LOG_SCALE_BOUND = 5.0


@dataclass(frozen=True)
class ConditionalAffine(Monotone):
    r"""An increasing affine function z = (x − μ)/σ with parameters μ, raw and log σ = bound · tanh(raw/bound).

    That is the identity near 0, and no data and no step of an optimiser takes σ out of [exp(−bound), exp(bound)],
    where exp would overflow. O(1) per number.

    Args:
        bound: bound on |log σ|; None for none, log σ = raw.

    >>> z, log_derivative = ConditionalAffine().forward(torch.tensor(3.0), torch.tensor([1.0, 0.0]))
    >>> z.item(), log_derivative.abs().item()
    (2.0, 0.0)
    """

    bound: float | None = LOG_SCALE_BOUND
    parameters = 2
    names = "μ and then raw log σ"

    def forward(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = theta.unbind(0)
        log_derivative = -raw if self.bound is None else torch.tanh(raw * (1 / self.bound)) * -self.bound
        return (x - mean) * torch.exp(log_derivative), log_derivative

    def inverse(self, z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = theta.unbind(0)
        log_scale = raw if self.bound is None else torch.tanh(raw * (1 / self.bound)) * self.bound
        return torch.addcmul(mean, z, torch.exp(log_scale)), log_scale

    def inverse_derivatives(self, z: Tensor, theta: Tensor) -> Derivatives:
        raw, one, zero = theta[1], torch.ones_like(z), torch.zeros_like(z)
        if self.bound is None:
            scale, slope = torch.exp(raw), one
        else:
            bent = torch.tanh(raw * (1 / self.bound))
            scale, slope = torch.exp(bent * self.bound), torch.addcmul(one, bent, bent, value=-1)
        return scale, torch.stack([one, z * scale * slope]), zero, torch.stack([zero, slope])
