"""The inverse of an autoregressive layer in about one pass of its masked network instead of D."""

from __future__ import annotations

import torch
from torch import Tensor

from flows.monotone.monotone import Monotone
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
    computed twice and no masked block is multiplied. Every operation is out of place, so that autograd, its second
    derivatives and ``torch.func`` pass through.

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
    rows = _picked(z.reshape(-1, features).T, units[-2]).contiguous().unbind(0)
    given = z.new_empty(0, len(rows[0])) if context is None else context.reshape(-1, context.shape[-1]).T
    weights, totals = [], []
    for stage, above, below, dense in zip(stages, units[1:], units, network.dense, strict=False):
        weight = stage.linear.weight if dense else stage.linear.weight * stage.linear.mask
        weights.append(_picked(_picked(weight, above).T, below).T)
        totals.append(_picked(stage.linear.bias, above)[:, None].expand(-1, len(rows[0])))
    solution = _Solution(stages, network.sizes, rows, monotone, given)
    solution.solve(0, features, weights, totals)
    x = _picked(torch.stack(solution.x), units[-1]).T.reshape(z.shape)
    return x, torch.stack(solution.log_dets).sum(0).reshape(z.shape[:-1])


def _picked(rows: Tensor, index: Tensor | None) -> Tensor:
    return rows if index is None else rows.index_select(0, index)


BLOCK = 8  # degrees that are taken one by one; more are halved first


class _Solution:
    """A solution as far as it is known. Columns are points; lists run over stages."""

    def __init__(
        self,
        stages: list[Stage],
        sizes: list[list[int]],
        z: tuple[Tensor, ...],
        monotone: Monotone,
        context: Tensor,
    ) -> None:
        self.stages, self.sizes, self.z, self.monotone = stages, sizes, z, monotone
        self.newest = context  # what has degree d in the input when units of degree d are computed
        self.x: list[Tensor] = []
        self.log_dets: list[Tensor] = []

    def solve(self, low: int, high: int, weights: list[Tensor], totals: list[Tensor]) -> list[list[Tensor]]:
        """Find units of degrees low … high−1 and the features after them; returns what each stage takes from the units.

        ``weights`` are those among these units, ``totals`` their bias and what the units before them add.
        """
        if high - low <= BLOCK:
            return self._block(low, high, weights, totals)
        middle = (low + high) // 2
        cuts = [[sum(size[low:middle]), sum(size[middle:high])] for size in self.sizes]
        first, second, below = [], [], []
        for weight, cut_above, cut_below in zip(weights, cuts[1:], cuts, strict=False):
            upper, lower = weight.split(cut_above)
            first.append(upper.split(cut_below, 1)[0])
            left, right = lower.split(cut_below, 1)
            below.append(left)
            second.append(right)
        halves = [total.split(cut) for total, cut in zip(totals, cuts[1:], strict=True)]
        done = self.solve(low, middle, first, [half[0] for half in halves])
        totals = [
            torch.addmm(half[1], weight, pieces[0] if len(pieces) == 1 else torch.cat(pieces))
            for half, weight, pieces in zip(halves, below, done, strict=True)
        ]
        rest = self.solve(middle, high, second, totals)
        return [a + b for a, b in zip(done, rest, strict=True)]

    def _block(self, low: int, high: int, weights: list[Tensor], totals: list[Tensor]) -> list[list[Tensor]]:
        """The same, degree by degree: new units are added at once to the totals of all that see them in the block."""
        cuts = [size[low:high] for size in self.sizes]
        columns = [torch.split_with_sizes(weight, cut, 1) for weight, cut in zip(weights, cuts, strict=False)]
        totals, left = list(totals), [sum(cut) for cut in cuts[1:]]  # how many rows are left of each
        taken: list[list[Tensor]] = [[] for _ in self.stages]
        for position in range(high - low):
            values: list[Tensor] = []
            value = self.newest
            for number, stage in enumerate(self.stages):
                for activation in stage.activations:
                    value = activation(value)
                taken[number].append(value)
                rest, rows, own = totals[number], left[number], cuts[number + 1][position]
                weight = columns[number][position][-rows:] if rows else rest.new_empty(0, value.shape[0])
                both = torch.addmm(rest, weight, value)
                left[number] = rows - own
                value, totals[number] = torch.split_with_sizes(both, [own, rows - own])
                if stage.skip is not None:
                    value = value + values[stage.skip]
                values.append(value)
            x, log_det = self.monotone.inverse(self.z[low + position], value)
            self.x.append(x)
            self.log_dets.append(log_det)
            self.newest = x[None]
        return taken
