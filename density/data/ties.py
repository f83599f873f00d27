"""The warning of a fit to data on which the likelihood of a continuous density has no maximum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from density.contract import Model
from density.data.findings import examine
from density.measure import Measure


class TiedColumns(UserWarning):
    """The data repeats values or rows, or has columns that follow from others: a density can climb without end there.

    To silence it, ``warnings.simplefilter("ignore", density.TiedColumns)``.

    >>> import torch
    >>> from density import StandardNormal
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_of_ties(torch.arange(40.0).unsqueeze(1), StandardNormal(1))
    >>> caught[0].category.__name__
    'TiedColumns'
    """


Said = set[tuple[str, int]]
_SAID: ContextVar[Said | None] = ContextVar("said", default=None)


@contextmanager
def said_once(said: Said) -> Iterator[None]:
    """Fits in here, those of a search, warn of a finding once; what was said is put into the set."""
    token = _SAID.set(said)
    try:
        yield
    finally:
        _SAID.reset(token)


def warn_of_ties(x: Tensor, model: Model, *, depth: int = 2) -> None:
    """Warn, for the caller of a model's ``fit``, of columns on which its density can climb without end.

    Columns of another than Lebesgue measure have masses, and nothing to climb.

    Args:
        x: data ``[n, D]``.
        model: that is fitted to it.
        depth: functions between the warning and the caller.
    """
    columns = [c for c, measure in enumerate(model.measure.columns(x.shape[1])) if measure is Measure.LEBESGUE]
    if not columns:
        return
    found, said = examine(x if len(columns) == x.shape[1] else x[:, columns]), _SAID.get()
    parts = {(kind, columns[column] if column >= 0 else column) for kind, column in found.parts}
    if found and (said is None or not parts <= said):
        called = list(map(str, columns)).__getitem__
        warnings.warn(
            f"{type(model).__name__}.fit: the likelihood of a continuous density has no maximum on this data, and may "
            f"climb without end: {found.in_words(called)}. Cure: {'; '.join(found.cures(called))}. Integers can be "
            "modelled as such (bridge.UniformDequantisation). Filter density.TiedColumns to fit all the same",
            TiedColumns,
            stacklevel=depth + 1,
        )
        if said is not None:
            said |= parts
