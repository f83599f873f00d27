"""Generative surjections with a continuous fibre: augmentation and rectifier (Nielsen et al. 2020, appendix A)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from bridge.survae.layer import GenerativeSurjection, check_part, drawn_with_log_prob, repeated, start
from bridge.survae.ranges import NOT_NEGATIVE, HalfNormal
from density.checks import check_count
from density.contract import Density
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure
from density.support import Region


class Augmentation(GenerativeSurjection):
    r"""The augmentation z = [x, a] with a ~ q(a|x); generation drops a (Huang et al. 2020; Chen et al. 2020).

    .. math:: \log p(x) = \log\int p(x, a)\,da \ge E_q[\log p(z) - \log q(a|x)]

    Inference is stochastic, so it is loose: the gap is KL(q(a|x) ‖ p(a|x)), 0 if q is that conditional of the prior.
    Lebesgue measure on both sides, of D and of D + A features: the added volume is q's.

    Args:
        features: D.
        extra: any density q of a ``[*batch, A]``, with context x ``[*batch, D]`` or none.

    Raises:
        ValueError: the density does not fit.

    Cost: one pass of q for all draws; generation is free.

    >>> from density.families.gaussian import StandardNormal
    >>> link = Augmentation(1, StandardNormal(2))
    >>> link.infer(torch.tensor([[7.0]]), draws=4)[0].shape
    torch.Size([4, 1, 3])
    """

    def __init__(self, features: int, extra: Density) -> None:
        super().__init__()
        features = check_count(features, "features")
        if not isinstance(extra, Density):
            raise TypeError(f"Augmentation: the extra part must be a Density; got {type(extra).__name__}")
        check_part("Augmentation", "the extra part", extra, extra.features, features, Measure.LEBESGUE)
        self.features, self.latent_features = features, features + extra.features
        self.extra = extra

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        start(self.extra, UNKNOWN, x)
        return super()._initialise(x, context, generator)

    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        a, log_q = drawn_with_log_prob(self.extra, x, draws, generator)
        return torch.cat([repeated(x, draws), a], -1), -log_q

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        return z[..., : self.features]


class ReLU(GenerativeSurjection):
    r"""The rectifier x = max(z, 0): data that cannot go below 0, as censored measurements (Tobin 1958) and rainfall.

    .. math:: z_j = x_j \text{ where } x_j > 0, \qquad -z_j \sim q_j(\cdot|x) \text{ where } x_j = 0,
              \qquad \text{log-ratio} = -\sum_{x_j = 0} \log q_j(-z_j|x)

    Inference is stochastic, so it is loose; the gap is KL(q ‖ p(z_zero | z_zero < 0, z_rest = x)). The measure changes:
    z has a Lebesgue density, x one with respect to Lebesgue measure plus an atom at 0, in each feature.

    Args:
        features: D.
        deficits: q, half-normals of −z_j ``[D]`` with context x ``[*batch, D]`` or none, learnable; unconditional if
            None.

    Raises:
        ValueError: the half-normal does not fit; or data x < 0, where it enters. Inside, its log-ratio is −∞.

    Cost: O(D) and one pass of the half-normal's network for all draws.

    >>> ReLU(2).generate(torch.tensor([[-1.0, 2.0]]))
    tensor([[0., 2.]])
    """

    measure = Measure.RECTIFIED

    def __init__(self, features: int, deficits: HalfNormal | None = None) -> None:
        super().__init__()
        features = check_count(features, "features")
        if deficits is not None and not isinstance(deficits, HalfNormal):
            raise TypeError(f"ReLU: the deficits' density must be a HalfNormal; got {type(deficits).__name__}")
        self.features = self.latent_features = features
        self.deficits = HalfNormal(features) if deficits is None else deficits
        check_part("ReLU", "the deficits' density", self.deficits, features, features, Measure.LEBESGUE)

    @property
    def support(self) -> Region:
        return NOT_NEGATIVE

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        start(self.deficits, x.mapped(_as_large), x)
        return super()._initialise(x, context, generator)

    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        context = x if self.deficits.context_features else None
        deficits, _ = drawn_with_log_prob(self.deficits, x, draws, generator)
        each = self.deficits.log_prob_each(deficits, context)
        zero = x == 0
        log_ratio = -torch.where(zero, each, torch.zeros_like(each)).sum(-1)
        return torch.where(zero, -deficits, x), self.support.vanishing(x, log_ratio)

    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor:
        return z.clamp_min(0)


def _as_large(x: Tensor) -> Tensor:
    """Values as large as the positive ones of their column, for those that are 0 and nobody sees."""
    positive = x > 0
    square = x.square().sum(0) / positive.sum(0).clamp_min(1)
    return torch.where(positive, x, square.sqrt())
