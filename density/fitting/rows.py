"""The rows of a gradient fit: held out or trained on, shuffled, in batches, from where a cut fit stood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from density.fitting.batches import Batch
from density.fitting.training import Training
from density.parallel.random_streams import Randomness

LEAST_ROWS = 2  # of what is left over for a last batch: batch normalisation has no statistics of one row


def split(n: int, share: float, randomness: Randomness) -> tuple[Tensor, Tensor]:
    """Indices of the rows held out, and of the others, both in random order."""
    order = torch.randperm(n, generator=randomness.generator, device=randomness.device)
    held_out = int(n * share)
    return order[:held_out], order[held_out:]


class TrainingRows:
    """Rows that are held out, and rows that are trained on, those in a new order every epoch.

    Attributes:
        valid: the rows held out, of every data tensor.
        train: the others.
        count: how many these are.
        batch_size: how many make a step. The last step of an epoch may have fewer; a single row that is left over
            joins the batch before.
        done: how many of the present epoch have been given out.

    Args:
        data: tensors that share their first dimension n.
        training: which share is held out, and the size of a batch.
        randomness: draws the orders.
    """

    def __init__(self, data: Batch, training: Training, randomness: Randomness) -> None:
        self._randomness, self._device = randomness, data[0].device
        held_out, others = split(data[0].shape[0], training.validation, randomness)
        self.valid = tuple(t[held_out] for t in data)
        self.train = tuple(t[others] for t in data)
        self.count = len(others)
        self._asked = training.batch_size
        self.batch_size = min(self._asked or self.count, self.count)
        self.done = 0
        self._shuffling = randomness.state()  # when the rows of the present epoch were shuffled

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(self.count, self.batch_size)
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
        while self.done < self.count:
            end = self.done + self.batch_size
            single = self.count - end < min(LEAST_ROWS, self.batch_size)
            own = order[self.done :] if single else order[self.done : end]
            self.done += len(own)
            yield tuple(t[own] for t in self.train)
        self.done = 0

    def release(self) -> None:
        """Train on the rows held out, too, from the next epoch on."""
        self.train = tuple(torch.cat(pair) for pair in zip(self.train, self.valid, strict=True))
        self.valid = tuple(t[:0] for t in self.valid)
        self.count = self.train[0].shape[0]
        self.batch_size = min(self._asked or self.count, self.count)
        self.done = 0

    def state(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return {"done": self.done, "shuffling": self._shuffling}

    def load(self, state: dict[str, Any]) -> None:
        """The position that :meth:`state` gave."""
        self.done, self._shuffling = state["done"], state["shuffling"]

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self._randomness.generator, device=self._device)
