"""Sufficient statistics of a Gaussian mixture: count, mean and scatter of every component, which add."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from density.parallel import processes
from lvm.mixture.covariance import Covariance
from lvm.mixture.parameters import MixtureParameters

SCALARS_AT_ONCE = 2**18  # held together by a thread of a CPU: 2 MiB, so that they stay in cache
SCALARS_AT_ONCE_ELSEWHERE = 2**26
EMPTY = torch.finfo(torch.float64).tiny / torch.finfo(torch.float64).eps  # below this N_k its digits are lost
FEWEST_ROWS, MOST_ROWS, ALIGNED = 64, 2**13, 32  # kernels of matrix products take rows in blocks

Part = tuple[Tensor, Tensor | None]
Assign = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Statistics:
    r"""What the M-step needs to know of the data, in float64.

    Attributes:
        structure: the covariance structure, which decides how much of the scatter is kept.
        count: N_k = Σᵢ wᵢ r_ik, ``[K]``.
        mean: Σᵢ wᵢ r_ik xᵢ / N_k, ``[K, D]``.
        scatter: Σᵢ wᵢ r_ik (xᵢ − mean_k)(xᵢ − mean_k)ᵀ, in the structure's shape.
        log_likelihood: Σᵢ wᵢ log p(xᵢ) under the parameters that gave the responsibilities r, nats.

    Statistics of two data sets under the same parameters add to those of both together, by the pairwise update of Chan,
    Golub and LeVeque (1979), which never subtracts large numbers: chunks, data larger than memory and several processes
    are all the same sum.
    """

    structure: Covariance
    count: Tensor
    mean: Tensor
    scatter: Tensor
    log_likelihood: Tensor

    @staticmethod
    def of(
        structure: Covariance, residual: Tensor, weight: Tensor, origin: Tensor, log_likelihood: Tensor
    ) -> Statistics:
        """Statistics of residuals ``[K, n, D]`` about origins ``[K, D]``, with weights w r ``[K, n]``."""
        count = weight.sum(-1)
        share = weight / count.clamp_min(_TINY).unsqueeze(-1)
        shift = share.unsqueeze(-2) @ residual
        scatter = structure.scatter(residual - shift, weight)
        return Statistics(structure, count, origin + shift.squeeze(-2), scatter, log_likelihood)

    def __add__(self, other: Statistics) -> Statistics:
        if self.structure != other.structure or self.mean.shape != other.mean.shape:
            raise ValueError(
                "statistics add where structure, components and features are the same; got "
                f"{self.structure} {list(self.mean.shape)} and {other.structure} {list(other.mean.shape)}"
            )
        count = self.count + other.count
        share = other.count / count.clamp_min(_TINY)
        shift = other.mean - self.mean
        between = self.structure.scatter(shift.unsqueeze(1), (self.count * share).unsqueeze(1))
        return Statistics(
            self.structure,
            count,
            self.mean + share.unsqueeze(-1) * shift,
            self.scatter + other.scatter + between,
            self.log_likelihood + other.log_likelihood,
        )

    def times(self, factor: float) -> Statistics:
        """Those of data whose every row has so many times its weight."""
        return Statistics(
            self.structure, factor * self.count, self.mean, factor * self.scatter, factor * self.log_likelihood
        )

    def over_processes(self, origin: Tensor) -> Statistics:
        """The sum over all processes, the same in every one; origins ``[K, D]``, alike in all, are near the data.

        Two sums: of counts and of first moments about the origins, and of scatters about the means that follow.
        """
        if processes.world() == 1:
            return self
        moment = self.count.unsqueeze(1) * (self.mean - origin)
        sums = processes.total(torch.cat([self.count, self.log_likelihood.reshape(1), moment.flatten()]))
        count, log_likelihood, moment = sums.split([len(self.count), 1, self.mean.numel()])
        mean = origin + moment.reshape_as(origin) / count.clamp_min(_TINY).unsqueeze(1)
        between = self.structure.scatter((self.mean - mean).unsqueeze(1), self.count.unsqueeze(1))
        return Statistics(
            self.structure, count, mean, processes.total(self.scatter + between), log_likelihood.squeeze(0)
        )

    def maximise(self, before: MixtureParameters, ridge: Tensor) -> MixtureParameters:
        r"""M-step: the parameters that maximise the expected log-joint, with a ridge ``[D]`` on every covariance.

        A component without rows keeps the mean and the covariance that it had before, with a weight near 0. What is
        fixed stays: weights do not depend on the others, means not on covariances, and covariances are those about the
        means, whichever these are; so each is the maximum given what stays.

        Covariances that would be singular are marked, and not looked for: the next E-step says so, or
        :meth:`~lvm.mixture.parameters.MixtureParameters.require_regular`.
        """
        structure, scatter, fixed = self.structure, self.scatter, before.fixed
        rows, empty = self.count.clamp_min(EMPTY), self.count < EMPTY
        logits = before.logits if "logits" in fixed else (rows / self.total).log()
        means = torch.where(empty.unsqueeze(-1), before.means, self.mean)
        if "means" in fixed:
            means = before.means
            scatter = scatter + structure.scatter((self.mean - means).unsqueeze(1), self.count.unsqueeze(1))
        if "factor" in fixed:
            return before.having(logits, means, before.factor)
        covariances = structure.add_ridge(structure.average(scatter, rows), ridge)
        covariances = structure.keep(empty, before.covariances, covariances)
        rounding = (torch.finfo(means.dtype).eps * means).square()  # a variance below it is none
        factor, regular = structure.packed(covariances, rounding)
        return before.having(logits, means, factor).marked(regular)

    def possible(self) -> Statistics:
        """These statistics, if every row had a density above 0; else ValueError."""
        if not math.isfinite(self.mean_log_likelihood) and not math.isfinite(self.log_likelihood.item()):
            raise ValueError(
                f"the log-likelihood of the data is {self.log_likelihood.item()}: some rows are so far from every "
                "component that their density is 0. Start from the data (KMeansPlusPlus), or rescale it"
            )
        return self

    def tensors(self) -> tuple[Tensor, ...]:
        """Everything but the structure."""
        return self.count, self.mean, self.scatter, self.log_likelihood

    @cached_property
    def total(self) -> Tensor:
        """Σᵢ wᵢ, the number of rows where they have no weights."""
        return self.count.sum()

    @cached_property
    def mean_log_likelihood(self) -> float:
        """Σᵢ wᵢ log p(xᵢ) / Σᵢ wᵢ, nats per point."""
        return (self.log_likelihood / self.total).item()


def accumulate(
    structure: Covariance, parts: Iterable[Part], origin: Tensor, assign: Assign, rows_at_once: int | None = None
) -> Statistics:
    """Statistics of parts of the data, a few rows at a time, so that memory does not grow with n.

    Args:
        parts: rows ``[n, D]`` with their weights ``[n]`` or None; none for statistics of nothing.
        origin: float64 ``[K, D]``; residuals are formed about it, and then about the chunk's own means.
        assign: maps residuals ``[K, rows, D]`` to responsibilities ``[K, rows]`` and log p ``[rows]``.
        rows_at_once: rows in a chunk; None for as many as fit the cache.
    """
    total: Statistics | None = None
    for rows, weights in pieces(parts, rows_at_once or rows_for(origin.numel(), origin.device)):
        residual = rows.double() - origin.unsqueeze(1)
        weight, log_p = assign(residual)
        if weights is not None:
            weight, log_p = weight * weights, log_p * weights
        part = Statistics.of(structure, residual, weight, origin, log_p.sum())
        total = part if total is None else total + part
    return nothing(structure, origin) if total is None else total


def nothing(structure: Covariance, origin: Tensor) -> Statistics:
    """Statistics of no rows, about means ``[K, D]``."""
    zeros = origin.new_zeros(structure.shape(*origin.shape))
    return Statistics(structure, origin.new_zeros(origin.shape[0]), origin, zeros, origin.new_zeros(()))


def rows_for(scalars_a_row: int, device: torch.device) -> int:
    """The number of rows that fit the threads' caches, each of so many numbers; on an accelerator, keep it busy."""
    if device.type != "cpu":
        return max(1, SCALARS_AT_ONCE_ELSEWHERE // scalars_a_row)
    rows = SCALARS_AT_ONCE // scalars_a_row // ALIGNED * ALIGNED
    return torch.get_num_threads() * min(max(rows, FEWEST_ROWS), MOST_ROWS)


def pieces(parts: Iterable[Part], rows_at_once: int) -> Iterator[Part]:
    """The same rows in pieces of at most so many, with their weights in float64."""
    for rows, weights in parts:
        for start in range(0, rows.shape[0], rows_at_once):
            own = slice(start, start + rows_at_once)
            yield rows[own], None if weights is None else weights[own].double()


_TINY = torch.finfo(torch.float64).tiny
