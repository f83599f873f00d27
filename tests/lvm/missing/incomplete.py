"""Data with holes, and what textbooks say of a Gaussian of which only some entries are observed."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def holes(x: Tensor, share: float, generator: Generator) -> Tensor:
    """x with that share of its entries missing, completely at random."""
    return torch.where(torch.rand(x.shape, generator=generator, dtype=x.dtype) < share, torch.nan, x)


def awkward(x: Tensor, generator: Generator) -> Tensor:
    """Rows of every sort: random holes, one pattern many times over, complete, one entry, none; in mixed order."""
    some = holes(x, 0.4, generator)
    n = len(x)
    some[: n // 3, 1] = torch.nan
    some[: n // 3, 0], some[: n // 3, 2:] = x[: n // 3, 0], x[: n // 3, 2:]
    some[n // 3 : n // 2] = x[n // 3 : n // 2]
    some[-1] = torch.nan
    some[-2, :-1] = torch.nan
    some[-2, -1] = x[-2, -1]
    return some[torch.randperm(n, generator=generator)]


def dense_conditional(row: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log N(x_o), E[x|x_o] and Cov(x|x_o) for one row, by dense algebra and Schur complements, float64."""
    o = ~row.isnan()
    filled = row.clone()
    spread = torch.zeros_like(covariance)
    if not bool(o.any()):
        return row.new_zeros(()), mean.clone(), covariance.clone()
    inner = covariance[o][:, o]
    log_prob = torch.distributions.MultivariateNormal(mean[o], inner, validate_args=False).log_prob(row[o])
    gain = torch.linalg.solve(inner, covariance[o][:, ~o]).mT
    filled[~o] = mean[~o] + gain @ (row[o] - mean[o])
    left = covariance[~o][:, ~o] - gain @ covariance[o][:, ~o]
    spread[torch.outer(~o, ~o)] = left.flatten()
    return log_prob, filled, spread
