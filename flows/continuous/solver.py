"""The solver of ordinary differential equations, torchdiffeq's, as continuous flows call it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ORDER_8 = "dopri8"
FIRST_STEP = 0.5  # times the eighth root of the tolerance: so every tolerance has steps of its own
MOST_STEPS = 500
ROUNDING = 8.0  # units in the last place, below which a local error cannot be told from rounding


class UnsolvedODE(ArithmeticError):
    """A differential equation that the solver gave up.

    >>> issubclass(UnsolvedODE, ArithmeticError)
    True
    """


def integrate(
    field: Callable[[Tensor, Tensor], Tensor], y: Tensor, start: float, end: float, tolerance: float
) -> Tensor:
    """Follow dy/dt = field(t, y) from start to end: Dormand and Prince's method of order 8, in adaptive steps.

    Steps are the same for all rows, and so small that in no number of any row the local error exceeds
    tolerance · (1 + |y|): a mean over rows would let one row be wrong among many that are not. The field is asked
    about times from start to end alone.

    Args:
        field: maps t, a scalar tensor, and y ``[n, k]`` to ``[n, k]``.
        y: at the start, ``[n, k]``, finite.
        tolerance: of a step; at least eight units in the last place are allowed.

    Returns:
        y at the end. It can be differentiated through the steps, whose sizes count as constants: that is the
        gradient of the number that was computed, in memory O(steps).

    Raises:
        UnsolvedODE: y grows without bound, or would take more than 500 steps.
        ModuleNotFoundError: torchdiffeq is not installed.

    Cost: 13 evaluations of the field a step.
    """
    odeint = _solver()
    if y.numel() == 0:
        return y
    tolerance = max(tolerance, ROUNDING * torch.finfo(y.dtype).eps)
    times = torch.tensor([start, end], dtype=torch.float64, device=y.device)
    options = {
        "norm": lambda error: error.detach().abs().amax(),
        "first_step": FIRST_STEP * tolerance ** (1 / 8),
        "max_num_steps": MOST_STEPS,
        "max_step": 2 * FIRST_STEP * tolerance ** (1 / 8),
        "step_t": times[1:],  # the last step ends there: beyond it there is no field, and interpolation is of order 4
    }
    try:
        path = odeint(field, y, times, rtol=tolerance, atol=tolerance, method=ORDER_8, options=options)
    except AssertionError as error:  # so it reports what it meets on the way
        raise UnsolvedODE(
            f"the ODE could not be solved from t = {start:g} to {end:g} at a tolerance of {tolerance:.1g} a step: "
            f"{str(error)[:80]}. Is its velocity smooth, without draws such as dropout's, and bounded along the path? "
            "A larger tolerance helps where it is merely stiff"
        ) from error
    final: Tensor = path[-1]
    return final


def _solver() -> Callable[..., Tensor]:
    try:
        from torchdiffeq import odeint
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "continuous flows are integrated by torchdiffeq, which is not installed: pip install torchdiffeq"
        ) from error
    found: Callable[..., Tensor] = odeint
    return found
