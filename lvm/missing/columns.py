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
        raise _no_entry(int(empty.nonzero()[0]), owner)
    count, linear, _ = sums(rows, first.double())
    return first.double() + linear / count


def completed(x: Tensor, owner: str) -> Tensor:
    """Data ``[n, D]`` in which the entries that other rows have in a column stand for its missing ones, in their order.

    So columns keep their values, and all but for chance their mean and spread: data to start from, and no estimate. Of
    m entries and k missing ones, missing number i takes entry ⌊i m / k⌋. O(nD). Complete data is returned as it is.

    Raises:
        ValueError: a column has no entry.

    >>> completed(torch.tensor([[1.0], [torch.nan], [3.0], [torch.nan], [torch.nan]]), "").flatten().tolist()
    [1.0, 1.0, 3.0, 1.0, 3.0]
    """
    missing = x.isnan()
    columns = missing.any(0).nonzero().flatten().tolist()
    filled = x.clone() if columns else x
    for column in columns:
        gaps = missing[:, column]
        entries, count = x[~gaps, column], int(gaps.sum())
        if not len(entries):
            raise _no_entry(column, owner)
        filled[gaps, column] = entries[torch.arange(count, device=x.device) * len(entries) // count]
    return filled


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


def _no_entry(column: int, owner: str) -> ValueError:
    return ValueError(f"{owner}: column {column} has no entry in any row, so it cannot be fitted. Drop it")
