"""Levels with a probability each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.families.categorical import draw_classes
from density.families.levels.grey import GreyLevels


@dataclass(frozen=True)
class CategoricalLevels(GreyLevels):
    r"""The categorical distribution on the levels 0, …, L−1, P(x = l) = softmax(θ)_l, which knows no order of them.

    L numbers a feature: the logits. Also for a column of class codes. Draws are not reparametrised.

    Attributes:
        levels: L, at least 2.

    Cost: O(L) a feature.

    >>> from density.families.likelihoods.univariate import Independent
    >>> density = Independent(1, CategoricalLevels(4))
    >>> density.log_prob(torch.arange(4.0).unsqueeze(-1)).exp()
    tensor([0.2500, 0.2500, 0.2500, 0.2500], grad_fn=<ExpBackward0>)
    """

    names = "logits of the levels"

    @property
    def numbers(self) -> int:
        return self.levels

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_probs = parameters.log_softmax(-2)
        level = x.detach().long().clamp(0, self.levels - 1).unsqueeze(-2)
        shape = torch.broadcast_shapes(level.shape, (*log_probs.shape[:-2], 1, log_probs.shape[-1]))
        log_probs = log_probs.expand(*shape[:-2], *log_probs.shape[-2:])
        return log_probs.gather(-2, level.expand(shape)).squeeze(-2) + 0 * x  # at nan its value is nan

    def log_prob_at_each(self, x: Tensor, parameters: Tensor) -> Tensor:
        """One product of indicators and log-probabilities."""
        log_probs = parameters.log_softmax(-2).flatten(-2)
        lowest = torch.finfo(log_probs.dtype).min  # in place of −∞, since 0 · ∞ is nan
        codes = torch.arange(self.levels, dtype=x.dtype, device=x.device).unsqueeze(-1)
        level = x.detach().trunc().clamp(0, self.levels - 1).unsqueeze(-2)
        found = (level == codes).to(x.dtype).flatten(-2) @ log_probs.clamp_min(lowest).mT
        found = found.masked_fill(found <= lowest, -torch.inf)
        return found + (0 * x).sum(-1, keepdim=True)  # at nan its value is nan

    def sample(self, n: int, parameters: Tensor, generator: Generator | None) -> Tensor:
        log_probs = parameters.log_softmax(-2).movedim(-2, -1)
        return draw_classes(n, log_probs, generator, type(self).__name__).to(parameters.dtype)

    def mean(self, parameters: Tensor) -> Tensor:
        levels = torch.arange(self.levels, dtype=parameters.dtype, device=parameters.device)
        return torch.linalg.vecdot(parameters.softmax(-2), levels.unsqueeze(-1), dim=-2)

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        log_q = q.log_softmax(-2)
        return (log_q.exp() * (log_q - p.log_softmax(-2))).sum(-2)
