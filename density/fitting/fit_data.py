"""What a gradient fit is given, and how a model is made ready for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from torch import Generator, Tensor, nn

from density.checks import find_reference
from density.contract import Model
from density.data.chunks import Chunks, Passes, comes_in_chunks
from density.data.reader import Reader
from density.data.stream import Stream
from density.data.ties import warn_of_ties
from density.evaluating import evaluating
from density.fitting.ascent import maximise
from density.fitting.batches import Batch, Objective, Stepwise
from density.fitting.best_weights import copied
from density.fitting.training import Training, check_training
from density.history import History

FitRows = Tensor | Passes | Callable[[], Passes] | Chunks
HeldOut = FitRows | tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class FitData:
    """The checked data of a gradient fit, of a model that has started from it.

    Attributes:
        data: points ``[n, D]``, and contexts ``[n, C]`` if there are; or a stream of them.
        weights: ``[n]``, positive; None for equal ones, and for a stream, which brings its own.
        validation: the same of rows to hold out; None for a share of the data.
    """

    data: Batch | Stream
    weights: Tensor | None
    validation: Batch | None

    def maximise(
        self,
        model: nn.Module,
        objective: Objective,
        training: Training,
        generator: Generator | None,
        *,
        stepwise: Stepwise | None = None,
        period: int = 0,
    ) -> History:
        """:func:`~density.fitting.ascent.maximise` the mean of the objective over this data."""
        return maximise(
            model, objective, self.data, training,
            weights=self.weights, validation=self.validation, stepwise=stepwise, period=period, generator=generator,
        )  # fmt: skip


def prepare(
    model: Model,
    x: FitRows,
    training: Training,
    check_support: Callable[[Tensor], None],
    *,
    context: Tensor | None = None,
    weights: Tensor | None = None,
    validation: HeldOut | None = None,
) -> FitData:
    """Check the data of a fit, move the model to its dtype and device, warn of ties, and start the model from it.

    This is the first thing that ``fit`` does, called from there: the warning is for its caller. A model that refuses
    its data stays as it was.

    Args:
        model: that is fitted.
        x: points ``[n, D]``, read where they lie; or what :class:`~density.data.chunks.Chunks` reads, of which every
            chunk gets the checks that a tensor gets.
        training: the settings of the fit.
        check_support: raises ValueError where points ``[n, D]`` are none of the model's.
        context: of each row of a tensor. Those of chunks come in them, tuples (rows, contexts): of a model that takes
            none, a second entry is left alone, since it may be labels.
        weights: of the rows ``[n]``, not negative; 0 is a row that is not there.
        validation: rows to hold out, with contexts a pair; chunks of them are read into memory.

    Raises:
        TypeError, ValueError: the data is not what the model takes, not finite, or outside its support; rows without
            weights, or weights that are negative or all 0.
    """
    check_training(training, f"{type(model).__name__}.fit")
    reader = Reader(type(model).__name__, model.features, model.context_features, incomplete=model.incomplete)
    share = training.validation if validation is None else 0.0
    with ExitStack() as stack:
        moved = False

        def accept(points: Tensor) -> None:
            nonlocal moved
            if not moved:
                moved = True
                stack.enter_context(_moved(model, points))
            with evaluating(model):
                check_support(points)

        given: FitData
        if comes_in_chunks(x):
            if context is not None:
                raise ValueError(f"{reader.owner} takes contexts of rows in chunks from the chunks, (rows, contexts)")
            stream = Stream(x, reader, weights, share=share, accept=accept)
            given, starts = FitData(stream, None, None), stream.sample
        else:
            batch = reader.read(x, context, weights)  # type: ignore[arg-type]  # what is none, it refuses
            accept(batch[0])
            starts = batch[: 1 + (context is not None)]
            given = FitData(starts, None if weights is None else batch[-1], None)
        if validation is not None:
            own = replace(reader, owner=f"{reader.owner}, as validation,", name="validation")
            held_out = _held_out(own, validation, starts[0])
            accept(held_out[0])
            given = replace(given, validation=held_out)
        warn_of_ties(starts[0], model, depth=3)
        model.initialise(*starts)
    return given


def _held_out(reader: Reader, rows: HeldOut, like: Tensor) -> Batch:
    if comes_in_chunks(rows):
        return reader.read(*Stream(rows, reader).whole(), like=like)
    points, *context = rows if isinstance(rows, tuple) else (rows,)
    if len(context) > 1:
        raise ValueError(f"{reader.owner} expects rows, or a pair (rows, contexts); got {1 + len(context)} tensors")
    return reader.read(points, *context, like=like)


@contextmanager
def _moved(model: nn.Module, x: Tensor) -> Iterator[None]:
    """The model in the dtype and on the device of data; after an error, as it was."""
    reference = find_reference(model)
    if reference is None or (reference.dtype, reference.device) == (x.dtype, x.device):
        model.to(x)
        yield
        return
    dtype, device, weights = reference.dtype, reference.device, copied(model)
    model.to(x)
    try:
        yield
    except Exception:
        model.to(device, dtype).load_state_dict(weights)
        raise
