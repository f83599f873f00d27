"""The transform of an ordinary differential equation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.network import refusal
from density.initialisation import StartingPoints, take_input
from density.numerical import Numerical
from flows.continuous.solver import integrate
from flows.continuous.trace import ExactTrace, Trace, with_divergence
from flows.transform import Transform

EXACT_TRACE = ExactTrace()
TIGHTER = 100.0  # the errors of some ten steps add up, and grow on their way


class ContinuousTransform(Numerical, Transform):
    r"""A continuous flow: points that move with a velocity from data at t = 0 to noise at t = 1.

    Chen et al. 2018, arXiv:1806.07366; Grathwohl et al. 2019, arXiv:1810.01367.

    .. math:: \frac{dx}{dt} = v(x, t; c), \qquad z = x(1), \qquad
              \log|\det \partial z/\partial x| = \int_0^1 \operatorname{div} v(x(t), t; c) \, dt

    Forward and inverse solve the same equation from either end, in adaptive steps that the worst row controls: what a
    row comes to depends on its neighbours within the error, and no more. Both can be differentiated, through the steps.

    The result has an error, and a claim about log p(x) says how large: ``Flow.log_density`` evaluates the model again,
    looser (:func:`~density.numerical.evaluated_numerically`). It is exact where the error is within the tolerance at
    every point and the trace is exact, and an estimate elsewhere. In float32 rounding is what limits both.

    Args:
        velocity: module called as ``velocity(x, t)``, or ``velocity(x, t, c)`` if conditional, with x ``[n, D]``,
            c ``[n, C]`` and t a scalar tensor; flow matching calls it with t ``[n, 1]``. It returns ``[n, D]``, draws
            nothing, and sees every row by itself. :class:`~density.families.timed.Timed` makes one of a network.
        features: D.
        context_features: C; 0 for an unconditional one.
        trace: of the Jacobian of v: :class:`~flows.continuous.trace.ExactTrace`, D products with it, or
            :class:`~flows.continuous.trace.Hutchinson`, one a probe. Another transform of the same velocity may have
            another trace: that of a fit, and that of the claims about it.
        tolerance: nats; steps are a hundred times more accurate.

    Raises:
        TypeError: not a module, or not a trace.
        ValueError: a size or the tolerance is out of range; in use, the velocity returns another shape.
        UnsolvedODE: in use, the solver gave up.
        ModuleNotFoundError: in use, torchdiffeq is not installed.

    Cost: about 150 to 300 evaluations of the velocity for smooth ones, each with D products with its Jacobian, or one a
    probe; memory O(n) without gradients, and O(n) an evaluation with them.

    >>> class Shrinking(nn.Module):
    ...     def forward(self, x, t):
    ...         return -x
    >>> z, log_det = ContinuousTransform(Shrinking(), features=2)(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    >>> z, log_det  # x e⁻¹, and −2
    (tensor([[0.3679, 0.7358]], dtype=torch.float64), tensor([-2.], dtype=torch.float64))
    """

    features: int

    def __init__(
        self,
        velocity: nn.Module,
        features: int,
        context_features: int = 0,
        *,
        trace: Trace = EXACT_TRACE,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        if not isinstance(velocity, nn.Module):
            raise TypeError(
                f"{owner} takes a velocity as an nn.Module, called as velocity(x, t); got a {type(velocity).__name__}"
            )
        if not isinstance(trace, Trace):
            raise TypeError(f"{owner} takes a trace, ExactTrace() or Hutchinson(); got a {type(trace).__name__}")
        if not (isinstance(tolerance, float) and 0 < tolerance < 1):
            raise ValueError(f"{owner}: tolerance must be a number of nats in (0, 1); got {tolerance!r}")
        self.features = check_count(features, f"{owner}: features")
        self.context_features = check_count(context_features, f"{owner}: context_features", least=0)
        self.velocity = velocity
        self.trace = trace
        self.tolerance = tolerance
        self.repeats = trace.repeats

    def velocities(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """v ``[n, D]`` at points ``[n, D]``, contexts ``[n, C]`` and times, a scalar or ``[n, 1]``; checked."""
        output: object = self.velocity(x, t) if context is None else self.velocity(x, t, context)
        if not isinstance(output, Tensor) or output.shape != x.shape:
            raise ValueError(refusal(output, len(x), self.features, type(self).__name__, "a velocity for each feature"))
        return output

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._moved(x, context, 0.0, 1.0)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._moved(z, context, 1.0, 0.0)

    def _forward_points(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._moved_points(x, context, 0.0, 1.0)

    def _inverse_points(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self._moved_points(z, context, 1.0, 0.0)

    def _moved(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        rows, given, known = self._rows(x, context)
        probes, weight = self.trace.probes(rows, self.generator)

        def field(t: Tensor, state: Tensor) -> Tensor:
            value, divergence = with_divergence(lambda x: self.velocities(x, t, given), state[:, :-1], probes, weight)
            return torch.cat([value, divergence[:, None]], 1)

        state = torch.cat([rows, rows.new_zeros(len(rows), 1)], 1)
        state = integrate(field, state, start, end, self._step_tolerance()).where(known, math.nan)
        return state[:, :-1].reshape(x.shape), state[:, -1].reshape(x.shape[:-1])

    def _moved_points(self, x: Tensor, context: Tensor | None, start: float, end: float) -> Tensor:
        """The points alone: a sample asks for no divergence."""
        rows, given, known = self._rows(x, context)
        rows = integrate(lambda t, x: self.velocities(x, t, given), rows, start, end, self._step_tolerance())
        return rows.where(known, math.nan).reshape(x.shape)

    def _rows(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Points and contexts as rows, and which of them are finite: one that is not is no trouble of the others'."""
        rows = x.reshape(-1, self.features)
        if context is None or not self.context_features:
            known = rows.isfinite().all(1, keepdim=True)
            return rows.where(known, 0.0), None, known
        given = context.reshape(-1, self.context_features)
        known = torch.cat([rows, given], 1).isfinite().all(1, keepdim=True)
        return rows.where(known, 0.0), given.where(known, 0.0), known

    def _step_tolerance(self) -> float:
        return self.looseness * self.tolerance / TIGHTER

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        if self.context_features:
            take_input(self.velocity, self.context_features, context)
        return self._onward(x, context)
