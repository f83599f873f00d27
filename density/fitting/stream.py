"""Rows that come in chunks: more than memory holds, or from a loader that makes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor

from density.data.chunks import Chunks, Source
from density.data.digest import unordered_in_words
from density.data.rows import Rows
from density.fitting.batches import Batch
from density.fitting.rows import ROWS_AT_ONCE, RowSet, batch_sizes
from density.fitting.training import Training
from density.initialisation import INITIALISATION_ROWS
from density.parallel.random_streams import Randomness


class Stream:
    """The rows of a source that is gone through again and again, and what a first pass says of them.

    A pass outside the steps of a fit leaves torch's own generator as it was, and the one that a loader has.

    Attributes:
        sample: up to 8192 rows ``[m, D]``, evenly spaced, for starts.
        weight: the mean weight of the rows; None where they have none.

    Args:
        source: what :class:`~density.data.chunks.Chunks` reads; its ``generator``, if it has one, shuffles it.
        features: D.
        owner: whose errors they are.
        weights: of the rows ``[n]``, where they do not come in the chunks.
    """

    def __init__(self, source: Source | Chunks, features: int, owner: str, weights: Tensor | None = None) -> None:
        generator = getattr(source.source if isinstance(source, Chunks) else source, "generator", None)
        self._generator = generator if isinstance(generator, Generator) else None
        before = self.generators()
        self._rows = Rows(source, features, owner, weights)
        self.restore(before)
        self._count, stride, total, weighted = 0, 1, 0.0, False
        kept: list[Tensor] = []
        for x, weights in self.quietly():
            kept.append(x[-self._count % stride :: stride])
            self._count += len(x)
            if weights is not None:
                total, weighted = total + weights.double().sum().item(), True
            while sum(map(len, kept)) > 2 * INITIALISATION_ROWS:
                kept, stride = [torch.cat(kept)[::2]], 2 * stride
        self.sample = torch.cat(kept)
        self.weight = total / self._count if weighted else None

    @property
    def device(self) -> torch.device:
        """Of the rows."""
        return self.sample.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self.sample.dtype

    def __len__(self) -> int:
        return self._count

    def chunks(self) -> Iterator[Batch]:
        """One pass: rows, and their weights divided by the mean where they have some."""
        seen = 0
        for x, weights in self._rows.pairs():
            seen += len(x)
            yield (x,) if weights is None or self.weight is None else (x, weights.to(x) / self.weight)
        if seen != self._count:
            raise ValueError(f"the chunks had {self._count} rows in the first pass and {seen} in a later one")

    def quietly(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """A pass that moves no generator."""
        before = self.generators()
        try:
            yield from self._rows.pairs()
        finally:
            self.restore(before)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Rows from start to stop, in the order of a pass that moves no generator."""
        before, at = self.generators(), 0
        stop = self._count if stop is None else stop
        try:
            for chunk in self.chunks():
                own = slice(max(0, start - at), max(0, stop - at))
                at += len(chunk[0])
                if len(chunk[0][own]):
                    yield from zip(*(t[own].split(ROWS_AT_ONCE) for t in chunk), strict=True)
                if at >= stop:
                    return
        finally:
            self.restore(before)

    def generators(self) -> list[Tensor]:
        """Where the generators stand that a source may draw from."""
        return [torch.get_rng_state(), *([] if self._generator is None else [self._generator.get_state()])]

    def restore(self, states: list[Tensor]) -> None:
        """Put them back to there."""
        torch.set_rng_state(states[0])
        if self._generator is not None:
            self._generator.set_state(states[1])

    def in_words(self) -> str:
        """A digest of the rows in whatever order, by which a checkpoint knows them. O(nD)."""
        return unordered_in_words(chunk for chunk, _ in self.quietly())


class StreamedRows:
    """Rows of a stream to train on, a batch at a time, in its order; those of a chunk are shuffled among themselves.

    It is to a stream what :class:`~density.fitting.rows.TrainingRows` is to data, of which it has the attributes.

    Args:
        stream: the rows.
        training: the size of a batch.
        randomness: draws the orders.
        validation: rows to hold out.
    """

    def __init__(
        self, stream: Stream, training: Training, randomness: Randomness, validation: Batch | None = None
    ) -> None:
        if training.batch_size is None:
            raise ValueError("rows that come in chunks are fitted in batches; give a batch_size")
        if validation is None and training.validation:
            raise ValueError(
                "rows that come in chunks are read as they come, and no share of them is held out; give "
                "validation=rows, or Training(validation=0)"
            )
        self.train, self._randomness = stream, randomness
        data = (stream.sample[:0],) if validation is None else validation
        ones = () if stream.weight is None else (data[0].new_ones(len(data[0])),)
        self.valid = RowSet((*data, *ones), torch.arange(len(data[0]), device=stream.device))
        self.count = len(stream)
        self.batch_size = min(training.batch_size, self.count)
        self.done = 0
        self._shuffling = self._place()

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(list(batch_sizes(self.count, self.batch_size)))

    def epoch(self) -> Iterator[Batch]:
        """The batches of an epoch, or those that are left of it."""
        now, resumed = self._randomness.state(), self.done > 0
        if resumed:
            self._randomness.restore(self._shuffling["fit"])
            self.train.restore(self._shuffling["source"])
        else:
            self._shuffling = self._place()
        seed = int(torch.randint(2**31, (), generator=self._randomness.generator, device=self.train.device).item())
        batches = self._batches(Generator(self.train.device).manual_seed(seed))
        first = next(batches)  # by now, a loader has drawn what it shuffles by
        if resumed:
            self._randomness.restore(now)
        seen = 0
        for batch in chain([first], batches):
            seen += len(batch[0])
            if seen > self.done:
                self.done = seen
                yield batch
        self.done = 0

    def probe(self, rows: int) -> Batch | None:
        """Some of the rows held out: those of the stream may come in another order the next time."""
        return next(self.valid.blocks(0, rows), None)

    def release(self) -> None:
        """There are no rows held out of a stream."""

    def state(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return {"done": self.done, "shuffling": self._shuffling}

    def load(self, state: dict[str, Any]) -> None:
        """The position that :meth:`state` gave."""
        self.done, self._shuffling = state["done"], state["shuffling"]

    def _place(self) -> dict[str, Any]:
        return {"fit": self._randomness.state(), "source": self.train.generators()}

    def _batches(self, generator: Generator) -> Iterator[Batch]:
        sizes = batch_sizes(self.count, self.batch_size)
        size, held = next(sizes), list[Batch]()
        for chunk in self.train.chunks():
            order = torch.randperm(len(chunk[0]), generator=generator, device=self.train.device)
            held.append(tuple(t[order] for t in chunk))
            there = sum(len(part[0]) for part in held)
            if there < size:
                continue
            joined = held[0] if len(held) == 1 else tuple(torch.cat(parts) for parts in zip(*held, strict=True))
            start = 0
            while size and there - start >= size:
                yield tuple(t[start : start + size] for t in joined)
                start, size = start + size, next(sizes, 0)
            held = [tuple(t[start:] for t in joined)]
