"""The rows of a gradient fit that come in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Generator

from density.data.stream import Stream, joined
from density.fitting.batches import Batch
from density.fitting.rows import RowSet, batch_sizes, rows_of_an_epoch
from density.fitting.training import Training
from density.parallel.random_streams import Randomness


class StreamedRows:
    """Rows of a stream to train on, a batch at a time, in its order; those of a chunk are shuffled among themselves.

    It is to a stream what :class:`~density.fitting.rows.TrainingRows` is to data, of which it has the attributes.

    Args:
        stream: the rows.
        training: the size of a batch.
        randomness: draws the orders.
        validation: rows to hold out, if not some of the stream; of weight 1.

    Raises:
        ValueError: no size of a batch.
    """

    def __init__(
        self, stream: Stream, training: Training, randomness: Randomness, validation: Batch | None = None
    ) -> None:
        if training.batch_size is None:
            raise ValueError("rows that come in chunks are fitted in batches; give a batch_size")
        self.train, self._randomness, self.weighted = stream, randomness, stream.weighted
        self._batch_size, self._last = training.batch_size, training.last_batch
        if validation is not None:
            self.valid = self._of((*validation, *([validation[0].new_ones(len(validation[0]))] * stream.weighted)))
        else:
            held_out = stream.held_out
            self.valid = RowSet(stream.sample, torch.arange(0)) if held_out is None else self._of(held_out)
        self.done, self._seed, self._place = 0, 0, stream.place

    @property
    def count(self) -> int:
        """How many rows are trained on."""
        return len(self.train)

    @property
    def batch_size(self) -> int:
        """How many make a step."""
        return min(self._batch_size, self.count)

    @property
    def given(self) -> int:
        """How many rows the batches of an epoch have."""
        return rows_of_an_epoch(self.count, self.batch_size, self._last)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return sum(1 for _ in batch_sizes(self.given, self.batch_size))

    def epoch(self) -> Iterator[Batch]:
        """The batches of an epoch, or those that are left of it: what was given out is then read once more."""
        if not self.done:
            random = self._randomness
            self._seed = int(torch.randint(2**31, (), generator=random.generator, device=random.device).item())
            self._place = self.train.place
        seen = 0
        for batch in self._batches():
            seen += len(batch[0])
            if seen > self.done:
                self.done = seen
                yield batch
        self.done = 0

    def probe(self, rows: int) -> Batch | None:
        """A few of the rows held out, if there are any: others may come in another order the next time."""
        return next(self.valid.blocks(0, rows), None)

    def release(self) -> None:
        """Train on the rows held out, too, from the next epoch on."""
        self.train.release()
        self.valid = RowSet(self.valid.data, self.valid.numbers[:0])
        self.done = 0

    def state(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return {"done": self.done, "seed": self._seed, "place": self._place}

    def load(self, state: dict[str, Any]) -> None:
        """The position that :meth:`state` gave."""
        self.done, self._seed, self._place = state["done"], state["seed"], state["place"]
        self.train.place = self._place

    def _batches(self) -> Iterator[Batch]:
        generator = Generator(self.train.device).manual_seed(self._seed)
        sizes = batch_sizes(self.given, self.batch_size)
        size, held, first = next(sizes), list[Batch](), Batch()
        for chunk in self.train.batches(self._seed):
            order = torch.randperm(len(chunk[0]), generator=generator, device=self.train.device)
            held.append(tuple(t[order] for t in chunk))
            there = sum(len(part[0]) for part in held)
            if there < size:
                continue
            rows, start = joined(held), 0
            while size and there - start >= size:
                batch = tuple(t[start : start + size] for t in rows)
                first = first or batch
                yield batch
                start, size = start + size, next(sizes, 0)
            held = [tuple(t[start:] for t in rows)]
        if size:  # to be filled, by the rows of the first batch
            rows = joined(held)
            yield tuple(torch.cat([t, t_first[: size - len(t)]]) for t, t_first in zip(rows, first, strict=True))

    def _of(self, rows: Batch) -> RowSet:
        if self.weighted:
            rows = (*rows[:-1], rows[-1] / rows[-1].mean())
        return RowSet(rows, torch.arange(len(rows[0]), device=rows[0].device))
