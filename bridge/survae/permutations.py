"""Layers for data whose features have no order: sort and stochastic permutation."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from bridge.survae.layer import InferenceSurjection, Layer, repeated, zeros
from density.checks import check_count
from density.measure import Measure


class Sort(InferenceSurjection):
    r"""The sort: z = x in increasing order; generation shuffles.

    .. math:: \log p(x) = \log p(z) - \log D!

    Tight, and the model is exchangeable whatever the prior. Generation is stochastic (a uniform permutation). Lebesgue
    measure on both sides; ties have probability 0. The range is the increasing vectors, and the prior, or what comes
    between, must have it: :class:`~bridge.survae.ranges.Spacings`.

    Args:
        features: D.

    Cost: O(D log D) a point.

    >>> z, log_ratio = Sort(3).infer(torch.tensor([[2.0, 3.0, 1.0]]))
    >>> z.tolist(), round(log_ratio.exp().item(), 4)
    ([[[1.0, 2.0, 3.0]]], 0.1667)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = self.latent_features = features

    def unreachable(self) -> Tensor | None:
        if self.features == 1:
            return None
        falling = torch.arange(self.features, 0, -1) / (self.features + 1.0)
        sizes = torch.tensor([1e-3, 0.1, 1.0, 10.0]).unsqueeze(1)
        return torch.cat([sizes * falling, sizes * (falling - 0.5)])  # positive ones too: Abs or Logit may be near

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sort(-1).values, zeros(x) - math.lgamma(self.features + 1)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        return shuffled(z, generator)


class StochasticPermutation(Layer):
    r"""The shuffle: x and z are each a uniform permutation of the other; the log-ratio is 0.

    .. math:: p(x|z) = \tfrac1{D!}\sum_\pi \delta(x - \pi z), \qquad q(z|x) = \tfrac1{D!}\sum_\pi \delta(z - \pi x)

    Stochastic both ways; leaves every measure as it is. Loose: the posterior weighs permutations by the prior, and the
    gap is log mean_π p(πx) − mean_π log p(πx); it is 0 if the prior is exchangeable. The model itself always is.

    Args:
        features: D.
        measure: of x and z.

    Cost: O(D log D) a draw.

    >>> z, log_ratio = StochasticPermutation(3).infer(torch.tensor([1.0, 2.0, 3.0]), draws=100)
    >>> sorted(set(z[:, 0].tolist())), log_ratio.abs().max().item()
    ([1.0, 2.0, 3.0], 0.0)
    """

    def __init__(self, features: int, measure: Measure = Measure.LEBESGUE) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = self.latent_features = features
        self.measure = self.latent_measure = measure

    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z = shuffled(repeated(x, draws), generator)
        return z, zeros(z)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        return shuffled(z, generator)


def shuffled(x: Tensor, generator: Generator | None) -> Tensor:
    """Every row in a uniformly random order of its own."""
    keys = torch.rand(x.shape, generator=generator, dtype=torch.float32, device=x.device)
    return x.gather(-1, keys.argsort(-1))
