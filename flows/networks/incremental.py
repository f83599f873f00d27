"""The inverse of an autoregressive layer in about one pass of its masked network instead of D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flows.monotone.monotone import Monotone
from flows.networks.incremental_gradient import BLOCK, System, quarters, solved_with_gradient
from flows.networks.masked import MaskedNetwork, Stage


def inverse_by_degree(
    network: MaskedNetwork,
    z: Tensor,
    context: Tensor | None,
    monotone: Monotone,
) -> tuple[Tensor, Tensor]:
    r"""The x with z_j = f(x_j; network(x_{<j}, c)_j) for every feature j, found place by place.

    When x_j is found, only the hidden units of its degree have become computable. With units sorted by degree the
    weights are block triangular, and the features are found as a triangular system is solved by halves: the first half,
    then what it adds to the units of the second half in one matrix product a layer, then the second half. No unit is
    computed twice and no masked block is multiplied. Every operation is out of place, so that ``torch.func`` and
    compilers pass through; where autograd records, it is one node, whose gradient solves the transposed system
    (:func:`~flows.networks.incremental_gradient.pull_back`).

    Args:
        network: one whose ``sizes`` is not None.
        z: shape ``[*batch, D]``.
        context: shape ``[*batch, C]``, or None.
        monotone: f.

    Returns:
        x of shape ``[*batch, D]`` and log|det ∂x/∂z| of shape ``[*batch]``.

    Cost: O(number of weights) per point, in O(D) operations one after the other; memory O(log D) activations.
    """
    assert network.sizes is not None
    features, stages, units = z.shape[-1], network.stages(), network.sorted_units()
    rows = _picked(z.reshape(-1, features).T, units[-2]).contiguous()
    given = rows.new_empty(0, rows.shape[1]) if context is None else context.reshape(-1, context.shape[-1]).T
    linears = [stage.linear for stage in stages]
    held = [tensor for linear in linears for tensor in (linear.weight, linear.bias)]
    recorded = _is_one_node([rows, given, *held], stages)
    weights = [
        linear.weight if dense and not recorded else linear.weight * linear.mask
        for linear, dense in zip(linears, network.dense, strict=True)
    ]
    weights = [
        _picked(_picked(weight, above).T, below).T
        for weight, above, below in zip(weights, units[1:], units, strict=False)
    ]
    biases = [_picked(linear.bias, above) for linear, above in zip(linears, units[1:], strict=False)]
    system, tensors = System(stages, network.sizes, monotone), (rows, given, *weights, *biases)
    x, log_det = solved_with_gradient(_solved, system, tensors) if recorded else _solved(system, *tensors)
    return _picked(x, units[-1]).T.reshape(z.shape), log_det.reshape(z.shape[:-1])


def _is_one_node(tensors: Sequence[Tensor], stages: Sequence[Stage]) -> bool:
    """Whether a graph is built that may hold the inverse as one node: nothing looks into it, or changes its values."""
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    random = any(isinstance(one, nn.Dropout) and one.training for stage in stages for one in stage.activations)
    return not random and not torch.is_autocast_enabled(tensors[0].device.type) and not _is_transformed()


def _is_transformed() -> bool:
    """Whether a transform of ``torch.func`` is at work: none lets a graph begin within the function it transforms."""
    try:
        torch.empty(0, device="cpu").requires_grad_()
    except RuntimeError:
        return True
    return False


def _picked(rows: Tensor, index: Tensor | None) -> Tensor:
    return rows if index is None else rows.index_select(0, index)


def _solved(system: System, z: Tensor, context: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """x by place, ``[D, n]``, and log|det ∂x/∂z|, ``[n]``."""
    weights, biases = system.parted(parameters)
    solution = _Solution(system, z.unbind(0), context)
    solution.solve(0, len(z), weights, [bias.expand(-1, z.shape[1]) for bias in biases])
    return torch.stack(solution.x), torch.stack(solution.log_dets).sum(0)


class _Solution:
    """A solution as far as it is known. Columns are points; lists run over stages."""

    def __init__(self, system: System, z: tuple[Tensor, ...], context: Tensor) -> None:
        self.system, self.z = system, z
        self.newest = context  # what has degree d in the input when units of degree d are computed
        self.x: list[Tensor] = []
        self.log_dets: list[Tensor] = []

    def solve(self, low: int, high: int, weights: Sequence[Tensor], totals: Sequence[Tensor]) -> list[list[Tensor]]:
        """Find units of degrees low … high−1 and the features after them; returns what each stage takes from the units.

        ``weights`` are those among these units, ``totals`` their bias and what the units before them add.
        """
        if high - low <= BLOCK:
            return self._block(low, high, weights, totals)
        middle = (low + high) // 2
        first, across, second = quarters(self.system, weights, low, middle, high)
        halves = [
            total.split([sum(size[low:middle]), sum(size[middle:high])])
            for total, size in zip(totals, self.system.sizes[1:], strict=True)
        ]
        done = self.solve(low, middle, first, [half[0] for half in halves])
        totals = [
            torch.addmm(half[1], weight, pieces[0] if len(pieces) == 1 else torch.cat(pieces))
            for half, weight, pieces in zip(halves, across, done, strict=True)
        ]
        rest = self.solve(middle, high, second, totals)
        return [a + b for a, b in zip(done, rest, strict=True)]

    def _block(self, low: int, high: int, weights: Sequence[Tensor], totals: Sequence[Tensor]) -> list[list[Tensor]]:
        """The same, degree by degree: new units are added at once to the totals of all that see them in the block."""
        cuts = [size[low:high] for size in self.system.sizes]
        columns = [torch.split_with_sizes(weight, cut, 1) for weight, cut in zip(weights, cuts, strict=False)]
        totals, left = list(totals), [sum(cut) for cut in cuts[1:]]  # how many rows are left of each
        taken: list[list[Tensor]] = [[] for _ in self.system.stages]
        for position in range(high - low):
            values: list[Tensor] = []
            value = self.newest
            for number, stage in enumerate(self.system.stages):
                both, rows, own = totals[number], left[number], cuts[number + 1][position]
                if value.shape[0]:
                    for activation in stage.activations:
                        value = activation(value)
                    both = torch.addmm(both, columns[number][position][-rows:], value) if rows else both
                taken[number].append(value)
                left[number] = rows - own
                value, totals[number] = torch.split_with_sizes(both, [own, rows - own])
                if stage.skip is not None:
                    value = value + values[stage.skip]
                values.append(value)
            x, log_det = self.system.monotone.inverse(self.z[low + position], value)
            self.x.append(x)
            self.log_dets.append(log_det)
            self.newest = x[None]
        return taken
