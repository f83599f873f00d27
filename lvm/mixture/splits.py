r"""Ways up from where EM for a Gaussian mixture rests with components that it does not need.

Where two components coincide, the likelihood is stationary in what tells them apart, whatever the data: at a distance
of d they part at a rate of order d², and a fit that starts with all components at the mean of the data stays there. Put
one Gaussian with the moments of both in their place. Two at ±εu about its mean, with covariances less by ε²uuᵀ, differ
from it first in the fourth cumulant along u, −2ε⁴, and change the log-likelihood of a row by −ε⁴κ₄(u)/12 on average,
with κ₄ the excess kurtosis of the rows that the two explain. So it rises where that is negative along some u; where it
is positive, for equal means and two spreads; where the rows are skewed, for unequal weights, of order ε³; and for a
structure that does not fit their covariance, along the axis that it fits least, of order ε². Rows of real data are not
without all of these: components that coincide are no maximum. How far to go is tried.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lvm.mixture.covariance import CollapsedComponent
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.statistics import Part, Statistics

COINCIDE = 0.2  # nats: what a row tells on average of which of two components it is from; log 2 if they are apart
MOST_PAIRS = 3
MOST_PRODUCTS = 2**24  # of rows and pairs of components, in search of those that coincide
STEPS = 10  # of the search for the axis of least kurtosis
PLANES = (0.0, 1.0, -1.0)  # which part the rows, in standard deviations
SLOPES = (torch.inf, 1.0)  # of the shares of the two, where they pass a plane
SLIGHT = 0.3  # of the shares of the two, between narrow and wide
MOVES = (1.0, 0.3)  # of means alone, in shares of what the rows say


@torch.no_grad()
def ways_up(at: MixtureParameters, some: Part, ridge: Tensor, *, filled: bool = False) -> Iterator[MixtureParameters]:
    """Parameters in which two components that coincide, or of which one is empty, share their rows by where these lie.

    Of each of a few pairs the best by some of the rows; O(mKD²) for m of them. Rows whose missing entries were filled
    in spread less than others: there the two also part in their means alone, with what is left of their covariance.

    Args:
        at: the mixture at rest.
        some: rows ``[m, D]`` with weights ``[m]`` or None, by which it is decided who gets which.
        ridge: what is added to the diagonal of covariances, ``[D]``.
        filled: whether entries of these rows were missing.
    """
    x = some[0].double()
    weights = torch.ones_like(x[:, 0]) if some[1] is None else some[1].double()
    log_joint = _log_joint(at, x)
    owned = log_joint.softmax(0) * weights
    for pair in pairs(log_joint, owned):
        both = owned[pair].sum(0)
        for moved in (None, *MOVES) if filled else (None,):
            best, least = None, -torch.inf
            for share in shares(x, both):
                parts = torch.stack([both * share, both * (1 - share)])
                parted = _parted(at, pair, x, parts, ridge, moved)
                if parted is None:
                    continue
                value = (weights @ _replaced(log_joint, parted, pair, x).logsumexp(0)).item()
                if value > least:
                    best, least = parted, value
            if best is not None:
                yield best


def _log_joint(at: MixtureParameters, x: Tensor, which: list[int] | None = None) -> Tensor:
    """log π_k N(x; μ_k, Σ_k), ``[K, m]``, or of some of the components."""
    precision, constant = at.structure.precision(at.factor), at.constant
    each = []
    for k in range(len(at.means)) if which is None else which:
        own = precision if at.structure.shared else precision[k : k + 1]
        each.append(constant[k] - 0.5 * at.structure.distance((x - at.means[k]).unsqueeze(0), own))
    return torch.cat(each)


def _replaced(log_joint: Tensor, parted: MixtureParameters, pair: list[int], x: Tensor) -> Tensor:
    """The log-joint of a mixture of which two components, or a covariance of all, have become others."""
    if parted.structure.shared:
        return _log_joint(parted, x)
    replaced = log_joint.clone()
    replaced[pair] = _log_joint(parted, x, pair)
    return replaced


def pairs(log_joint: Tensor, owned: Tensor) -> list[list[int]]:
    """The pairs that come closest to coinciding, of alike ones the heavier first; an empty component does with any.

    By what a row tells of which of the two it is from, on average: the mutual information of row and component.
    """
    components = len(log_joint)
    apart = -(-log_joint.shape[1] // max(64, MOST_PRODUCTS // components**2))
    log_joint, owned = log_joint[:, ::apart], owned[:, ::apart]
    found: list[tuple[float, float, int, int]] = []
    for first in range(components - 1):
        both = owned[first] + owned[first + 1 :]
        share = torch.sigmoid(log_joint[first] - log_joint[first + 1 :])
        total = both.sum(1)
        told = _entropy(owned[first].sum() / total) - (both * _entropy(share)).sum(1) / total
        for k, (value, weight) in enumerate(zip(told.tolist(), total.tolist(), strict=True)):
            if value < COINCIDE:
                found.append((round(value, 2), -weight, first, first + 1 + k))
    return [[first, second] for _, _, first, second in sorted(found)[:MOST_PAIRS]]


def _entropy(share: Tensor) -> Tensor:
    """Of a choice between two, nats."""
    return -torch.xlogy(share, share) - torch.xlogy(1 - share, 1 - share)


def shares(x: Tensor, both: Tensor) -> Iterator[Tensor]:
    """Shares ``[m]`` of one of two components in the rows x ``[m, D]`` that both have, ``[m]`` in weight."""
    weight = both / both.sum()
    centred = x - weight @ x
    scale = (weight @ centred.square()).sqrt()
    if not bool((scale > 0).any()):
        return
    centred = centred[:, scale > 0] / scale[scale > 0]
    variances, axes = torch.linalg.eigh((centred * weight.unsqueeze(1)).mT @ centred)
    resolved = variances > 1e-10 * variances[-1]
    white = centred @ (axes[:, resolved] / variances[resolved].sqrt())
    square = white.square().sum(1)
    for along in (white[:, -1], white @ _flattest(white, weight)):
        for plane in PLANES:
            for slope in SLOPES:
                yield torch.sigmoid((slope * (along - plane)).nan_to_num(0.0))
    wide = (square - white.shape[1]) / (2 * white.shape[1]) ** 0.5  # if Gaussian of mean 0, variance 1
    for slope in (*SLOPES, SLIGHT):
        yield torch.sigmoid((slope * wide).nan_to_num(0.0))


def _flattest(white: Tensor, weight: Tensor) -> Tensor:
    """An axis ``[D]`` of small kurtosis of white rows, by its fixed point from the best of their own (FastICA)."""
    axis = torch.nn.functional.one_hot((weight @ white.pow(4)).argmin(), white.shape[1]).double()
    best, least = axis, torch.inf
    for _ in range(STEPS):
        along = white @ axis
        kurtosis = (weight @ along.pow(4)).item()
        if kurtosis < least:
            best, least = axis, kurtosis
        axis = 3 * axis - white.mT @ (weight * along.pow(3))
        axis = axis / axis.norm().clamp_min(torch.finfo(axis.dtype).tiny)
    return best


def _parted(
    at: MixtureParameters, pair: list[int], x: Tensor, owned: Tensor, ridge: Tensor, moved: float | None
) -> MixtureParameters | None:
    """The mixture where two components have the rows x with weights ``[2, m]``; None if one has too few.

    Args:
        moved: the share of their distance by which only the means part, about the mean of both; their covariance is
            then what is left of the common one. None for the moments of the rows.
    """
    structure = at.structure
    weights, means, covariances = at.weights, at.means.clone(), at.covariances
    middle = (owned.sum(0) / owned.sum()) @ x
    parts = Statistics.of(structure, (x - middle).expand(2, -1, -1), owned, middle.expand(2, -1), x.new_zeros(()))
    share = parts.count / parts.total
    if not bool((parts.count > 0).all()):
        return None
    together = weights[pair].sum()
    means[pair] = parts.mean
    if structure.shared:
        between = structure.scatter((parts.mean - middle).unsqueeze(1), (together * share).unsqueeze(1))
        covariances = covariances - between
    elif moved is not None:
        old = weights[pair] / together
        offsets = moved * (parts.mean - middle)
        means[pair] = offsets + old @ at.means[pair]
        own = covariances[pair] * old.reshape(-1, *[1] * (covariances.ndim - 1))
        between = structure.average(structure.scatter(offsets.unsqueeze(1), share.unsqueeze(1)), share)
        covariances = covariances.clone()
        covariances[pair] = own.sum(0) - (between * share.reshape(-1, *[1] * (between.ndim - 1))).sum(0)
    else:
        covariances = covariances.clone()
        shrunk = structure.average(parts.scatter, parts.count, pseudo_rows=x.shape[1])
        covariances[pair] = structure.add_ridge(shrunk, ridge)
    weights = weights.clone()
    weights[pair] = together * share
    try:
        return MixtureParameters.of(structure, weights, means, covariances)
    except CollapsedComponent:
        return None
