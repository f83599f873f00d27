"""The mean objective of a batch and its gradient, in one piece, in parts, or in parts on several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from density.fitting.best_weights import weights_of
from density.fitting.checkpoint import Task, differences
from density.parallel import processes
from density.parallel.random_streams import Randomness, Streams

Objective = Callable[[tuple[Tensor, ...], Generator | None], Tensor]
Stepwise = Callable[[int], Objective]
Batch = tuple[Tensor, ...]


def weighted(objective: Objective) -> Objective:
    """The objective times the weights, which are the last tensor of a batch."""
    return lambda batch, generator: objective(batch[:-1], generator) * batch[-1]


def weighted_by_step(stepwise: Stepwise) -> Stepwise:
    """The same of the objective of each step."""
    return lambda step: weighted(stepwise(step))


class Blocks(Protocol):
    """Rows that are read a block at a time."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Those from start to stop."""


class WholeBatches:
    """The objective of a batch as one computation, drawing from the generator of the fit."""

    def __init__(self, objective: Objective, generator: Generator | None, stepwise: Stepwise | None = None) -> None:
        self.objective = objective
        self.at = stepwise or (lambda step: objective)
        self.generator = generator

    def backward(self, batch: Batch, step: int) -> Tensor:
        """−(mean objective) of a batch, its gradient added to the parameters' ``grad``."""
        loss = -self.at(step)(batch, self.generator).mean()
        loss.backward()
        return loss

    def total(self, rows: Blocks) -> Tensor:
        """Sum of the objective over rows, in float64, always by the same draws."""
        return _total(self.objective, rows.blocks(), Generator(rows.device).manual_seed(0))


class PartedBatches:
    r"""The objective of a batch in parts, each with draws of its own; every process computes its share of the parts.

    .. math:: -\tfrac1B \sum_{p} \sum_{i \in p} \text{objective}(x_i), \qquad B \text{ rows in all parts together}

    Every row has the same weight, whether or not the parts are of one size. Part p of step t always draws from stream
    t · parts + p of :class:`~density.parallel.random_streams.Streams`, so that the result depends on the number of
    parts and not on the number of processes, up to the order of summation. Parts on one process are gradient
    accumulation: the memory of one part at a time.

    Gradients of all processes are summed by one ``all_reduce`` of a flat vector, with the loss in it, rather than by
    ``DistributedDataParallel``: that one averages with equal weights, takes the forward pass of one module rather than
    an objective, and does not know line searches, which evaluate the loss more than once a step. The price is that
    summing does not overlap with the backward pass.

    Args:
        objective: mean over rows is what is maximised; a part of a batch must mean what it does in the batch.
        parameters: whose gradients are summed.
        parts: at least one for each process.
        streams: of random numbers.
        least: rows of a part, where a batch has so many; a small last batch leaves parts empty instead.
    """

    def __init__(
        self,
        objective: Objective,
        parameters: list[nn.Parameter],
        parts: int,
        streams: Streams,
        least: int = 1,
        stepwise: Stepwise | None = None,
    ) -> None:
        self.objective = objective
        self.at = stepwise or (lambda step: objective)
        self.parameters = parameters
        self.parts = parts
        self.streams = streams
        self.least = least

    def backward(self, batch: Batch, step: int) -> Tensor:
        """−(mean objective) of a batch, its gradient added to the parameters' ``grad``; the same on every process."""
        rows, objective = batch[0].shape[0], self.at(step)
        loss = torch.zeros((), dtype=self.parameters[0].dtype, device=batch[0].device)
        for part in self._own():
            piece = self._piece(batch, part, max(1, min(self.parts, rows // self.least)))
            if piece[0].shape[0]:
                with self.streams.at(step * self.parts + part) as stream:
                    partial = -objective(piece, stream).sum() / rows
                    partial.backward()
                loss = loss + partial.detach()
        return self._summed(loss) if processes.world() > 1 else loss

    def total(self, rows: Blocks) -> Tensor:
        """Sum of the objective over rows, in float64, always by the same draws."""
        n, device = len(rows), rows.device
        total = torch.zeros((), dtype=torch.float64, device=device)
        for part in self._own():
            own = rows.blocks(n * part // self.parts, n * (part + 1) // self.parts)
            total = total + _total(self.objective, own, Generator(device).manual_seed(part))
        return processes.total(total)

    def _own(self) -> range:
        share = processes.share(self.parts)
        return range(share.start, share.stop)

    def _piece(self, batch: Batch, part: int, parts: int) -> Batch:
        rows = batch[0].shape[0]
        return tuple(t[rows * part // parts : rows * (part + 1) // parts] for t in batch)

    def _summed(self, loss: Tensor) -> Tensor:
        # A parameter without gradient anywhere must stay without: optimisers skip it. Hence the counts.
        with torch.no_grad():
            touched = [float(p.grad is not None) for p in self.parameters]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            pieces = [loss.reshape(1), loss.new_tensor(touched), *(g.reshape(-1) for g in gradients)]
            sizes = [piece.numel() for piece in pieces]
            summed, counts, *flat = processes.total(torch.cat(pieces)).split(sizes)
            found = touched if all(touched) else counts.tolist()  # a look at the counts waits for an accelerator
            for parameter, gradient, count in zip(self.parameters, flat, found, strict=True):
                parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None
        return summed[0]


def _total(objective: Objective, batches: Iterable[Batch], generator: Generator) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=generator.device)
    for batch in batches:
        total = total + objective(batch, generator).double().sum()
    return total


def batches_of(
    objective: Objective,
    parameters: list[nn.Parameter],
    parts: int,
    randomness: Randomness,
    least: int = 1,
    stepwise: Stepwise | None = None,
) -> WholeBatches | PartedBatches:
    """The objective of batches in so many parts, of least rows or more, drawing from the randomness of a fit.

    Raises:
        ValueError: fewer parts than processes.
    """
    if parts < processes.world():
        raise ValueError(f"{processes.world()} processes need a part of each batch; got parts={parts}")
    if parts == 1:
        return WholeBatches(objective, randomness.generator, stepwise)
    before = randomness.state()
    streams = Streams(randomness.generator, randomness.device)
    randomness.restore(before)  # rows are shuffled as they are without parts
    return PartedBatches(objective, parameters, parts, streams, least, stepwise)


def join(module: nn.Module, task: Task, randomness: Randomness) -> None:
    """Start from the weights and the random state of the first process.

    Raises:
        ValueError: processes were given different fits.
        ProcessLost: another process has ended.
    """
    if processes.world() == 1:
        return
    first, *others = processes.collected(task)
    for number, other in enumerate(others, start=1):
        if found := differences(first, other, "in process 0", f"in process {number}"):
            raise ValueError(f"every process must be given the same fit and the same data; {'; '.join(found)}")
    weights, random = processes.from_main(
        lambda: ({name: t.cpu() for name, t in weights_of(module).items()}, randomness.state())
    )
    module.load_state_dict(weights)
    randomness.restore(random)
