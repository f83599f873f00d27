"""What a study says of columns on which a density can climb without end, by the names that its user knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from density.data.findings import Findings, examine
from density.data.ties import TiedColumns
from studies.kit.errors import warn
from studies.kit.rows import is_main


@runtime_checkable
class Table(Protocol):
    """Data with columns, as ``studies.data.load`` reads it; pixels have no names of columns."""

    name: str
    train: NDArray[Any]
    test: NDArray[Any]
    shared: int
    divided: bool
    source: str
    preprocessing: Any
    columns: tuple[str, ...]
    kinds: tuple[Any, ...]


@contextmanager
def ties_said(data: object) -> Iterator[None]:
    """Say once for a table what the models that are fitted meanwhile would each say of it."""
    if not isinstance(data, Table) or not _numbers(data):
        yield
        return
    found, numbers = _in_units(data, _examined(data)), _numbers(data)
    if found and is_main():
        cures = _cures(data, found) if not data.kinds else ["--drop leaves columns out"]
        warn(
            f"'{data.name}': a continuous density can be arbitrarily high on this data, and flows and VAEs climb "
            f"there: {found.in_words(lambda column: data.columns[numbers[column]])}. Cure: {'; '.join(cures)}"
        )
    if data.shared and is_main():
        cure = "--group-duplicates keeps equal rows on one side" if data.divided else "The split is as it was given"
        warn(f"'{data.name}': {data.shared} of {len(data.test)} test rows are in the training part too. {cure}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TiedColumns)
        yield


def _examined(data: Table) -> Findings:
    """What the training rows have that miss no value, in the columns that have a density."""
    incomplete = np.isnan(data.train).any(1)
    rows = data.train[~incomplete] if incomplete.any() else data.train
    return examine(torch.from_numpy(rows[:, _numbers(data)] if data.kinds else rows))


def _numbers(data: Table) -> list[int]:
    """The columns that are not counted: all, where a table is of one kind."""
    return [c for c in range(len(data.columns)) if not data.kinds or data.kinds[c].kind == "number"]


def _in_units(data: Table, found: Findings) -> Findings:
    """Values of atoms in the units of the data, as its user knows them: they were found in standardised columns."""
    shift, scale = data.preprocessing.shift, data.preprocessing.scale
    if shift is None or scale is None:
        return found
    atoms = {}
    for column, atom in found.atoms.items():
        value = float(scale[column] * atom.value + shift[column])
        atoms[column] = replace(atom, value=0.0 if abs(value) < 1e-9 * scale[column] else value)
    return replace(found, atoms=atoms)


def findings(data: object) -> Findings | None:
    """What the training rows of a table have on which a density has no maximum; None if nothing, or of pixels."""
    if not isinstance(data, Table) or not _numbers(data):
        return None
    return _examined(data) or None


def _cures(data: Table, found: Findings) -> list[str]:
    """In the words of the command line."""
    names = [data.columns[column].split()[0] for column in range(len(data.columns))]
    numbers = sorted({*found.integers, *found.repeated})
    atoms = [names[column] for column in numbers if column in found.atoms and column in found.repeated]
    levels = [names[column] for column in numbers if names[column] not in atoms]
    chosen = "all" if len(levels) == len(names) else " ".join(levels)
    cures = [f"--dequantise {chosen} adds noise to what repeats"] if levels else []
    if atoms:
        cures.append(
            f"drop what has an atom, or choose a step: --dequantise {' '.join(f'{name}=STEP' for name in atoms)}"
        )
    known = " ".join(names[column] for column in sorted({*found.constant, *found.copies, *found.combinations}))
    which = f"--drop {known} leaves out" if data.source else "drop"
    cures += [f"{which} what is constant, a copy or a combination"] if found.deficient else []
    return cures + (["drop repeated rows"] if found.duplicates else [])
