"""Choosing and adding up rows without asking a device how many there are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def marked(mask: Tensor, count: int) -> Tensor:
    """The numbers of the true entries ``[m]``, in order, where it is known how many there are: ``[count]``.

    ``mask.nonzero()`` has to ask a device for that, and waits.

    >>> marked(torch.tensor([False, True, True]), 2)
    tensor([1, 2])
    """
    return torch.repeat_interleave(mask.long(), output_size=count)


def count_by(index: Tensor, size: int, number: Tensor | None = None) -> Tensor:
    """How many entries have each index, or the sum of their integers: ``[size]``. O(N)."""
    number = torch.ones_like(index) if number is None else number.long()
    return torch.zeros(size, dtype=torch.long, device=index.device).index_add_(0, index, number)


def log_sum_by(index: Tensor, values: Tensor, size: int) -> Tensor:
    """log Σ exp(values) over the entries of each index: ``[size]``, −inf where there is none. O(N)."""
    top = values.new_full((size,), -math.inf).scatter_reduce_(0, index, values, "amax")
    scaled = (values - top.nan_to_num(neginf=0.0)[index]).exp()
    return top + values.new_zeros(size).index_add_(0, index, scaled).log().nan_to_num(neginf=0.0)
