"""Pareto tails of importance weights: when can an average of them be trusted, and how can it be steadied?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from density.checks import check_count

TAIL_SCALARS_AT_ONCE = 2**22


def tail_length(draws: int) -> int:
    """The number of the K weights that make the tail: min(K/5, 3√K) (Vehtari et al. 2024, section 2.4)."""
    return int(min(draws / 5, 3 * math.sqrt(draws)))


def reliability_threshold(draws: int) -> float:
    """k̂ up to which K draws make a reliable average: min(1 − 1/log₁₀ K, 0.7) (Vehtari et al. 2024, section 3.2.4)."""
    return min(1 - 1 / math.log10(draws), 0.7) if draws > 1 else -math.inf


def pareto_k(log_weights: Tensor) -> Tensor:
    r"""Shape k̂ of a generalised Pareto distribution fitted to the largest weights of each point.

    The weights have finite moments up to order 1/k: k < ½ means a finite variance, k ≥ 1 no mean. For a target N(0, 1)
    and a proposal N(0, s²), k = 1 − s². Fit by the quasi-Bayesian estimate of Zhang & Stephens (2009), shrunk weakly
    towards ½ (Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72)).

    Args:
        log_weights: ``[draws, *batch]``; constants do not matter.

    Returns:
        Shape ``[*batch]``, float64; −inf where all weights are equal, inf where nothing can be said: where fewer than
        five draws are in the tail (K < 25), or all weights are zero. O(K log K) a point.

    >>> x = 0.9**0.5 * torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> log_weights = -x.square() / 2 + x.square() / 1.8  # target N(0, 1), proposal N(0, 0.9): k = 0.1
    >>> bool((pareto_k(log_weights) - 0.1).abs() < 0.05)
    True
    """
    flat = log_weights.detach().double().reshape(log_weights.shape[0], -1)
    return _Tail.of(flat).k.reshape(log_weights.shape[1:])


def smoothed(log_weights: Tensor) -> Tensor:
    """Log-weights ``[draws, *batch]`` with the largest ones replaced by quantiles of their fitted Pareto distribution.

    The tail takes the expected order statistics, at most the largest raw weight (Vehtari et al. 2024, algorithm 1).
    Averages of smoothed weights have less variance, and a bias: they are estimates, not bounds.
    """
    flat = log_weights.detach().double().reshape(log_weights.shape[0], -1)
    tail = _Tail.of(flat)
    return flat.scatter(0, tail.index, tail.quantiles()).reshape(log_weights.shape)


@dataclass(frozen=True, eq=False)
class _Tail:
    """The largest of the weights ``[K, n]``, in units of the largest one, and the Pareto distribution fitted to them.

    ``values`` are log-weights and ``index`` their draws, ``[M, n]``, descending; the rest is ``[n]``.
    """

    values: Tensor
    index: Tensor
    cutoff: Tensor
    k: Tensor
    scale: Tensor

    @staticmethod
    def of(log_weights: Tensor) -> _Tail:
        draws = log_weights.shape[0]
        draws = check_count(draws, "draws")
        size = tail_length(draws)
        top = log_weights.topk(min(size + 1, draws), 0)
        values, index = top.values[:size], top.indices[:size]
        largest, cutoff = top.values[0], top.values[-1]
        k, scale = torch.full_like(largest, math.inf), torch.full_like(largest, math.nan)
        if size >= 5:
            shift = largest.nan_to_num(neginf=0.0)
            cutoff = (cutoff - shift).exp()
            excess = (values.flip(0) - shift).exp() - cutoff
            points = max(1, TAIL_SCALARS_AT_ONCE // (size * (30 + int(math.sqrt(size)))))
            for start in range(0, excess.shape[1], points):
                here = slice(start, start + points)
                k[here], scale[here] = _generalised_pareto(excess[:, here])
        k = torch.where(log_weights.amin(0) == largest, torch.full_like(k, -math.inf), k)
        k = torch.where(largest.isneginf(), torch.full_like(k, math.inf), k)
        return _Tail(values, index, cutoff, k, scale)

    def quantiles(self) -> Tensor:
        """The tail's expected order statistics as log-weights ``[M, n]``, descending; where nothing fits, the tail."""
        size = self.values.shape[0]
        usable = self.k.isfinite() & (self.scale > 0)
        if size < 5 or not bool(usable.any()):
            return self.values
        k = torch.where(usable, self.k, torch.ones_like(self.k))
        scale = torch.where(usable, self.scale, torch.ones_like(self.scale))
        place = (torch.arange(size, 0, -1, dtype=k.dtype, device=k.device) - 0.5).unsqueeze(1) / size
        log_survival = torch.log1p(-place)
        quantile = torch.where(k.abs() < 1e-12, -log_survival, torch.expm1(-k * log_survival) / k)
        fitted = (self.cutoff + scale * quantile).clamp_max(1.0).log() + self.values[0]
        return torch.where(usable, fitted, self.values)


def _generalised_pareto(excess: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of the excesses ``[M, n]``, sorted ascending, of n samples: Zhang & Stephens (2009), section 4.

    The likelihood is profiled in b = −k/scale on a grid around quartile and maximum; the estimate of b is its mean
    under the likelihood. Weights that hold the largest value many times (k → −∞) count as no tail.
    """
    size = excess.shape[0]
    grid = 30 + int(math.sqrt(size))
    quartile = excess[int(size / 4 + 0.5) - 1].clamp_min(torch.finfo(excess.dtype).tiny)
    largest = excess[-1].clamp_min(torch.finfo(excess.dtype).tiny)
    steps = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device).unsqueeze(1)
    b = (1 - (grid / (steps - 0.5)).sqrt()) / (3 * quartile) + 1 / largest  # [grid, n]
    k = torch.log1p(-b.unsqueeze(1) * excess).mean(1)  # [grid, n]
    log_likelihood = size * ((-b / k).log() - k - 1)
    share = log_likelihood.nan_to_num(nan=-math.inf).softmax(0)
    best = (share * b).sum(0)
    k = torch.log1p(-best * excess).mean(0)
    scale = -k / best
    return (size * k + 5) / (size + 10), scale
