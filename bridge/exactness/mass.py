"""The total mass of a density over one or two features, by the trapezoidal rule on all of ℝᴰ."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FARTHEST = 1e4  # scales from the centre
INTERVALS = {1: 4000, 2: 600}


def mass_by_quadrature(log_prob: Callable[[Tensor], Tensor], centre: Tensor, scale: Tensor) -> tuple[float, float]:
    r"""∫ p(x) dx and its error, with x = m + s sinh u in every feature, u on a grid.

    The trapezoidal rule converges faster than any power of its step where the integrand is smooth and has died away
    (Trefethen & Weideman 2014); at jumps, with the step. The error is the difference to the rule of twice the step.
    Mass beyond 10⁴ scales is not seen, nor a peak much narrower than a hundredth of the scale.

    Args:
        log_prob: maps points ``[n, D]``, D at most 2, to ``[n]``.
        centre, scale: ``[D]``.
    """
    d = len(centre)
    end, n = math.asinh(FARTHEST), INTERVALS[d]
    u = torch.linspace(-end, end, n + 1, dtype=torch.float64, device=centre.device)
    step = 2 * end / n
    axes = [centre[j] + scale[j] * u.sinh() for j in range(d)]
    x = torch.cartesian_prod(*axes).reshape(-1, d)
    log_cell = (scale.log() + math.log(step)).sum() + sum(torch.meshgrid(*[u.cosh().log()] * d, indexing="ij"))
    values = (log_prob(x).double().nan_to_num(nan=-math.inf, neginf=-math.inf).reshape([n + 1] * d) + log_cell).exp()
    coarse = values[::2] if d == 1 else values[::2, ::2]
    mass = values.sum().item()
    return mass, abs(mass - 2**d * coarse.sum().item())
