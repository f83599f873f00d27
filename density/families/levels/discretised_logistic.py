"""Logistic distributions, and mixtures of them, rounded to grey levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from density.checks import settle_counts
from density.families.categorical import draw_classes
from density.families.levels.grey import GreyLevels
from density.families.noise import uniform_noise


@dataclass(frozen=True)
class DiscretisedLogistic(GreyLevels):
    r"""A logistic distribution rounded to the levels 0, …, L−1, or a mixture of K such (Salimans et al. 2017).

    Level x lies at 2x/(L−1) − 1, in [−1, 1], and has the mass between its edges e_x = (2x − L)/(L−1) and e_{x+1},

    .. math:: P(x) = \sum_k π_k\,[σ((e_{x+1} - μ_k)/s_k) - σ((e_x - μ_k)/s_k)],

    and the two end levels also have all that lies beyond them. Numbers of a feature: log π unnormalised, then μ, then
    log s, bounded to ±7; for K = 1, μ and log s. At the start s is near 1, so that no level is far out, and the μ_k are
    evenly spread over [−1, 1]. Draws are not reparametrised.

    The logarithm of a mass has no cancellation, log σ(b) + log σ(−a) + log(1 − e^{a−b}), and so keeps its digits far
    out in the tails.

    Attributes:
        levels: L, at least 2.
        mixtures: K.

    Cost: O(K) a feature; the mean O(KL).

    >>> from density.families.likelihoods.univariate import Independent
    >>> density = Independent(1, DiscretisedLogistic(levels=5, mixtures=2))
    >>> density.log_prob(torch.arange(5.0).unsqueeze(-1)).exp().sum()
    tensor(1.0000, grad_fn=<SumBackward0>)
    """

    mixtures: int = 1
    names = "logits of the components if there are several, then locations, then log-scales"

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_counts(self, "mixtures", prefix=f"{type(self).__name__}: ")

    @property
    def numbers(self) -> int:
        return 2 if self.mixtures == 1 else 3 * self.mixtures

    @property
    def log_scales(self) -> int:
        return self.mixtures

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_weights, location, scale = self._components(parameters)
        x = x.unsqueeze(-2)
        below = functional.logsigmoid((self._edge(x + 1) - location) / scale)
        above = functional.logsigmoid((location - self._edge(x)) / scale)
        between = (-torch.expm1(-2 / ((self.levels - 1) * scale))).log()
        lowest, highest = x <= 0, x >= self.levels - 1
        log_mass = below.masked_fill(highest, 0.0) + above.masked_fill(lowest, 0.0)
        log_mass = log_mass + torch.where(lowest | highest, torch.zeros_like(between), between)
        return log_mass.squeeze(-2) if log_weights is None else (log_weights + log_mass).logsumexp(-2)

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        log_weights, location, scale = self._components(parameters.detach())
        if log_weights is None:
            location, scale = location.squeeze(-2), scale.squeeze(-2)
        else:
            chosen = draw_classes(n, log_weights.movedim(-2, -1), generator, type(self).__name__).unsqueeze(-2)
            location, scale = (t.expand(n, *t.shape).gather(-2, chosen).squeeze(-2) for t in (location, scale))
        noise = uniform_noise(n, parameters[..., 0, :], generator)
        point = location + scale * torch.logit(noise)
        return ((point + 1) * ((self.levels - 1) / 2)).round().clamp(0, self.levels - 1)

    def mean(self, parameters: Tensor) -> Tensor:
        """Σ_x x P(x) = Σ_{x ≥ 1} P(at least x), whose terms are one sigmoid each."""
        log_weights, location, scale = self._components(parameters)
        means = torch.zeros_like(location)
        for edge in self._edge(torch.arange(1, self.levels, dtype=location.dtype, device=location.device)):
            means = means + ((location - edge) / scale).sigmoid()
        return means.squeeze(-2) if log_weights is None else (log_weights.exp() * means).sum(-2)

    def _components(self, parameters: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """log π ``[*batch, K, D]``, None for K = 1, μ and s ``[*batch, K, D]``."""
        count = self.mixtures
        location, scale = parameters[..., -2 * count : -count, :], parameters[..., -count:, :].exp()
        if count == 1:
            return None, location, scale
        spread = (2 * torch.arange(count, dtype=location.dtype, device=location.device) + 1) / count - 1
        return parameters[..., :count, :].log_softmax(-2), location + spread.unsqueeze(-1), scale

    def _edge(self, level: Tensor) -> Tensor:
        """The lower edge of a level; that of the next one is its upper edge, bit by bit."""
        return (2 * level - self.levels) / (self.levels - 1)
