"""Pareto tails of importance weights: when can an average of them be trusted, and how can it be steadied?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from density.checks import check_count

TAIL_SCALARS_AT_ONCE = 2**22
LEAST_TAIL = 5  # draws that a tail is fitted to
TIES = 16  # rounding errors between sums that are equal but for these; 7 were seen in models with exact posteriors


def tail_length(draws: int) -> int:
    """The number of the K weights that make the tail: min(K/5, 3√K) (Vehtari et al. 2024, section 2.4).

    >>> tail_length(100), tail_length(10_000)
    (20, 300)
    """
    return int(min(draws / 5, 3 * math.sqrt(draws)))


def reliability_threshold(draws: int) -> float:
    """k̂ up to which K draws make a reliable average: min(1 − 1/log₁₀ K, 0.7) (Vehtari et al. 2024, section 3.2.4).

    >>> round(reliability_threshold(100), 4), reliability_threshold(10_000)
    (0.5, 0.7)
    """
    return min(1 - 1 / math.log10(draws), 0.7) if draws > 1 else -math.inf


def pareto_k(log_weights: Tensor, *, dtype: torch.dtype | None = None, terms: int = 1) -> Tensor:
    r"""Shape k̂ of a generalised Pareto distribution fitted to the largest weights of each point.

    The weights have finite moments up to order 1/k: k < ½ means a finite variance, k ≥ 1 no mean. For a target N(0, 1)
    and a proposal N(0, s²), k = 1 − s². Fit by the quasi-Bayesian estimate of Zhang & Stephens (2009), shrunk weakly
    towards ½ (Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72)).

    By Hoeffding's lemma log-mean-exp exceeds the mean by at most R²/8 for log-weights that span R. Where that is less
    than the rounding of log-weights (:func:`resolution`), the average does not depend on their tail, and what a fit
    would see is rounding: k̂ is −inf. Where a quarter of the tail has the weight that it starts from, only draws beyond
    it are fitted; if the largest weight is then one of at least five, it is a bound and not a tail: −inf again.

    Args:
        log_weights: ``[draws, *batch]``; constants do not matter.
        dtype: in which they were computed; theirs if None.
        terms: how many log-densities of one feature were summed into each.

    Returns:
        Shape ``[*batch]``, float64; −inf where there is no tail, inf where nothing can be said: one draw, fewer than
        five draws in the tail (as for K < 25) or beyond what ties with its start, or weights that are all zero.
        O(K log K) a point.

    >>> x = 0.9**0.5 * torch.randn(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> log_weights = -x.square() / 2 + x.square() / 1.8  # target N(0, 1), proposal N(0, 0.9): k = 0.1
    >>> bool((pareto_k(log_weights) - 0.1).abs() < 0.05)
    True
    """
    return _Tail.of(log_weights, dtype, terms).k.reshape(log_weights.shape[1:])


def smoothed(log_weights: Tensor, *, dtype: torch.dtype | None = None, terms: int = 1) -> Tensor:
    """Log-weights ``[draws, *batch]`` with the largest ones replaced by quantiles of their fitted Pareto distribution.

    The tail takes the expected order statistics, at most the largest raw weight (Vehtari et al. 2024, algorithm 1);
    where k̂ is infinite there is none, and the weights stay as they are. Averages of smoothed weights have less
    variance, and a bias: they are estimates, not bounds. Arguments as for :func:`pareto_k`; the result is in float64.

    >>> log_weights = torch.distributions.Exponential(2.0).sample((1000,))  # weights of a Pareto tail, k = ½
    >>> (smoothed(log_weights).max() <= log_weights.max() + 1e-6).item()
    True
    """
    tail = _Tail.of(log_weights, dtype, terms)
    flat = log_weights.detach().double().reshape(log_weights.shape[0], -1)
    return flat.scatter(0, tail.index, tail.quantiles()).reshape(log_weights.shape)


def resolution(largest: Tensor, dtype: torch.dtype, terms: int) -> Tensor:
    r"""Size of the rounding errors in log-weights about as large as these, computed in a dtype, nats.

    A log-weight is a sum of log-densities. Each of them, one a feature, takes about ½ r² + ½ log 2π ≈ 3/2 off a
    normaliser −log σ, and the two may cancel: what is summed has size |log w| + 3 · terms, of which every addition
    rounds a share ε, the machine epsilon.
    """
    return torch.finfo(dtype).eps * (largest.abs() + 3 * terms)


@dataclass(frozen=True, eq=False)
class _Tail:
    """The largest of the weights ``[K, n]``, in units of the largest one, and the Pareto distribution fitted to them.

    ``values`` are log-weights and ``index`` their draws, ``[M, n]``, descending, of which the first ``count`` were
    fitted; the rest is ``[n]``.
    """

    values: Tensor
    index: Tensor
    cutoff: Tensor
    count: Tensor
    k: Tensor
    scale: Tensor

    @staticmethod
    def of(log_weights: Tensor, dtype: torch.dtype | None, terms: int) -> _Tail:
        draws = log_weights.shape[0]
        draws = check_count(draws, "draws")
        flat = log_weights.detach().double().reshape(draws, -1)
        size = tail_length(draws)
        top = flat.topk(min(size + 1, draws), 0)
        values, index = top.values[:size], top.indices[:size]
        smallest, largest, start = flat.amin(0), top.values[0], top.values[-1]
        rounding = resolution(largest, log_weights.dtype if dtype is None else dtype, terms)
        k, scale = torch.full_like(largest, math.inf), torch.full_like(largest, math.nan)
        shift = largest.nan_to_num(neginf=0.0)
        cutoff = (start - shift).exp()
        count = torch.full_like(largest, size, dtype=torch.int64)
        if size >= LEAST_TAIL:
            excess = ((values - shift).exp() - cutoff).where(values - start > TIES * rounding, 0.0).flip(0)
            tied = excess[_quartile(size)] == 0
            count = torch.where(tied, (excess > 0).sum(0), count)
            points = max(1, TAIL_SCALARS_AT_ONCE // (size * _grid(size)))
            for begin in range(0, excess.shape[1], points):
                here = slice(begin, begin + points)
                k[here], scale[here] = _generalised_pareto(excess[:, here], count[here])
            bounded = tied & (largest - values[LEAST_TAIL - 1] <= TIES * rounding)
            k = k.masked_fill(count < LEAST_TAIL, math.inf).masked_fill(bounded, -math.inf)
        if draws > 1:
            k = k.masked_fill((largest - smallest).square() <= 8 * rounding, -math.inf)  # Hoeffding's lemma
        k = k.masked_fill(largest.isneginf(), math.inf)
        return _Tail(values, index, cutoff, count, k, scale)

    def quantiles(self) -> Tensor:
        """The tail's expected order statistics as log-weights ``[M, n]``, descending; where nothing fits, the tail."""
        size = self.values.shape[0]
        usable = self.k.isfinite() & (self.scale > 0)
        if size < LEAST_TAIL or not bool(usable.any()):
            return self.values
        k = torch.where(usable, self.k, torch.ones_like(self.k))
        scale = torch.where(usable, self.scale, torch.ones_like(self.scale))
        above = self.count - torch.arange(size, dtype=k.dtype, device=k.device).unsqueeze(1)
        log_survival = torch.log1p(-(above - 0.5).clamp_min(0) / self.count.clamp_min(1))
        quantile = torch.where(k.abs() < 1e-12, -log_survival, torch.expm1(-k * log_survival) / k)
        fitted = (self.cutoff + scale * quantile).clamp_max(1.0).log() + self.values[0]
        return torch.where(usable & (above > 0), fitted, self.values)


def _generalised_pareto(excess: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale of the last ``count`` of the excesses ``[M, n]``, sorted ascending, of which the others are zero.

    Zhang & Stephens (2009), section 4: the likelihood is profiled in b = −k/scale on a grid around quartile and
    maximum; the estimate of b is its mean under the likelihood. Without spread the result means nothing.
    """
    size = excess.shape[0]
    tiny = torch.finfo(excess.dtype).tiny
    first = size - count + (count / 4 + 0.5).long() - 1
    quartile = excess.gather(0, first.clamp(0, size - 1).unsqueeze(0)).squeeze(0).clamp_min(tiny)
    largest = excess[-1].clamp_min(tiny)
    steps = torch.arange(1, _grid(size) + 1, dtype=excess.dtype, device=excess.device).unsqueeze(1)
    b = (1 - (_grid(size) / (steps - 0.5)).sqrt()) / (3 * quartile) + 1 / largest  # [grid, n]
    total = torch.log1p(-b.unsqueeze(1) * excess).sum(1)  # [grid, n]; zeros add nothing
    k = total / count
    log_likelihood = count * ((-b / k).log() - k - 1)
    share = log_likelihood.nan_to_num(nan=-math.inf).softmax(0)
    best = (share * b).sum(0)
    k = torch.log1p(-best * excess).sum(0) / count
    scale = -k / best
    return (count * k + 5) / (count + 10), scale


def _quartile(size: int) -> int:
    return int(size / 4 + 0.5) - 1


def _grid(size: int) -> int:
    return 30 + int(math.sqrt(size))
