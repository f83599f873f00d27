"""Columns of a table by their kinds: numbers, counts and categories, as models of such tables take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studies.data.own.sheet import Sheet, Words, missing
from studies.data.raw import Array, Column
from studies.kit.errors import InputError

MOST_LEVELS = 256
LEVELS = 0.5  # of the rows: more different words than that are no categories
NOTHING = "(missing)"


def coded(sheet: Sheet, chosen: Sequence[int], numbers: Sequence[str] = ()) -> tuple[Array, tuple[Column, ...]]:
    """The values of some columns ``[n, …]``, categories as codes, missing numbers nan; and what each of them holds.

    Words are categories, where a missing one is a category of its own, and so are columns of two different numbers;
    whole numbers from 0 up are counts; others are numbers. The levels are those of the whole table, so that rows to
    test on may have one that rows to fit do not.

    Args:
        numbers: columns of whole numbers that are to be numbers, by name or by number from 1.

    Raises:
        InputError: a column has too many different words for categories, or a number is not finite.
    """
    wanted = {sheet.column(name) for name in numbers}
    if strange := [column for column in wanted if column in sheet.words]:
        raise InputError(f"'{sheet.path}': --numbers names column {sheet.header.label(strange[0])}, which holds words")
    found = [_column(sheet, column, column in wanted) for column in chosen]
    return np.stack([values for values, _ in found], 1), tuple(column for _, column in found)


def _column(sheet: Sheet, column: int, as_number: bool) -> tuple[Array, Column]:
    label = sheet.header.label(column)
    if column in sheet.words:
        return _categories(sheet, column, sheet.words[column])
    values = sheet.data([column])[:, 0]
    known = values[~np.isnan(values)]
    if as_number:
        return values, Column(label, "number")
    different = np.unique(known)
    if len(different) <= 2:
        codes = np.where(np.isnan(values), np.nan, np.searchsorted(different, values))
        return codes, Column(label, "category", tuple(f"{value:g}" for value in different))
    whole = bool((known >= 0).all() and (known == np.round(known)).all())
    return values, Column(label, "count" if whole else "number")


def _categories(sheet: Sheet, column: int, words: Words) -> tuple[Array, Column]:
    cells = np.where(missing(words), NOTHING, np.char.strip(words))
    levels, codes = np.unique(cells, return_inverse=True)
    if len(levels) > min(MOST_LEVELS, max(2, LEVELS * len(cells))):
        short = sheet.header.short(column)
        raise InputError(
            f"'{sheet.path}', column {sheet.header.label(column)}: {len(levels)} different words in {len(cells)} rows "
            f"are no categories. --drop {short} leaves the column out"
        )
    return codes.ravel().astype(np.float64), Column(sheet.header.label(column), "category", tuple(map(str, levels)))
