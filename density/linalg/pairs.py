"""Products of all pairs of M numbers, in an order in which one kernel forms them.

The pair (i, i + s) of every number i and every shift s = 0 … M/2, modulo M: so the products are those of each number
with a window of the numbers written on. That is every pair once, but for those of shift M/2, which come twice where M
is even: M (M + 1)/2 products, or M (M + 2)/2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def count_of_pairs(numbers: int) -> int:
    """How many products there are of so many numbers.

    >>> [count_of_pairs(numbers) for numbers in (2, 3, 4)]
    [4, 6, 12]
    """
    return numbers * (numbers // 2 + 1)


def windows(again: Tensor, numbers: int) -> Tensor:
    """What each number is multiplied with, a view ``[*, M, M/2 + 1, n]``.

    Args:
        again: the numbers, and the first M/2 of them once more, ``[*, M + M/2, n]``.
    """
    return again.unfold(-2, numbers // 2 + 1, 1).mT


def of_form(matrix: Tensor, factor: float = 1.0) -> Tensor:
    """The coefficients of zᵀFz, times a factor, in the products: ``[K, pairs]`` of symmetric F ``[K, M, M]``.

    >>> of_form(torch.tensor([[[1.0, 3.0], [3.0, 2.0]]])).tolist()  # of z₀z₀, z₀z₁, z₁z₁ and z₁z₀
    [[1.0, 3.0, 2.0, 3.0]]
    """
    coefficients = 2 * factor * _shifted(torch.cat([matrix, matrix], 2))
    coefficients[:, :, _doubled(matrix.shape[1])].mul_(0.5)
    return coefficients.flatten(1)


def to_matrix(sums: Tensor, numbers: int) -> Tensor:
    """Σ w z zᵀ ``[K, M, M]``, exactly symmetric, of the sums of all products ``[K, pairs]``.

    >>> to_matrix(torch.tensor([[1.0, 3.0, 2.0, 3.0]]), 2).tolist()
    [[[1.0, 3.0], [3.0, 2.0]]]
    """
    twice = sums.new_zeros(len(sums), numbers, 2 * numbers)
    shifted = _shifted(twice)
    shifted.copy_(sums.unflatten(1, (numbers, -1)))
    shifted[:, :, _doubled(numbers)].mul_(0.5)
    half = twice[:, :, :numbers] + twice[:, :, numbers:]
    return half + half.mT


def _shifted(twice: Tensor) -> Tensor:
    """Of matrices that are there twice, side by side, ``[K, M, 2M]``, the entries (i, i + s): a view ``[K, M, S]``."""
    numbers = twice.shape[1]
    return twice.flatten(1).unfold(1, numbers // 2 + 1, 2 * numbers + 1)


def _doubled(numbers: int) -> slice:
    """The shifts whose entries the sum with the transpose doubles: 0, and M/2 if there is one."""
    return slice(0, None, numbers // 2) if numbers % 2 == 0 else slice(0, 1)
