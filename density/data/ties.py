"""The warning of a fit to data on which the likelihood of a continuous density has no maximum."""

from __future__ import annotations

import warnings

from torch import Tensor

from density.contract import Model
from density.data.findings import examine
from density.measure import Measure


class TiedColumns(UserWarning):
    """The data repeats values or rows, or has columns that follow from others: a density can climb without end there.

    To silence it, ``warnings.simplefilter("ignore", density.TiedColumns)``.
    """


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
    found = examine(x if len(columns) == x.shape[1] else x[:, columns])
    if found:
        called = list(map(str, columns)).__getitem__
        warnings.warn(
            f"{type(model).__name__}.fit: the likelihood of a continuous density has no maximum on this data, and may "
            f"climb without end: {found.in_words(called)}. Cure: {'; '.join(found.cures(called))}. Integers can be "
            "modelled as such (bridge.UniformDequantisation). Filter density.TiedColumns to fit all the same",
            TiedColumns,
            stacklevel=depth + 1,
        )
