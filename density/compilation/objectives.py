"""The objective of a fit's steps, compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor

from density.compilation.functions import attempted
from density.fitting.batches import Batch, Objective, Stepwise
from density.parallel.random_streams import Randomness, lent


class Sized(Protocol):
    """Rows that come in batches of a size."""

    @property
    def batch_size(self) -> int: ...


def compiled_steps(
    objective: Objective, stepwise: Stepwise | None, rows: Sized, parts: int, randomness: Randomness
) -> Stepwise:
    """The objective of whole batches as one graph by ``torch.compile``, with its gradient; of others, as it is.

    A graph takes no generator. While it runs, torch's own random numbers are those of the generator that the objective
    was given, and they are drawn by torch's own kernels, not by the compiler's: the draws are those that the objective
    makes without a compiler. Networks that draw themselves (dropout) draw from the same numbers there.

    Shapes are static: the last, smaller batch of an epoch would be a second graph, and is not worth one; with
    ``last_batch`` dropped or filled there is none. On CUDA the kernels of a step are launched together, as a CUDA
    graph, where a batch is one part: gradients of several parts are added up in memory that the graph would use again.

    Args:
        objective: always the same function.
        stepwise: the objective of each step, where there are such: they are not compiled, after a warning.
        rows: which know how many make a whole batch.
        parts: of every batch.
        randomness: of the fit.

    Returns:
        The objective of each step which, where this machine cannot compile, runs as it is after a warning.
    """
    if stepwise is not None:
        warnings.warn(
            "compiled=True compiles one objective for all steps; the steps of this fit have others (a warm-up of the "
            "KL term, free nats), which run as they are",
            stacklevel=2,
        )
        return stepwise
    options: dict[str, str | int | bool | Callable[..., object]] = {"fallback_random": True}
    if randomness.device.type == "cuda" and parts == 1:
        options["triton.cudagraphs"] = True  # what mode="reduce-overhead" says; options and a mode exclude each other

    def drawing(*batch: Tensor) -> Tensor:
        return objective(batch, None)

    fast = attempted(lambda: torch.compile(drawing, fullgraph=True, dynamic=False, options=options), drawing)

    def step(batch: Batch, generator: Generator | None) -> Tensor:
        pieces = min(parts, rows.batch_size)
        if not rows.batch_size // pieces <= batch[0].shape[0] <= -(-rows.batch_size // pieces):
            return objective(batch, generator)
        with lent(generator):
            return fast(*batch)

    return lambda number: step
