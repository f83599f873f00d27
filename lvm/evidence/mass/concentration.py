"""Bounds on a mean from draws, that hold at a stated confidence for any number of draws and any distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALVINGS = 60


def markov(log_weights: Tensor, chance: float, groups: int, together: int) -> Tensor:
    r"""A lower bound on Σᵢ log E wᵢ, from independent draws of each wᵢ ≥ 0, that fails with at most that chance.

    The draws are put in J groups, with an average w̄ in each. All averages are independent and unbiased, so that their
    product is unbiased for Π (E w)ᴶ, and exceeds it by a factor 1/c with probability at most c (Markov):

    .. math:: P\Big(\tfrac1J \sum_{ij} \log \bar w_{ij} - \tfrac1J \log\tfrac1c > \sum_i \log E w_i\Big) \le c .

    Nothing is assumed of the tails. More groups cost the bias of log w̄, about half the relative variance of a weight
    times J/K a point, and share log 1/c.

    Args:
        log_weights: ``[K, n]``, independent over both axes.
        chance: c.
        groups: J, at most K; to be chosen before the draws. Draws that J does not divide are left out.
        together: the number of i whose sum is bounded; 1 bounds every log E w by itself.

    Returns:
        ``[n]``: for each i the mean over groups of log w̄, less its part of log(1/c) / J. Their sum is the bound.
    """
    size = len(log_weights) // groups
    averages = log_weights[: size * groups].unflatten(0, (size, groups)).logsumexp(0) - math.log(size)
    return averages.mean(0) - math.log(1 / chance) / (groups * together)


def groups_for(draws: int, chance: float, together: int) -> int:
    """The number of groups at which the costs of :func:`markov` are least for weights of relative variance 1.

    >>> groups_for(1000, 0.025, together=1), groups_for(1000, 0.025, together=3000)
    (86, 2)
    """
    return max(1, min(draws, round(math.sqrt(2 * math.log(1 / chance) * draws / together))))


def empirical_bernstein(mean: float, variance: float, largest: float, draws: int, chance: float) -> float:
    r"""An upper bound on E r for 0 ≤ r ≤ M that fails with at most that chance (Maurer & Pontil 2009, theorem 4).

    .. math:: E r \le \bar r + \sqrt{2 V \log(2/c) / N} + 7 M \log(2/c) / (3 (N - 1))

    Args:
        mean, variance: of N ≥ 2 independent draws; the variance divides by N − 1.
        largest: M, known before the draws; it bounds E r as well.
    """
    of_chance = math.log(2 / chance)
    reach = math.sqrt(2 * variance * of_chance / draws) + 7 * largest * of_chance / (3 * (draws - 1))
    return min(mean + reach, largest)


def chernoff(counts: Tensor, draws: int, chance: float) -> Tensor:
    r"""Upper bounds on probabilities of which N draws show these counts, each of which fails with at most that chance.

    .. math:: \sup \{p : N\, KL(h/N \,\|\, p) \le \log 1/c\}

    By Chernoff's bound on a binomial tail (Hoeffding 1963, theorem 1), solved by bisection; about h/N plus
    √(2 h log(1/c)) / N, and 1 − c^{1/N} where nothing was seen.

    Args:
        counts: h, ``[*batch]``.
    """
    share = counts.double() / draws
    low, high = share.clone(), torch.ones_like(share)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        divergence = torch.xlogy(share, share / middle) + torch.xlogy(1 - share, (1 - share) / (1 - middle))
        inside = draws * divergence <= math.log(1 / chance)  # 0/0 at p = 1 is nan, and not inside
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return high
