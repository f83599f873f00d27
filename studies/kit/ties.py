"""What a study says of columns on which a density can climb without end, by the names that its user knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray

from density.data.ties import TiedColumns, ties
from studies.kit.errors import warn
from studies.kit.rows import is_main


@runtime_checkable
class Table(Protocol):
    """Data with columns, as ``studies.data.load`` reads it; pixels have no names of columns."""

    name: str
    train: NDArray[Any]
    columns: tuple[str, ...]


@contextmanager
def ties_said(data: object) -> Iterator[None]:
    """Say once for a table what the models that are fitted meanwhile would each say of it."""
    if not isinstance(data, Table) or not data.columns:
        yield
        return
    found = ties(torch.from_numpy(data.train))
    if found and is_main():
        numbers = [data.columns[column].split()[0] for column in sorted({*found.integers, *found.repeated})]
        chosen = "all" if len(numbers) == len(data.columns) else " ".join(numbers)
        cures = [f"--dequantise {chosen} adds noise to what repeats"] if numbers else []
        cures += ["drop what is constant or a copy"] if found.constant or found.copies else []
        warn(
            f"'{data.name}': a continuous density can be arbitrarily high on this data, and flows and VAEs climb "
            f"there: {found.in_words(lambda column: data.columns[column])}. Cure: {'; '.join(cures)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TiedColumns)
        yield
