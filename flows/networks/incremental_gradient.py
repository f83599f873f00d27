"""The gradient of an inverse by degree: the transposed system, solved from the last degree to the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp

from flows.monotone.monotone import Monotone
from flows.networks.masked import Stage

BLOCK = 8  # degrees that are taken one by one; more are halved first


class System(NamedTuple):
    """What of a triangular system is no tensor: z_j = f(x_j; θ_j) for every place j, θ by a network of x_{<j}.

    Its tensors are z ``[D, n]`` by place, context ``[C, n]``, and the weights and then the biases of all stages, units
    by degree.
    """

    stages: list[Stage]
    sizes: list[list[int]]
    monotone: Monotone

    def parted(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Weights, and biases as columns."""
        weights, biases = tensors[: len(self.stages)], tensors[len(self.stages) :]
        return weights, [bias.unsqueeze(1) for bias in biases]


Solve = Callable[..., tuple[Tensor, Tensor]]  # of a System and its tensors: x, [D, n] by place, and log|det ∂x/∂z|


def solved_with_gradient(solve: Solve, system: System, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What ``solve`` finds, as one node of the graph.

    Its gradient is :func:`pull_back`; where a gradient is itself to be differentiated, and in forward mode, that of the
    operations of ``solve``. Transforms of ``torch.func`` are not to see it.

    Cost: that of ``solve`` and of a pass of the network.
    """
    outputs: tuple[Tensor, Tensor] = _Solved.apply(solve, system, *tensors)
    return outputs


def quarters(
    system: System, weights: Sequence[Tensor], low: int, middle: int, high: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Of weights among units of degrees low … high − 1: within the first half, from it to the second, within that."""
    cuts = [[sum(size[low:middle]), sum(size[middle:high])] for size in system.sizes]
    first, across, second = [], [], []
    for weight, above, below in zip(weights, cuts[1:], cuts, strict=False):
        upper, lower = weight.split(above)
        left, right = lower.split(below, 1)
        first.append(upper.split(below, 1)[0])
        across.append(left)
        second.append(right)
    return first, across, second


class Linearised(NamedTuple):
    """A system at its solution: the values of its network, and what each place and unit is known to change by alone."""

    taken: Sequence[Tensor]  # of each stage, what its weights multiply
    slopes: Sequence[Tensor | None]  # of its activations, None where there are none
    by_z: Tensor  # ∂x_j/∂z_j, [D, n]
    by_theta: Tensor  # ∂x_j/∂θ_j, [P, D, n]
    log_by_z: Tensor  # ∂ log(dx_j/dz_j)/∂z_j
    log_by_theta: Tensor


def linearised(system: System, tensors: Sequence[Tensor], x: Tensor) -> Linearised:
    """One pass of the network at the solution x, ``[D, n]`` by place. Nothing is recorded."""
    z, context, *parameters = tensors
    value = torch.cat([context, x[:-1]])
    values, taken, ends, starts = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    for stage, weight, bias in zip(system.stages, *system.parted(parameters), strict=True):
        if stage.activations:
            starts.append(value.requires_grad_())
            with torch.enable_grad():
                if any(getattr(activation, "inplace", False) for activation in stage.activations):
                    value = value.clone()
                for activation in stage.activations:
                    value = activation(value)
            ends.append(value)
            value = value.detach()
        taken.append(value)
        value = torch.addmm(bias, weight, value)
        if stage.skip is not None:
            value = value + values[stage.skip].detach()
        values.append(value)
    found = list(torch.autograd.grad(ends, starts, [*map(torch.ones_like, ends)])) if ends else []
    slopes = [found.pop(0) if stage.activations else None for stage in system.stages]
    theta = value.view(len(z), system.monotone.parameters, z.shape[1]).transpose(0, 1)
    return Linearised(taken, slopes, *system.monotone.inverse_derivatives(z, theta))


def pull_back(
    system: System,
    tensors: Sequence[Tensor],
    known: Linearised,
    grad_x: Tensor,
    grad_log: Tensor,
    asked: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    r"""The gradients of z, context, weights and biases, from those of the solution and of its log-determinant.

    The parameters of place j move x_j = f⁻¹(z_j; θ_j) and log dx_j/dz_j. With g_j for the whole gradient of x_j and λ
    for that of the log-determinant,

    .. math::
        g_{θ_j} = g_j \frac{\partial x_j}{\partial θ_j} + λ \frac{\partial}{\partial θ_j} \log\frac{dx_j}{dz_j},

    and likewise for z_j. What stands beside g_j and λ is known for all places at once, as the slopes of activations
    are. From g_D on, each degree gives the next lower one: θ's gradient, layer by layer that of the units of this
    degree, whose sum is then complete, and so that of the feature that they saw last.

    Args:
        system, tensors: as in :class:`System`.
        known: the system at its solution.
        grad_x, grad_log: ``[D, n]`` and ``[n]``.
        asked: for which of the tensors.

    Returns:
        Shaped like the tensors; None for a weight or bias that is not asked for.

    Cost: O(number of weights) per point, in O(D) operations one after the other.
    """
    stages = len(system.stages)
    weights, contexts = tensors[2 : 2 + stages], len(tensors[1])
    transposed = _Transposed(system, known, grad_x[-1:], grad_log)
    zero = grad_x.new_zeros(1, 1)
    totals = [zero.expand(weight.shape[1], grad_x.shape[1]) for weight in weights]
    totals[0] = torch.cat([totals[0][:contexts], grad_x[:-1]])
    pieces = [torch.cat(piece[::-1]) for piece in transposed.solve(0, len(grad_x), weights, totals)]
    of_z = torch.addcmul(known.log_by_z * grad_log, known.by_z, torch.cat(transposed.features[::-1]))
    asked_weights, asked_biases = asked[2 : 2 + stages], asked[2 + stages :]
    of_weights = [
        piece @ value.T if needed else None
        for piece, value, needed in zip(pieces, known.taken, asked_weights, strict=True)
    ]
    of_biases = [piece.sum(1) if needed else None for piece, needed in zip(pieces, asked_biases, strict=True)]
    return of_z, transposed.newest, *of_weights, *of_biases


class _Transposed:
    """Gradients of features and units as far as they are known, last first. Lists run over stages."""

    def __init__(self, system: System, known: Linearised, last: Tensor, grad_log: Tensor) -> None:
        self.system = system
        self.by_theta = known.by_theta.unbind(1)
        self.added = (known.log_by_theta * grad_log).unbind(1)
        self.slopes = [
            None if slope is None else torch.split_with_sizes(slope, size)
            for slope, size in zip(known.slopes, system.sizes, strict=False)
        ]
        self.newest = last  # the gradient of the feature in the place the sweep has come to; of the context at last
        self.features: list[Tensor] = []

    def solve(self, low: int, high: int, weights: Sequence[Tensor], totals: Sequence[Tensor]) -> list[list[Tensor]]:
        """Find the gradients of units of degrees low … high − 1; returns those of what each stage adds up.

        ``totals`` are the gradients, from degrees high … D − 1, of what each stage takes from these units.
        """
        if high - low <= BLOCK:
            return self._block(low, high, weights, totals)
        middle = (low + high) // 2
        first, across, second = quarters(self.system, weights, low, middle, high)
        halves = [
            total.split([sum(size[low:middle]), sum(size[middle:high])])
            for total, size in zip(totals, self.system.sizes, strict=False)
        ]
        done = self.solve(middle, high, second, [half[1] for half in halves])
        totals = [
            torch.addmm(half[0], weight.T, torch.cat(pieces[::-1]))
            for half, weight, pieces in zip(halves, across, done, strict=True)
        ]
        rest = self.solve(low, middle, first, totals)
        return [a + b for a, b in zip(done, rest, strict=True)]

    def _block(self, low: int, high: int, weights: Sequence[Tensor], totals: Sequence[Tensor]) -> list[list[Tensor]]:
        """The same, degree by degree: a unit's gradient goes at once to all units of the block that it sees."""
        stages = self.system.stages
        cuts = [size[low:high] for size in self.system.sizes]
        rows = [torch.split_with_sizes(weight, cut) for weight, cut in zip(weights, cuts[1:], strict=True)]
        totals, left = list(totals), [sum(cut) for cut in cuts]  # how many units are left of each
        found: list[list[Tensor]] = [[] for _ in stages]
        for position in reversed(range(high - low)):
            place = low + position
            self.features.append(self.newest)
            grad = torch.addcmul(self.added[place], self.by_theta[place], self.newest)
            for number in reversed(range(len(stages))):
                found[number].append(grad)
                total = totals[number]
                if grad.shape[0] and left[number]:
                    total = torch.addmm(total, rows[number][position][:, : left[number]].T, grad)
                slope, own = self.slopes[number], cuts[number][position]
                left[number] -= own
                totals[number], grad = torch.split_with_sizes(total, [left[number], own])
                grad = grad * slope[place] if own and slope is not None else grad
                for later in range(number, len(stages)):
                    if number and stages[later].skip == number - 1:
                        grad = grad + found[later][-1]
            self.newest = grad
        return found


class _Solved(torch.autograd.Function):
    """The solution of a triangular system, with rules for gradients and directions."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        solve: Solve,
        system: System,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x, log_det = solve(system, *tensors)
        taken, slopes, *derivatives = linearised(system, tensors, x)
        ctx.solve, ctx.system, ctx.count = solve, system, len(tensors)
        ctx.save_for_backward(*tensors, *taken, *slopes, *derivatives)
        ctx.save_for_forward(*tensors)
        return x, log_det

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        grad_x: Tensor,
        grad_log: Tensor,
    ) -> tuple[Tensor | None, ...]:
        tensors, kept = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        # What was kept has no graph, which a gradient that is itself to be differentiated needs.
        if torch.is_grad_enabled():
            return None, None, *vjp(partial(ctx.solve, ctx.system), *tensors)[1]((grad_x, grad_log))
        stages = len(ctx.system.stages)
        known = Linearised(kept[:stages], kept[stages : 2 * stages], *kept[2 * stages :])
        return None, None, *pull_back(ctx.system, tensors, known, grad_x, grad_log, ctx.needs_input_grad[2:])

    @staticmethod
    def jvp(
        ctx: Any,  # noqa: ANN401
        *along: Tensor,
    ) -> tuple[Tensor, Tensor]:
        tensors = ctx.saved_tensors[: ctx.count]
        transpose = vjp(partial(ctx.solve, ctx.system), *tensors)[1]
        # A gradient is linear in those that it comes from: its transpose is the derivative along a direction.
        zero = torch.zeros_like(tensors[0])
        found: tuple[Tensor, Tensor] = vjp(lambda *given: transpose(given), zero, zero[0])[1](along[2:])
        return found
