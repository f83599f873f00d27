"""The E-step of a Gaussian mixture: one pass over rows, by features where that is safe, else by residuals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from density.checks import free_to_look
from density.data.rows import Rows
from lvm.mixture.features import Quadratic
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.statistics import EMPTY, Assign, Part, Statistics, accumulate, nothing, pieces, rows_for

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

    def found(*, careful: bool) -> Statistics:
        own = expectation(at, parts, n=n, ridge=ridge, rows_at_once=rows_at_once, careful=careful)
        return own.over_processes(at.means)

    if not free_to_look(at.means):
        statistics = found(careful=False)
        if math.isfinite(statistics.mean_log_likelihood):
            return statistics
    at.require_regular()
    return found(careful=True).possible()


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
    precision, constant, size = structure.precision(at.factor), at.constant, structure.quadratic_features(d)
    if size > MOST_FEATURES or (n is not None and n * k * d < FEWEST_RESIDUALS):

        def assigned(residual: Tensor) -> tuple[Tensor, Tensor]:
            return assign(torch.add(constant.unsqueeze(1), structure.distance(residual, precision), alpha=-0.5))

        return accumulate(structure, parts, at.means, assigned, rows_at_once)
    ridge = at.means.new_zeros(d) if ridge is None else ridge
    rows_at_once = rows_at_once or rows_for(max(k, size), at.means.device)
    distrusted: Tensor | None = None
    while True:
        features = structure.quadratic(constant, at.log_weights.exp(), at.means, at.factor, precision)
        if distrusted is not None:
            features.distrust(distrusted)
        own = pieces(parts, rows_at_once)
        statistics, lost = _by_features(at, constant, precision, own, assign, features, ridge, careful)
        if not careful:
            doubtful = lost.any() | ~features.all_were_safe()
            return replace(statistics, log_likelihood=statistics.log_likelihood.masked_fill(doubtful, torch.nan))
        if not bool((lost if distrusted is None else lost & ~distrusted).any()):
            return statistics
        distrusted = lost if distrusted is None else distrusted | lost


def _by_features(
    at: MixtureParameters,
    constant: Tensor,
    precision: Tensor,
    parts: Iterable[Part],
    assign: Assign,
    features: Quadratic,
    ridge: Tensor,
    careful: bool,
) -> tuple[Statistics, Tensor]:
    """Statistics, by residuals where features are not safe; and which components' features lost digits, ``[K]``."""
    structure, k, order = at.structure, at.means.shape[0], features.order
    means, constant = at.means[order], constant[order].unsqueeze(1)
    precision = precision if structure.shared else precision[order]
    by_residuals: Statistics | None = None
    log_likelihood = means.new_zeros(())
    for rows, weights in parts:
        log_joint = means.new_empty(k, rows.shape[0])
        safe = features.take(rows, careful=careful)
        if safe:
            features.log_joint(safe, log_joint[:safe])
        if safe < k:
            residual = rows.double() - means[safe:].unsqueeze(1)
            distance = structure.distance(residual, precision if structure.shared else precision[safe:])
            torch.add(constant[safe:], distance, alpha=-0.5, out=log_joint[safe:])
        responsibilities, log_p = assign(log_joint)
        if weights is not None:
            responsibilities, log_p = responsibilities.mul_(weights), log_p.mul_(weights)
        log_likelihood += log_p.sum()
        if safe:
            features.add(responsibilities[:safe], weights)
        if safe < k:
            own = Statistics.of(structure, residual, responsibilities[safe:], means[safe:], log_p.new_zeros(()))
            part = _among(own, safe, means)
            by_residuals = part if by_residuals is None else by_residuals + part
    (count, mean, scatter), lost = features.sums(ridge)
    mean = torch.where((count > 0).unsqueeze(1), mean, means)
    total = Statistics(structure, count, mean, scatter, means.new_zeros(()))
    total = total if by_residuals is None else by_residuals + total
    back = order.argsort()
    scatter = total.scatter if structure.shared else total.scatter[back]
    return Statistics(structure, total.count[back], total.mean[back], scatter, log_likelihood), (
        lost & (count >= EMPTY)
    )[back]


def _among(part: Statistics, first: int, means: Tensor) -> Statistics:
    """Statistics of components from the first on, among all: of the others, nothing."""
    if first == 0:
        return part
    before = nothing(part.structure, means[:first])
    scatter = part.scatter if part.structure.shared else torch.cat([before.scatter, part.scatter])
    count, mean = torch.cat([before.count, part.count]), torch.cat([before.mean, part.mean])
    return replace(part, count=count, mean=mean, scatter=scatter)
