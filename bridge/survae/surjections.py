r"""Inference surjections: absolute value, maximum, slicing (Nielsen et al. 2020, SurVAE Flows, table 2 and appendix A).

In all of them z = f(x) is deterministic and x|z is drawn: tight, so a model made of them and bijections is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from bridge.survae.layer import (
    InferenceSurjection,
    as_columns,
    at,
    check_part,
    check_positive_support,
    drawn,
    start,
    zeros,
)
from bridge.survae.ranges import HalfNormal
from density.checks import check_count
from density.contract import Density
from density.initialisation import StartingPoints
from density.measure import Measure
from density.support import Step, Support, preimage


class Abs(InferenceSurjection):
    r"""The absolute value z_j = |x_j| in some columns; generation draws their signs from p(s|z).

    .. math:: \log p(x) = \log p(z) + \log p(s|z), \qquad s_j = 1 \text{ where } x_j \ge 0

    Tight. Generation is stochastic. Lebesgue measure on both sides: each piece has slope ±1. A symmetric density has
    log-ratio −log 2 a column and halves what the prior must learn. The range is z_j ≥ 0, and the prior, or what comes
    between, must have it: Log, InverseSoftplus, Logit, HalfNormal.

    Args:
        features: D.
        columns: which columns; all of them if None.
        signs: mass function of the bits s ``[*batch, len(columns)]``, with context z ``[*batch, D]`` or none; fair
            coins if None.

    Raises:
        ValueError: a column is out of range, or the sign model does not fit.

    Cost: O(D) and one pass of the sign model, either way.

    >>> z, log_ratio = Abs(2).infer(torch.tensor([[-1.0, 3.0]]))
    >>> z.tolist(), round(log_ratio.exp().item(), 4)
    ([[[1.0, 3.0]]], 0.25)
    """

    columns: Tensor

    def __init__(self, features: int, columns: Sequence[int] | None = None, signs: Density | None = None) -> None:
        super().__init__()
        features = check_count(features, "features")
        chosen = as_columns(tuple(range(features) if columns is None else columns), features, "Abs")
        if signs is not None:
            check_part("Abs", "the sign model", signs, len(chosen), features, Measure.COUNTING)
        self.features = self.latent_features = features
        self.signs = signs
        self.register_buffer("columns", torch.tensor(chosen))

    def unreachable(self) -> Tensor:
        sizes = torch.tensor([1e-3, 0.1, 1.0, 10.0], device=self.columns.device).unsqueeze(1)
        return sizes.expand(-1, self.features).index_copy(1, self.columns, -sizes.expand(-1, len(self.columns)))

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        z = x.mapped(self._sizes)
        if self.signs is not None:
            start(self.signs, x.mapped(self._bits), z)
        return z

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self._sizes(x)
        if self.signs is None:
            return z, zeros(x) - len(self.columns) * math.log(2)
        return z, at(self.signs, self._bits(x), z)

    def _sizes(self, x: Tensor) -> Tensor:
        return x.index_copy(-1, self.columns, x[..., self.columns].abs())

    def _bits(self, x: Tensor) -> Tensor:
        return (x[..., self.columns] >= 0).to(x.dtype)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        part = z[..., self.columns]
        if self.signs is None:
            positive = torch.rand(part.shape, generator=generator, dtype=z.dtype, device=z.device) < 0.5
        else:
            positive = drawn(self.signs, z, generator) > 0.5
        return z.index_copy(-1, self.columns, torch.where(positive, part, -part))


class Max(InferenceSurjection):
    r"""The maximum z of each group of consecutive features; generation draws which one it was and what the rest lack.

    .. math:: \log p(x) = \log p(z) + \sum_g \log \pi_{g k_g} + \log p(e|z), \qquad e = z - x_{\text{rest}} \ge 0

    Tight. Generation is stochastic. Lebesgue measure on both sides, of D = groups · size features and of ``groups``.
    The range is all of ℝ. In tensors this is max pooling.

    Args:
        groups: how many.
        size: features in a group, at least 2.
        deficits: density of e ``[*batch, groups · (size − 1)]``, group by group and in the order of the features, with
            context z ``[*batch, groups]`` or none; it must be positive. A learnable half-normal if None.

    Attributes:
        index_logits: unnormalised log π ``[groups, size]``, learnable, uniform at first.

    Raises:
        ValueError: a size is out of range, or the deficits' density does not fit.

    Cost: O(D) and one pass of the deficits' density, either way.

    >>> z, _ = Max(groups=2, size=2).infer(torch.tensor([[1.0, 5.0, 7.0, 3.0]]))
    >>> z.tolist()
    [[[5.0, 7.0]]]
    """

    def __init__(self, groups: int, size: int, deficits: Density | None = None) -> None:
        super().__init__()
        groups = check_count(groups, "groups")
        size = check_count(size, "size")
        if size < 2:
            raise ValueError("Max takes the maximum of groups of at least 2 features; got size=1")
        rest = groups * (size - 1)
        if deficits is not None:
            check_part("Max", "the deficits' density", deficits, rest, groups, Measure.LEBESGUE)
            check_positive_support("Max", "a deficit", deficits)
        self.groups, self.size = groups, size
        self.features, self.latent_features = groups * size, groups
        self.deficits = HalfNormal(rest) if deficits is None else deficits
        self.index_logits = nn.Parameter(torch.zeros(groups, size))

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        z = x.mapped(lambda x: self._split(x)[0])
        start(self.deficits, x.mapped(lambda x: self._split(x)[1]), z)
        return z

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, deficits, index = self._split(x)
        logits = self.index_logits.log_softmax(-1).expand(*index.shape[:-1], self.size)
        return z, logits.gather(-1, index).flatten(-2).sum(-1) + at(self.deficits, deficits, z)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maxima ``[*batch, groups]``, the deficits of the rest, and which feature of each group was largest."""
        grouped = x.unflatten(-1, (self.groups, self.size))
        index = grouped.argmax(-1, keepdim=True)
        z = grouped.gather(-1, index)
        return z.squeeze(-1), (z - grouped.gather(-1, self._others(index))).flatten(-2), index

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        batch = z.shape[:-1]
        gumbel = (
            -torch.empty(*batch, self.groups, self.size, dtype=z.dtype, device=z.device)
            .exponential_(generator=generator)
            .log()
        )
        index = (self.index_logits.detach() + gumbel).argmax(-1, keepdim=True)
        rest = z.unsqueeze(-1) - drawn(self.deficits, z, generator).unflatten(-1, (self.groups, self.size - 1))
        grouped = torch.cat([z.unsqueeze(-1), rest], -1)
        places = torch.cat([index, self._others(index)], -1)
        return grouped.gather(-1, places.argsort(-1)).flatten(-2)

    def _others(self, index: Tensor) -> Tensor:
        """The places ``[*batch, groups, size − 1]`` in a group beside the given one, increasing."""
        places = torch.arange(self.size - 1, device=index.device)
        return places + (places >= index)


