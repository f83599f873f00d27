"""How the likelihood of incomplete rows changes with PPCA's covariance, and the ways up from where EM rests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from density.data.rows import Rows
from density.linalg.lanczos import largest_outside
from density.parallel import processes
from lvm.missing.patterns import Patterns
from lvm.ppca.covariance import Operator
from lvm.ppca.observed_posterior import Coordinates
from lvm.ppca.parameters import PPCAParameters
from lvm.ppca.spectrum import fix_signs

STEPS = 12  # of Lanczos' iteration, each a pass over the data
TURNS = (1.0, 0.5, 0.25)  # of a right angle
ALIVE = 1e-3  # of σ²: less variance than this is a column of W that dies, whose axis may be any
ROWS_AT_ONCE = 2**13


@dataclass(frozen=True, eq=False)
class Part:
    """Rows ``[n, D]``, their weights ``[n]`` or None, and their patterns."""

    x: Tensor
    weights: Tensor | None
    patterns: Patterns

    @cached_property
    def weights_of_blocks(self) -> list[Tensor]:
        """Weights of the rows of every block ``[B, R]``, 0 for repetitions and for rows without any entry."""
        return [block.weights(self.weights) * (block.entries > 0).unsqueeze(1) for block in self.patterns.blocks]


@dataclass(frozen=True, eq=False)
class Filled(Operator):
    """The covariance of incomplete data with every missing entry at its column's mean: a start, no estimate.

    Attributes:
        rows: the data.
        total: the weight that sums over its rows are divided by.
    """

    rows: Rows
    mean: Tensor
    trace: Tensor
    floor: Tensor
    total: Tensor

    def times(self, w: Tensor) -> Tensor:
        product = torch.zeros_like(w)
        for x, weights in self.rows:
            for start in range(0, x.shape[0], ROWS_AT_ONCE):
                own = slice(start, start + ROWS_AT_ONCE)
                centred = (x[own].double() - self.mean).nan_to_num(0.0)
                weighted = centred if weights is None else centred * weights[own].double().unsqueeze(1)
                product += weighted.mT @ (centred @ w)
        return processes.total(product) / self.total


def gradient(
    parameters: PPCAParameters, origin: Tensor, parts: Callable[[], Iterable[Part]], total: Tensor
) -> Callable[[Tensor], Tensor]:
    r"""v ↦ Gv ``[D]``, where G/2 is the derivative of the mean log p(x_o) in the covariance C = WWᵀ + σ²I.

    .. math:: G = \frac1n \sum_i C_{oo}^{-1}\big((x_o-\mu_o)(x_o-\mu_o)^\top - C_{oo}\big) C_{oo}^{-1} ,

    each term in the rows and columns that i has. On complete data uᵀGu = (uᵀSu − σ²)/σ⁴ for |u| = 1, Wᵀu = 0.

    Args:
        parameters: μ, W and σ².
        origin: what is subtracted from rows and mean, ``[D]``.
        parts: the rows of this process.
        total: the weight that sums over rows are divided by.
    """
    noise_variance = parameters.noise_variance
    at = Coordinates.at(parameters.mean - origin, parameters.weight, 0.5 * noise_variance.log())

    def times(v: Tensor) -> Tensor:
        product = torch.zeros_like(v)
        for part in parts():
            for block in part.patterns.blocks:
                x = block.rows(part.x, origin)
                weights = block.weights(part.weights)
                posterior = at.posterior(block, x)
                product += (weights * (posterior.left @ v)).flatten() @ posterior.left.flatten(0, 1)
                inverse = at.left(block, posterior.root, torch.where(block.mask, v, 0.0).unsqueeze(1))
                product -= weights.sum(-1) @ inverse.squeeze(1)
        return processes.total(product) / (total * noise_variance)

    return times


def ways_up(
    parameters: PPCAParameters, origin: Tensor, parts: Callable[[], Iterable[Part]], total: Tensor
) -> Iterator[PPCAParameters]:
    """Where log p(x_o) may be higher, if it rests at these parameters; arguments as for :func:`gradient`.

    A column εu more of W changes the mean log p(x_o) by ½ε² uᵀGu + O(ε⁴). At a stationary point GW = 0. Where a column
    of W is 0 it is a saddle if G has a positive eigenvalue, whose eigenvector is the way up; where one is weak, turning
    it towards that axis may lead up. The new column is as long as it would be on complete data. 12 passes over
    the rows.
    """
    axes, lengths, _ = torch.linalg.svd(parameters.weight, full_matrices=False)
    axes, noise_variance = fix_signs(axes), parameters.noise_variance
    alive = lengths[:-1].square() > ALIVE * noise_variance
    value, axis = largest_outside(gradient(parameters, origin, parts, total), axes[:, :-1][:, alive], STEPS)
    if not bool(value > 0):
        return
    weakest, length, axis = axes[:, -1], lengths[-1], fix_signs(axis.unsqueeze(1)).squeeze(1)
    new_length = value.sqrt() * noise_variance
    for turn in TURNS:
        along, across = math.cos(turn * math.pi / 2), math.sin(turn * math.pi / 2)
        size = ((along * length).square() + (across * new_length).square()).sqrt()
        column = size * (along * weakest + across * axis)
        weight = torch.cat([axes[:, :-1] * lengths[:-1], column.unsqueeze(1)], 1)
        yield replace(parameters, weight=weight)
