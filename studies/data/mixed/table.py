"""Tables of several kinds of columns, for studies whose models take them: values as they are, and a split."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from studies.data.load import FEWEST_ROWS, Dataset
from studies.data.own.file import Selection, own_file, suffix_of
from studies.data.preprocessing import Preprocessing
from studies.data.split import same_rows, split
from studies.kit.errors import InputError


def mixed_table(name: str, seed: int, selection: Selection, *, group_duplicates: bool = False) -> Dataset:
    """One's own file with columns of numbers, counts and categories, a fifth of whose rows are for testing.

    Nothing is standardised: models of such tables do so themselves. Columns of one value are dropped.

    Args:
        selection: what of the file is data; ``mixed``.

    Raises:
        InputError: no such file, too few rows, or a column that cannot be read; the message names it and the remedy.
    """
    if suffix_of(name) is None:
        raise InputError(f"--mixed is for a file of your own; '{name}' is none")
    raw = own_file(Path(name), selection)
    kept = (raw.rows != raw.rows[:1]).any(0)
    rows, kinds = raw.rows[:, kept], tuple(kind for kind, there in zip(raw.kinds, kept, strict=True) if there)
    if len(rows) < FEWEST_ROWS or not kinds:
        raise InputError(
            f"'{name}' has {len(rows)} rows and {len(kinds)} columns that vary; {FEWEST_ROWS} and 1 are needed"
        )
    same = same_rows(rows)
    train, _, test = split(same, None, seed, group_duplicates)
    shared = int(np.isin(same[test], same[train]).sum())
    of_each = [f"{sum(kind.kind == each for kind in kinds)} of {each}s" for each in ("number", "count", "category")]
    notes = [f"columns: {', '.join(of_each)}".replace("categorys", "categories")]
    if not kept.all():
        notes.append(f"constant columns dropped: {', '.join(map(raw.label, np.flatnonzero(~kept).tolist()))}")
    if shared:
        notes.append(f"{shared} of {len(test)} test rows are in the training part too")
    digest = hashlib.sha256(repr((rows.shape, kinds)).encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()
    return Dataset(
        name=raw.name,
        hash=digest,
        unit=raw.unit,
        train=rows[train],
        test=rows[test],
        log_scale=0.0,
        note="; ".join(notes),
        measure="product",
        train_labels=None if raw.labels is None else raw.labels[train],
        test_labels=None if raw.labels is None else raw.labels[test],
        preprocessing=Preprocessing(),
        columns=tuple(kind.label for kind in kinds),
        shared=shared,
        classes=raw.classes,
        source=raw.source,
        kinds=kinds,
    )
