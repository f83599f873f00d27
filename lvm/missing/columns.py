"""Columns of incomplete data: sums over the entries that they have, and a row of which some are given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex

import torch
from torch import Tensor

from density.checks import check_columns, check_data
from density.data.rows import Rows
from density.parallel import processes

ROWS_AT_ONCE = 2**13


def means(rows: Rows, owner: str) -> Tensor:
    """Mean ``[D]`` of the entries of every column, weighted if the rows are, in float64.

    Two passes over the data: a first entry, and the mean about it, so that the mean of a constant column is exact.

    Raises:
        ValueError: a column has no entry.
    """
    first = rows.like.new_full(rows.like.shape[1:], torch.nan)
    for chunk in rows.chunks():
        place = (~chunk.isnan()).byte().argmax(0, keepdim=True)
        first = torch.where(first.isnan(), chunk.gather(0, place).squeeze(0), first)
    empty = first.isnan()
    if bool(empty.any()):
        raise ValueError(
            f"{owner}: column {int(empty.nonzero()[0])} has no entry in any row, so it cannot be fitted. Drop it"
        )
    count, linear, _ = sums(rows, first.double())
    return first.double() + linear / count


def sums(rows: Rows, origin: Tensor) -> Tensor:
    """Count, sum and sum of squares of the entries about an origin ``[D]``, over all processes: ``[3, D]``."""
    total = origin.new_zeros(3, origin.shape[0])
    for x, weights in rows:
        for start in range(0, x.shape[0], ROWS_AT_ONCE):
            part = x[start : start + ROWS_AT_ONCE].double()
            w = part.new_ones(part.shape[0]) if weights is None else weights[start : start + ROWS_AT_ONCE].double()
            observed = ~part.isnan()
            centred = torch.where(observed, part - origin, 0.0)
            total += torch.stack([w @ observed.double(), w @ centred, w @ centred.square()])
    return processes.total(total)


def given_row(columns: Iterable[SupportsIndex], values: Tensor, features: int, owner: str, reference: Tensor) -> Tensor:
    """A row ``[D]`` of nan but for the values ``[|o|]`` of some columns, not all.

    Raises:
        TypeError, ValueError: columns or values are none, or do not fit each other or the reference's dtype.
    """
    chosen = check_columns(columns, features, owner, proper=True)
    check_data(values.unsqueeze(0), len(chosen), f"{owner}, as values,", reference=reference)
    row = reference.new_full((features,), torch.nan)
    row[chosen] = values
    return row
