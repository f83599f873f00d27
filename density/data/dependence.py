"""Columns of data that follow from others: copies but for shift and scale, and linear combinations of several.

On such a table the likelihood of a continuous density has no maximum: it climbs without end where nothing varies.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

MOST_COLUMNS = 256  # of which combinations are looked for: O(nD) a column, and as many as rows say nothing
SPARE_ROWS = 8
NEGLIGIBLE = 1e-6  # a coefficient of a standardised column that has no part in a combination, or what rounding makes


def standardised(columns: Tensor) -> Tensor:
    """Columns ``[*, n]`` in units of their standard deviations; nan where that is 0."""
    return (columns - columns.mean(-1, keepdim=True)) / columns.std(-1, correction=0, keepdim=True)


def copies(columns: Tensor, projections: Tensor, tolerances: Tensor) -> dict[int, int]:
    """Columns that are an earlier one but for shift and scale: of neighbours among projections, those that are."""
    order = [column for column in projections.argsort().tolist() if not math.isnan(projections[column])]
    alike = [[column] for column in order[:1]]
    for pair in pairwise(order):
        tolerance = float(tolerances[list(pair)].sum())
        near = float(projections[list(pair)].diff().abs()) <= tolerance * math.sqrt(columns.shape[1])
        if near and _equal_but_for_sign(columns[list(pair)]):
            alike[-1].append(pair[1])
        else:
            alike.append([pair[1]])
    return dict(sorted((column, min(group)) for group in alike for column in group if column != min(group)))


def _equal_but_for_sign(pair: Tensor) -> bool:
    """Whether two standardised columns are, entry by entry, up to the rounding of each: an outlier has its own."""
    values = pair.double()
    size = values.abs()
    units = (size + size.mean(-1, keepdim=True)) / values.std(-1, correction=0, keepdim=True)
    room = 16 * torch.finfo(pair.dtype).eps * units.sum(0)
    one, other = standardised(values)
    return bool(((one - other).abs() <= room).all() | ((one + other).abs() <= room).all())


def combinations(columns: Tensor, among: list[int]) -> dict[int, tuple[int, ...]]:
    r"""Columns that are linear combinations of earlier ones and a constant, and of which: columns ``[D, n]``.

    The QR factorisation of standardised columns has on its diagonal what is left of each after those before it. Where
    that is within the rounding of the data's dtype, summed with the coefficients of the combination, at every row, the
    column follows from the others. Nothing is looked for among more columns than 256, or than rows less 8.

    Args:
        columns: in the dtype that they were rounded to.
        among: those to look at; constant ones and copies are left out.

    Cost: O(nD) a column, and O(D³) for one that is nearly a combination.
    """
    n = columns.shape[1]
    if not 3 <= len(among) <= min(MOST_COLUMNS, n - SPARE_ROWS):
        return {}
    values = columns[among].double()
    standard = standardised(values)
    scale = values.std(-1, correction=0, keepdim=True)
    # Of every entry, in units of the standard deviations: what rounding the value and the mean may have done to it.
    units = (values.abs() + values.abs().mean(-1, keepdim=True)) / scale
    eps = torch.finfo(columns.dtype).eps
    triangle = torch.linalg.qr(standard.T, mode="r").R
    found: dict[int, tuple[int, ...]] = {}
    kept: list[int] = [0]
    for column in range(1, len(among)):
        left = abs(float(triangle[column, column])) / math.sqrt(n)
        if left > 1e-2:  # far more than rounding ever leaves: spare the solve
            kept.append(column)
            continue
        coefficients = torch.linalg.lstsq(triangle[:, kept], triangle[:, column].unsqueeze(1)).solution.squeeze(1)
        rest = standard[column] - coefficients @ standard[kept]
        room = 4 * eps * (units[column] + coefficients.abs() @ units[kept])
        if bool((rest.abs() <= room).all()):
            parts = (coefficients.abs() > room.mean().clamp_min(NEGLIGIBLE)).nonzero().flatten().tolist()
            found[among[column]] = tuple(among[kept[part]] for part in parts)
        else:
            kept.append(column)
    return found
