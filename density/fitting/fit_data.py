"""What a gradient fit is given: points, contexts, weights, and rows to hold out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Generator, Tensor, nn

from density.checks import check_context, check_data, check_points
from density.data.chunks import Array, Chunks, Source, mapped
from density.data.rows import weighed
from density.fitting.ascent import maximise
from density.fitting.batches import Batch, Objective, Stepwise
from density.fitting.stream import Stream
from density.fitting.training import Training
from density.history import History

Rows = Tensor | Array


@dataclass(frozen=True, eq=False)
class FitData:
    """The checked data of a gradient fit.

    Arrays, memory maps among them, become tensors that share their memory. What comes in chunks becomes a
    :class:`~density.fitting.stream.Stream`.

    Attributes:
        data: points ``[n, D]``, and contexts ``[n, C]`` if there are; or points in chunks.
        weights: ``[n]``, positive; None for equal ones.
        validation: the same of rows to hold out; None for a share of the data.
    """

    data: Batch | Stream
    weights: Tensor | None
    validation: Batch | None

    @staticmethod
    def to(
        model: nn.Module,
        features: int,
        x: Source | Chunks,
        context: Rows | None = None,
        *,
        context_features: int = 0,
        weights: Tensor | None = None,
        validation: Rows | tuple[Rows, Rows] | None = None,
    ) -> FitData:
        """The data given to the fit of a model of so many features.

        Raises:
            TypeError, ValueError: the data is not what the model takes, or not finite; the weights are negative or all
                0, or not as many as the rows.
        """
        name = type(model).__name__
        data, held_out = _taken(x, context, features, context_features, weights, name), None
        first = data.sample if isinstance(data, Stream) else data[0]
        if validation is not None:
            rows, contexts = validation if isinstance(validation, tuple) else (validation, None)
            held_out = _checked(rows, contexts, features, context_features, f"{name}, as validation,", first)
        if isinstance(data, Stream):
            return FitData(data, None, held_out)
        if weights is not None:
            data, weights = weighed(data, weights, name)
        return FitData(data, weights, held_out)

    @property
    def x(self) -> Tensor:
        """The points, or of a stream some of them, evenly spaced."""
        return self.data.sample if isinstance(self.data, Stream) else self.data[0]

    @property
    def starts(self) -> Batch:
        """Points and contexts that a model may start from."""
        return (self.x,) if isinstance(self.data, Stream) else self.data

    @property
    def points(self) -> list[Tensor]:
        """The points, and those to hold out."""
        return [self.x] if self.validation is None else [self.x, self.validation[0]]

    def maximise(
        self,
        model: nn.Module,
        objective: Objective,
        training: Training,
        generator: Generator | None,
        *,
        stepwise: Stepwise | None = None,
    ) -> History:
        """:func:`~density.fitting.ascent.maximise` the mean of the objective over this data."""
        return maximise(
            model, objective, self.data, training,
            weights=self.weights, validation=self.validation, stepwise=stepwise, generator=generator,
        )  # fmt: skip


def _taken(
    x: Source | Chunks, context: Rows | None, features: int, context_features: int, weights: Tensor | None, name: str
) -> Batch | Stream:
    if isinstance(x, Tensor | np.ndarray) or not isinstance(x, Chunks | Iterable):
        return _checked(x, context, features, context_features, name)
    if context is not None or context_features:
        raise ValueError(f"{name} takes contexts beside a tensor or an array of points, not beside chunks")
    return Stream(x, features, name, weights)


def _checked(
    x: Rows, context: Rows | None, features: int, context_features: int, name: str, reference: Tensor | None = None
) -> Batch:
    x, context = mapped(x), None if context is None else mapped(context)
    check_points(x, features, name)
    check_data(x, features, name, reference=reference)
    check_context(context, context_features, name, reference=x)
    if context is None:
        return (x,)
    check_data(context, context_features, f"{name}, as context,")
    if len(context) != len(x):
        raise ValueError(f"{name} expects a context for each of the {len(x)} rows of data; got {len(context)}")
    return x, context
