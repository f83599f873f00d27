"""Which rows of a data set are for training, for validation and for testing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.data.raw import Numbers
from studies.kit.seeds import derived_seed

Labels = NDArray[np.integer[Any]]

TEST_SHARE = 0.2


def same_rows(rows: Numbers) -> Labels:
    """A number ``[n]`` for every row of a table, the same for equal rows, missing values alike. O(nD log n)."""
    _, first, which = np.unique(np.where(np.isnan(rows), np.inf, rows), axis=0, return_index=True, return_inverse=True)
    found: Labels = first[which.ravel()]
    return found


def split(
    same: Labels, published: tuple[int, int, int] | None, seed: int, together: bool
) -> tuple[Labels, Labels, Labels]:
    """Row numbers for training, validation and testing; equal rows have the same number in ``same``.

    To keep those together, whole groups of them are taken for testing, in the random order of rows, while they fit.
    """
    n = len(same)
    if published is not None:
        first, second, _ = np.cumsum(published)
        rows = np.arange(n)
        return rows[:first], rows[first:second], rows[second:]
    order = np.random.default_rng(derived_seed(seed, "split")).permutation(n)
    held_out = int(n * TEST_SHARE)
    if together and len(np.unique(same)) < n:
        _, first, group = np.unique(same[order], return_index=True, return_inverse=True)
        order = order[np.argsort(first[group.ravel()], kind="stable")]
        ordered = same[order]
        while 0 < held_out < n and ordered[held_out] == ordered[held_out - 1]:
            held_out -= 1
    return order[held_out:], order[:0], order[:held_out]
