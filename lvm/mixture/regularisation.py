"""Regularisation of covariances: a ridge on their diagonals, so that a Gaussian mixture's likelihood has a maximum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from density.checks import in_words
from lvm.mixture.covariance import Covariance, Diagonal
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.statistics import Part, Statistics, accumulate

POINTS = 512  # at which the quantile function of a column is compared with itself
NOTICED = 0.01  # of a component's variance along some axis: a ridge that is more is mentioned


@dataclass(frozen=True)
class Relative:
    """Regularisation by a share of each feature's variance in the data, so that a fit does not depend on its units.

    One row far away raises it for all, and so do components far apart: see :class:`Local`.

    >>> from lvm import EM, Relative
    >>> EM(regularisation=Relative(1e-4)).regularisation
    Relative(share=0.0001)
    """

    share: float = 1e-6


@dataclass(frozen=True)
class Local:
    r"""Regularisation by a share of the variance that a component with its share of the rows may have: robust, local.

    Of each feature the width of the intervals that hold 1/(4K) of the rows is taken, the median over where they lie.
    For a Gaussian component with 1/K of the rows, apart from all others, its standard deviation is

    .. math:: s = \operatorname{median}_u \frac{Q(u + p) - Q(u)}{\Phi^{-1}(7/16) - \Phi^{-1}(3/16)},
              \qquad p = \frac1{4K}

    with Q the quantile function of the feature. Rows far away do not move it, nor does the distance between components.
    With a feature's units it changes as they do. Where the intervals have no width, since values are equal, wider ones
    are taken; in a feature that has one value for most of the rows, its variance (:class:`Relative`), which s² never
    exceeds. Of long data 2¹³ rows are looked at.

    >>> from lvm import EM, Local
    >>> EM(regularisation=Local(1e-4)).regularisation
    Local(share=0.0001)
    """

    share: float = 1e-6


Regularisation = float | Relative | Local


def check_regularisation(regularisation: Regularisation) -> None:
    """Raise unless it is a number, a :class:`Relative` or a :class:`Local`, finite and at least 0."""
    value = regularisation.share if isinstance(regularisation, Relative | Local) else regularisation
    if not isinstance(value, int | float):
        raise TypeError(f"regularisation must be a variance, Local() or Relative(); got {in_words(regularisation)}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"regularisation must be finite and at least 0; got {value}")


def spread(parts: Iterable[Part], like: Tensor) -> Statistics:
    """Weight, mean and squared deviations ``[1, D]`` of every column (0 if constant), about a row ``[1, D]``."""

    def one(residual: Tensor) -> tuple[Tensor, Tensor]:
        return residual.new_ones(residual.shape[:2]), residual.new_zeros(residual.shape[1])

    return accumulate(Diagonal(), parts, like.double(), one)


def ridge_of(
    regularisation: Regularisation,
    structure: Covariance,
    columns: Statistics,
    some: Part,
    components: int,
    owner: str = "GaussianMixture",
    called: Callable[[int], str] = str,
) -> Tensor:
    """R's diagonal for data of that spread, float64 ``[D]``.

    Args:
        regularisation: how it is chosen.
        structure: of the covariances.
        columns: the spread of the data.
        some: rows of the data, nan where an entry is missing, and their weights.
        components: K.
        owner: whose error it is.
        called: what its columns are called.

    Raises:
        ValueError: the rows are so alike, or so large, that even one component for all of them has no density.
    """
    variance = (columns.scatter / columns.total).squeeze(0)
    if not bool(variance.isfinite().all()):
        raise ValueError(f"{owner}: the squares of the data overflow float64; rescale it")
    if isinstance(regularisation, Relative):
        ridge = regularisation.share * variance
    elif isinstance(regularisation, Local):
        local = local_scale(*some, components).square()
        ridge = regularisation.share * torch.where(local > 0, torch.minimum(local, variance), variance)
    else:
        ridge = torch.full_like(variance, regularisation)
    nothing = variance.new_zeros(structure.shape(1, variance.shape[0]))
    left = structure.variances(structure.add_ridge(nothing, variance + ridge)).reshape(-1)
    if not bool((left > 0).any()):
        raise ValueError(
            f"{owner}: all rows are equal, so the likelihood has no maximum. Add noise (dequantise), or "
            "regularise by a variance, EM(regularisation=...)"
        )
    if not bool((left > 0).all()):
        raise ValueError(
            f"{owner}: column {called(int((left == 0).nonzero()[0]))} is constant, so the likelihood has no "
            "maximum. Drop it, add noise (dequantise), or regularise by a variance, EM(regularisation=...)"
        )
    return ridge


def local_scale(x: Tensor, weights: Tensor | None, components: int) -> Tensor:
    """s of every column of x ``[m, D]``, nan where an entry is missing; 0 where most of its values are equal. ``[D]``.

    See :class:`Local`. O(mD log m).
    """
    w = x.new_ones(x.shape[:1], dtype=torch.float64) if weights is None else weights.double()
    values, order = x.double().mT.sort(-1)  # nan comes last
    held = torch.where(values.isnan(), 0.0, w[order]).cumsum(-1)
    held = held / held[:, -1:]
    last = (~values.isnan()).sum(-1, keepdim=True) - 1
    at = (torch.arange(POINTS, dtype=torch.float64, device=x.device) + 0.5) / POINTS

    def quantile(level: Tensor) -> Tensor:
        place = torch.searchsorted(held, level.expand(len(held), -1).contiguous())
        return values.gather(-1, torch.minimum(place, last))

    share = 1 / (4 * components)
    scale = values.new_zeros(len(values))
    while share <= 0.5:
        level = (1 - share) * at
        width = (quantile(level + share) - quantile(level)).median(-1).values
        scale = torch.where(scale > 0, scale, width)
        share = 2 * share
    unit = torch.special.ndtri(scale.new_tensor([7 / 16, 3 / 16]))
    return scale / (unit[0] - unit[1])


def felt(ridge: Tensor, at: MixtureParameters) -> str:
    """What a history says where the ridge is a noticeable part of a component's variance along some axis; else "".

    That part is at most ‖S_k⁻¹ R^½‖².
    """
    structure = at.structure
    if structure.dense:
        share = torch.linalg.svdvals(structure.precision(at.factor) * ridge.sqrt())[..., 0].square().reshape(-1)
    else:
        added = structure.variances(structure.add_ridge(torch.zeros_like(at.factor), ridge))
        share = (added / structure.variances(at.covariances)).amax(-1)
    which = "the shared covariance" if structure.shared else f"the covariance of component {int(share.argmax())}"
    return noticed(share, f"{which} along some axis")


def noticed(share: Tensor, of: str) -> str:
    """What a history says of the largest of these shares of a ridge, if it is a noticeable one; else ""."""
    if not bool((share > NOTICED).any()):
        return ""
    return f"; regularisation is {share.max().item():.0%} of {of}"
