"""The rows of a gradient fit: held out or trained on, shuffled, in batches, from where a cut fit stood.

Rows are read from the data where it lies, by their numbers: a fit holds no second copy of it, and data that is mapped
from a file stays there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from density.fitting.batches import Batch
from density.fitting.training import LastBatch, Training
from density.parallel.random_streams import Randomness

ROWS_AT_ONCE = 4096
MOST_NARROW = 2**31 - 1  # rows that numbers of 32 bits can tell
LEAST_ROWS = 2  # of what is left over for a last batch: batch normalisation has no statistics of one row


def split(n: int, share: float, randomness: Randomness) -> tuple[Tensor, Tensor]:
    """Indices of the rows held out, and of the others, both in random order."""
    order = torch.randperm(n, generator=randomness.generator, device=randomness.device)
    held_out = int(n * share)
    return order[:held_out], order[held_out:]


def batch_sizes(rows: int, batch_size: int) -> Iterator[int]:
    """The sizes of an epoch's batches: the last may be smaller, but a single row joins the batch before.

    >>> [*batch_sizes(40, 13)], [*batch_sizes(41, 13)]
    ([13, 13, 14], [13, 13, 13, 2])
    """
    while rows > 0:
        single = rows - batch_size < min(LEAST_ROWS, batch_size)
        yield rows if single else batch_size
        rows -= rows if single else batch_size


def rows_of_an_epoch(rows: int, batch_size: int, last: LastBatch) -> int:
    """How many rows the batches of an epoch have together.

    >>> [rows_of_an_epoch(40, 13, last) for last in LastBatch]
    [40, 39, 52]
    """
    if last is LastBatch.SMALLER:
        return rows
    return batch_size * (rows // batch_size if last is LastBatch.DROPPED else -(-rows // batch_size))


class RowSet:
    """Rows of data, of which nothing is copied before they are read.

    Args:
        data: tensors that share their first dimension.
        numbers: of the rows among them.

    >>> rows = RowSet((torch.arange(10),), torch.tensor([7, 3, 5]))
    >>> [block.tolist() for block, in rows.blocks(1, 3)]
    [[3, 5]]
    """

    def __init__(self, data: Batch, numbers: Tensor) -> None:
        self.data = data
        self.numbers = numbers if len(data[0]) > MOST_NARROW else numbers.int()  # half the memory

    @property
    def device(self) -> torch.device:
        """Of the data."""
        return self.data[0].device

    def __len__(self) -> int:
        return len(self.numbers)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Those from start to stop, 4096 at a time."""
        for own in self.numbers[start:stop].split(ROWS_AT_ONCE):
            yield tuple(t[own] for t in self.data)


class TrainingRows:
    """Rows that are held out, and rows that are trained on, those in a new order every epoch.

    Attributes:
        valid: the rows held out, or those that came for it.
        train: the others.
        batch_size: how many make a step. The last step of an epoch may have fewer, as the settings say; a single row
            that is left over joins the batch before.
        done: how many of the present epoch have been given out.
        weighted: whether rows have weights, the last tensor of every batch.

    Args:
        data: tensors that share their first dimension n.
        training: which share is held out, and the size of a batch.
        randomness: draws the orders.
        weights: of the rows ``[n]``. In every set of rows they are divided by their mean, and then stand beside the
            data as one tensor more.
        validation: rows to hold out, in place of a share of the data; of weight 1.
    """

    def __init__(
        self,
        data: Batch,
        training: Training,
        randomness: Randomness,
        *,
        weights: Tensor | None = None,
        validation: Batch | None = None,
    ) -> None:
        self._data, self._weights, self.weighted = data, weights, weights is not None
        self._randomness, self._device = randomness, data[0].device
        share = training.validation if validation is None else 0.0
        held_out, others = split(data[0].shape[0], share, randomness)
        self.train = self._of(others)
        if validation is None:
            self.valid = self._of(held_out)
        else:
            numbers = torch.arange(len(validation[0]), device=self._device)
            ones = () if weights is None else (weights.new_ones(len(numbers)),)
            self.valid = RowSet((*validation, *ones), numbers)
        self._asked, self._last = training.batch_size, training.last_batch
        self.batch_size = min(self._asked or self.count, self.count)
        self.done = 0
        self._shuffling = randomness.state()  # when the rows of the present epoch were shuffled

    @property
    def count(self) -> int:
        """How many rows are trained on."""
        return len(self.train)

    @property
    def given(self) -> int:
        """How many rows the batches of an epoch have."""
        return rows_of_an_epoch(self.count, self.batch_size, self._last)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(self.given, self.batch_size)
        return whole + (rest >= LEAST_ROWS)

    def epoch(self) -> Iterator[Batch]:
        """The batches of an epoch, or those that are left of it."""
        if self.done == 0:
            self._shuffling = self._randomness.state()
            order = self._permutation(self.count)
        else:
            now = self._randomness.state()
            self._randomness.restore(self._shuffling)
            order = self._permutation(self.count)
            self._randomness.restore(now)
        order = self.train.numbers[order].long()  # once, rather than in every batch
        given = self.given
        order = torch.cat([order, order[: given - self.count]]) if given > self.count else order[:given]
        while self.done < given:
            end = self.done + self.batch_size
            single = given - end < min(LEAST_ROWS, self.batch_size)
            own = order[self.done :] if single else order[self.done : end]
            self.done += len(own)
            yield tuple(t[own] for t in self.train.data)
        self.done = 0

    def probe(self, rows: int) -> Batch | None:
        """A few rows that are the same whenever the fit is resumed."""
        return next(self.train.blocks(0, rows), None)

    def release(self) -> None:
        """Train on the rows held out, too, from the next epoch on."""
        self.train = self._of(torch.cat([self.train.numbers, self.valid.numbers]))
        self.valid = RowSet(self.valid.data, self.valid.numbers[:0])
        self.batch_size = min(self._asked or self.count, self.count)
        self.done = 0

    def state(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return {"done": self.done, "shuffling": self._shuffling}

    def load(self, state: dict[str, Any]) -> None:
        """The position that :meth:`state` gave."""
        self.done, self._shuffling = state["done"], state["shuffling"]

    def _of(self, numbers: Tensor) -> RowSet:
        weights = () if self._weights is None else (self._weights / self._weights[numbers].mean(),)
        return RowSet((*self._data, *weights), numbers)

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self._randomness.generator, device=self._device)
