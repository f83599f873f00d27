"""The E-step of a Gaussian mixture: one pass over rows, by features where that is safe, else by residuals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from density.checks import free_to_look
from density.data.rows import Rows
from lvm.mixture.features import Quadratic
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.statistics import EMPTY, Assign, Part, Statistics, accumulate, nothing, pieces, rows_for

S = TypeVar("S", Statistics, Tensor)

MOST_FEATURES = 2**12  # more of them are slower than a dense product for every component
FEWEST_RESIDUALS = 2**14  # fewer of them are formed sooner than features are prepared


def posterior(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    """Responsibilities ``[K, n]``, in the place of the log-joint, and log p ``[n]``."""
    largest = log_joint.amax(0).clamp_min(torch.finfo(log_joint.dtype).min)
    log_joint.sub_(largest).exp_()
    total = log_joint.sum(0)
    return log_joint.div_(total), total.log_().add_(largest)


def nearest(log_joint: Tensor) -> tuple[Tensor, Tensor]:
    """All to the component of largest log-joint; log p is not asked for, and 0."""
    index = log_joint.argmax(0, keepdim=True)
    return log_joint.zero_().scatter_(0, index, 1.0), log_joint.new_zeros(log_joint.shape[1])


def of_all_rows(
    at: MixtureParameters, rows: Rows, *, ridge: Tensor | None = None, rows_at_once: int | None = None
) -> Statistics:
    """E-step on a data set: this process's share of it, summed over all processes.

    Raises:
        CollapsedComponent: the M-step before marked a covariance.
        ValueError: a row is so far from every component that its density is 0.
    """
    n = None if rows.whole is None else rows.whole.shape[0]
    return summed(at, rows, n=n, ridge=ridge, rows_at_once=rows_at_once)


def summed(
    at: MixtureParameters,
    parts: Iterable[Part],
    *,
    n: int | None = None,
    ridge: Tensor | None = None,
    rows_at_once: int | None = None,
) -> Statistics:
    """The :func:`expectation` of parts of the data, summed over all processes, and looked at.

    Where a look waits, all that is looked at shows in one number, the mean log-likelihood; where that is nan, it is
    done again with a look at every chunk.

    Raises:
        CollapsedComponent: the M-step before marked a covariance.
        ValueError: a row is so far from every component that its density is 0.
    """
    if not free_to_look(at.means):
        statistics = unlooked(at, parts, n=n, ridge=ridge, rows_at_once=rows_at_once)
        if math.isfinite(statistics.mean_log_likelihood):
            return statistics
    at.require_regular()
    own = expectation(at, parts, n=n, ridge=ridge, rows_at_once=rows_at_once)
    return own.over_processes(at.means).possible()


def unlooked(
    at: MixtureParameters,
    parts: Iterable[Part],
    *,
    n: int | None = None,
    ridge: Tensor | None = None,
    rows_at_once: int | None = None,
) -> Statistics:
    """The same, of which only the log-likelihood says whether it holds: nan if it has to be done with a look."""
    own = expectation(at, parts, n=n, ridge=ridge, rows_at_once=rows_at_once, careful=False)
    return own.over_processes(at.means)


@torch.no_grad()
def expectation(
    at: MixtureParameters,
    parts: Iterable[Part],
    assign: Assign = posterior,
    *,
    n: int | None = None,
    ridge: Tensor | None = None,
    rows_at_once: int | None = None,
    careful: bool = True,
) -> Statistics:
    """Statistics of parts of the data under K Gaussians, in float64: O(nKD²) or O(nKD), memory free of n.

    Args:
        at: the mixture, in float64.
        parts: rows ``[n, D]`` with their weights ``[n]`` or None; gone through once, or again where a component has
            shrunk so much in one step that its features lost digits.
        assign: maps the log-joint ``[K, n]`` to responsibilities and log p, and may overwrite it.
        n: how many rows there are, if known: for few, features are not worth their preparation.
        ridge: what the M-step will add to the diagonal of covariances, ``[D]``.
        rows_at_once: rows in a chunk; None for as many as fit the cache.
        careful: look which components' features are safe, and do the others by residuals; else the log-likelihood is
            nan where some were not.
    """
    structure, (k, d) = at.structure, at.means.shape
    size = structure.quadratic_features(d)
    if size > MOST_FEATURES or (n is not None and n * k * d < FEWEST_RESIDUALS):

        def assigned(residual: Tensor) -> tuple[Tensor, Tensor]:
            return assign(_by_residuals(at, residual, slice(None)))

        return accumulate(structure, parts, at.means, assigned, rows_at_once)
    ridge = at.means.new_zeros(d) if ridge is None else ridge
    rows_at_once = rows_at_once or rows_for(max(k, size), at.means.device)
    distrusted = at.means.new_zeros(k, dtype=torch.bool) if careful else None
    while True:
        features = structure.quadratic(at)
        if distrusted is not None:
            features.distrust(distrusted)
        statistics, safe = _by_features(at, pieces(parts, rows_at_once), assign, features, ridge, careful)
        if distrusted is None:
            trusted = (features.were_safe() & safe).all()
            return replace(statistics, log_likelihood=torch.where(trusted, statistics.log_likelihood, torch.nan))
        if bool((safe | distrusted).all()):
            return statistics
        distrusted = distrusted | ~safe


def _by_features(
    at: MixtureParameters,
    parts: Iterable[Part],
    assign: Assign,
    features: Quadratic,
    ridge: Tensor,
    careful: bool,
) -> tuple[Statistics, Tensor]:
    """Statistics, by residuals where features are not safe; and which components' sums of them are safe, ``[K]``."""
    structure, means = at.structure, at.means
    by_residuals: Statistics | None = None
    log_likelihood: Tensor | None = None
    for rows, weights in parts:
        features.take(rows)
        left = features.unsafe() if careful else []
        log_joint = features.log_joint() if len(left) < len(means) else means.new_empty(len(means), len(rows))
        if left:
            residual = rows.double() - means[left].unsqueeze(1)
            log_joint[left] = _by_residuals(at, residual, left)
        responsibilities, log_p = assign(log_joint)
        if weights is not None:
            responsibilities, log_p = responsibilities.mul_(weights), log_p.mul_(weights)
        log_likelihood = _plus(log_likelihood, log_p.sum())
        if left:
            own = Statistics.of(structure, residual, responsibilities[left], means[left], log_p.new_zeros(()))
            by_residuals = _plus(by_residuals, _among(own, left, means))
            responsibilities[left] = 0.0
        if len(left) < len(means):
            features.add(responsibilities, weights)
    sums = features.sums(ridge)
    if sums is None or log_likelihood is None:
        none = nothing(structure, means) if by_residuals is None else by_residuals
        found = none if log_likelihood is None else replace(none, log_likelihood=log_likelihood)
        return found, means.new_ones(len(means), dtype=torch.bool)
    (count, mean, scatter), safe = sums
    by_sums = Statistics(structure, count, mean, scatter, log_likelihood)
    return _plus(by_residuals, by_sums), safe | (count < EMPTY)


def _by_residuals(at: MixtureParameters, residual: Tensor, components: list[int] | slice) -> Tensor:
    """The log-joint of some components for residuals ``[K, n, D]`` about their means, ``[K, n]``."""
    precision = at.precision if at.structure.shared else at.precision[components]
    distance = at.structure.distance(residual, precision)
    return torch.add(at.constant[components].unsqueeze(1), distance, alpha=-0.5)


def _among(part: Statistics, components: list[int], means: Tensor) -> Statistics:
    """Statistics of some components, among all, which have nothing."""
    whole = nothing(part.structure, means)
    count, mean = whole.count.clone(), means.clone()
    count[components], mean[components] = part.count, part.mean
    scatter = part.scatter
    if not part.structure.shared:
        scatter = whole.scatter.clone()
        scatter[components] = part.scatter
    return replace(part, count=count, mean=mean, scatter=scatter)


def _plus(total: S | None, part: S) -> S:
    return part if total is None else total + part
