r"""Which points a claim is about, without the points: how many, and a digest of their values in their order.

The digest of rows :math:`r_1 \dots r_n` is the polynomial

.. math:: H = \sum_{i=1}^n h(r_i)\, B^{n-i+1} \bmod 2^{64},

of a hash h of each row, so that that of two data sets, one after the other, follows from theirs:
:math:`H(ab) = H(a) B^{|b|} + H(b)`. It tells apart data sets that differ by accident: other rows, another order, other
units. Two such have the same digest with a probability of about 2⁻⁴⁰. It is no defence against who wants to deceive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SCALARS_AT_ONCE = 2**16  # stay in cache
SCALARS_AT_ONCE_ELSEWHERE = 2**22
MODULUS = 2**64
# 5 modulo 8, so that the powers have the longest period.
BASE, FACTOR, MIXING = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B5, 0xD6E8FEB86659FD95


@dataclass(frozen=True)
class Points:
    """The identity of points ``[n, D]``; two of them are equal when the points are, and in the same order.

    Values are compared as float32: a float64 data set and its float32 version are the same points. −0 is 0, and one nan
    is like another. Contexts are no part of the points.

    Attributes:
        rows: n.
        features: D.
        digest: of the values in their order.

    >>> x = torch.arange(6.0).reshape(3, 2)
    >>> Points.of(x) == Points.of(x.double()), Points.of(x) == Points.of(x.flip(0))
    (True, False)
    >>> Points.concatenate([Points.of(x[:1]), Points.of(x[1:])]) == Points.of(x)
    True
    """

    rows: int
    features: int
    digest: int

    @staticmethod
    def of(x: Tensor) -> Points:
        """The identity of the rows of x ``[n, D]``, on any device. O(nD), in blocks."""
        n, features = x.shape
        scalars = SCALARS_AT_ONCE if x.device.type == "cpu" else SCALARS_AT_ONCE_ELSEWHERE
        block = max(1, scalars // features)
        parts = [Points(len(rows), features, _digest(rows)) for rows in x.detach().split(block)] if n else []
        return Points.concatenate(parts) if parts else Points(0, features, 0)

    @staticmethod
    def concatenate(parts: Sequence[Points]) -> Points:
        """The identity of the points of several data sets, at least one, in this order."""
        digest = 0
        for part in parts:
            digest = (digest * pow(BASE, part.rows, MODULUS) + part.digest) % MODULUS
        return Points(sum(part.rows for part in parts), parts[0].features, digest)

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.features} features"


def _digest(x: Tensor) -> int:
    values = (x.float() + 0.0).contiguous()  # a copy, in which −0 is 0
    if bool(values.sum().isnan()):
        values = values.masked_fill(values.isnan(), math.nan)  # nans have many patterns: one for all
    # Products modulo 2⁶⁴ lose as many bits as a factor has zeros at its end, and floats often have 30: halves have 15.
    halves = values.view(torch.int16).long()
    rows = _folded((halves * _powers(FACTOR, halves)).sum(1)).mul_(_signed(MIXING))
    return int(_folded(rows).mul_(_powers(BASE, rows).flip(0)).sum().item()) % MODULUS


def _folded(words: Tensor) -> Tensor:
    """The low half of every word made to depend on its high half, in place: products carry upwards alone."""
    return words.bitwise_xor_((words >> 32).bitwise_and_(2**32 - 1))


def _powers(base: int, like: Tensor) -> Tensor:
    """The first powers of a base modulo 2⁶⁴, as many as the last dimension of a tensor is long."""
    return torch.full((like.shape[-1],), _signed(base), device=like.device).cumprod(0)


def _signed(number: int) -> int:
    return number - MODULUS if number >= MODULUS // 2 else number