class Slice(InferenceSurjection):
    r"""The slice z of some features of x; generation draws the rest given those.

    .. math:: \log p(x) = \log p(z) + \log p(x_{\text{rest}}|z)

    Tight: a factorisation. Generation is stochastic. The measure is that of the density of the rest, on both sides.
    With it a flow models part of the features at each scale (Dinh et al. 2017, section 3.6).

    Args:
        features: D.
        keep: the columns that make z, in that order.
        rest: density of the other columns, in increasing order, with context z or none.

    Raises:
        ValueError: a column is out of range or occurs twice, none is left to drop, or the density does not fit.

    Cost: O(D) and one pass of the density, either way.

    >>> from density.families.gaussian import StandardNormal
    >>> z, log_ratio = Slice(3, [2], StandardNormal(2)).infer(torch.tensor([[0.0, 0.0, 5.0]]))
    >>> z.tolist(), round(log_ratio.item(), 4)  # −log 2π
    ([[[5.0]]], -1.8379)
    """

    kept: Tensor
    dropped: Tensor

    def __init__(self, features: int, keep: Sequence[int], rest: Density) -> None:
        super().__init__()
        features = check_count(features, "features")
        kept = as_columns(tuple(keep), features, "Slice")
        dropped = [column for column in range(features) if column not in kept]
        if not dropped:
            raise ValueError(f"Slice keeps all {features} columns, so there is nothing to drop; use Permutation")
        measure = Measure.LEBESGUE
        if isinstance(rest, Density) and isinstance(rest.measure, Measure):
            measure = rest.measure
        check_part("Slice", "the rest", rest, len(dropped), len(kept), measure)
        self.features, self.latent_features = features, len(kept)
        self.measure = self.latent_measure = measure
        self.rest = rest
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("dropped", torch.tensor(dropped))

    @property
    def support(self) -> Support | None:
        dropped = Step("", None, lambda x: x[..., self.dropped])
        return preimage([dropped, Step(f"the rest, {type(self.rest).__name__},", self.rest.support)])

    def check_support(self, x: Tensor) -> None:
        self.rest.check_support(x[..., self.dropped])

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        z = x.mapped(lambda x: x[..., self.kept])
        start(self.rest, x.mapped(lambda x: x[..., self.dropped]), z)
        return z

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x[..., self.kept]
        return z, at(self.rest, x[..., self.dropped], z)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        together = torch.cat([z, drawn(self.rest, z, generator)], -1)
        return together[..., torch.cat([self.kept, self.dropped]).argsort()]
