"""Data that is gone through again and again in chunks: more than memory holds, or from a loader that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from density.data.chunks import Chunks, Source, check_chunk
from density.data.digest import row_digests, unordered_in_words
from density.data.reader import Reader
from density.data.rows import check_weights
from density.initialisation import INITIALISATION_ROWS
from density.parallel import processes

ROWS_AT_ONCE = 2**12
MOST_HELD_OUT = 2**16
SEED = 0  # of passes outside the steps of a fit

Batch = tuple[Tensor, ...]


class Stream:
    """The rows of a source, and what a first pass says of them.

    A batch is points, contexts and weights, as far as there are. What a source draws from torch's own generator, as a
    loader that shuffles does, follows from the seed of a pass and is not felt outside. A pass outside the steps of a
    fit also leaves the generator of a loader as it was. On several processes that of the first counts.

    Which rows are held out their own values say, by a hash, so that they are the same in whatever order rows come, and
    equal rows are held out together.

    Attributes:
        sample: up to 8192 rows, points and contexts, evenly spaced, for starts.
        held_out: a batch; None for no rows.
        weighted: whether rows have weights.

    Args:
        source: what :class:`~density.data.chunks.Chunks` reads; its ``generator``, if it has one, shuffles it.
        reader: checks every chunk, and says whether contexts come in it.
        weights: of the rows ``[n]``, where they do not come in the chunks and the rows always come in the same order.
        share: of the rows to hold out, at most 65,536.
        accept: is shown the points of every chunk in the first pass, and may refuse them.

    Raises:
        TypeError, ValueError: the source is none, or a chunk holds what a model does not take.
    """

    def __init__(
        self,
        source: Source | Chunks,
        reader: Reader,
        weights: Tensor | None = None,
        *,
        share: float = 0.0,
        accept: Callable[[Tensor], None] = lambda x: None,
    ) -> None:
        self._reader = reader
        try:
            self._chunks = source if isinstance(source, Chunks) else Chunks(source)
        except TypeError as error:
            raise TypeError(f"{reader.owner}: {error}") from error
        if self._chunks.weighted and weights is not None:
            raise TypeError(f"{reader.owner} expects weights beside the rows or in their chunks; got both")
        self._weights = None if weights is None else check_weights(weights, reader.owner)
        self._order: list[int] | None = None  # by the first row of each chunk, where weights are given by position
        self.weighted = self._chunks.weighted or weights is not None
        self._generators = _generators(self._chunks.source)
        self.place = processes.from_main(lambda: self.place)
        self._share, self._count, self._total = share, 0, 0.0
        self.sample: Batch = ()
        self.held_out: Batch | None = None
        self._survey(accept)

    def __len__(self) -> int:
        """Rows to train on."""
        return self._count

    @property
    def device(self) -> torch.device:
        """Of the rows."""
        return self.sample[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self.sample[0].dtype

    @property
    def place(self) -> list[Tensor]:
        """Where the generators of a loader stand."""
        return [generator.get_state() for generator in self._generators]

    @place.setter
    def place(self, states: list[Tensor]) -> None:
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    def release(self) -> None:
        """Hold no rows out from now on."""
        held_out = self.held_out
        if held_out is not None:
            self._count += len(held_out[0])
            self._total += _weight(held_out, self.weighted)
        self.held_out, self._share = None, 0.0

    def batches(self, seed: int) -> Iterator[Batch]:
        """One pass over the rows to train on, weights divided by their mean."""
        seen = 0
        for batch in self._read(seed):
            own = batch if not self._share else _chosen(batch, ~self._is_held_out(batch))
            seen += len(own[0])
            if len(own[0]):
                yield (*own[:-1], own[-1] * (self._count / self._total)) if self.weighted else own
        if seen != self._count:
            raise ValueError(
                f"{self._reader.owner}: the chunks had {self._count} rows to train on in the first pass and {seen} in "
                "a later one. Rows that change from pass to pass need validation=rows of your own, or "
                "Training(validation=0)"
            )

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Rows to train on from start to stop, always in the same order, moving no generator."""
        before, at = self.place, 0
        stop = self._count if stop is None else stop
        try:
            for batch in self.batches(SEED):
                own = tuple(t[max(0, start - at) : max(0, stop - at)] for t in batch)
                at += len(batch[0])
                if len(own[0]):
                    yield from zip(*(t.split(ROWS_AT_ONCE) for t in own), strict=True)
                if at >= stop:
                    return
        finally:
            self.place = before

    def whole(self) -> Batch:
        """All rows, and no weights: what fits into memory."""
        batch = joined(list(self._quietly()))
        return batch[:-1] if self.weighted else batch

    def in_words(self) -> str:
        """A digest of all rows in whatever order, by which a checkpoint knows them. O(nD)."""
        return unordered_in_words(self._quietly())

    def _survey(self, accept: Callable[[Tensor], None]) -> None:
        """Count the rows, and keep a sample and those to hold out."""
        count, stride, total = 0, 1, 0.0
        kept: list[Batch] = []
        held: list[Batch] = []
        for batch in self._quietly(accept):
            kept.append(tuple(t[-count % stride :: stride].clone() for t in batch))  # a view would keep the chunk
            count, total = count + len(batch[0]), total + _weight(batch, self.weighted)
            while sum(len(part[0]) for part in kept) > 2 * INITIALISATION_ROWS:
                kept, stride = [tuple(t[::2] for t in joined(kept))], 2 * stride
            if self._share:
                held.append(_chosen(batch, self._is_held_out(batch)))
            while sum(len(part[0]) for part in held) > MOST_HELD_OUT:
                self._share, every = self._share / 2, joined(held)
                held = [_chosen(every, self._is_held_out(every))]
        if not count:
            nothing = "none of positive weight" if self.weighted else "none"
            raise ValueError(f"{self._reader.owner} expects at least one row of data; got {nothing}")
        self.sample = joined(kept)[: 2 if self._reader.context_features else 1]
        found = joined(held) if held else None
        self.held_out = found if found is not None and len(found[0]) else None
        if self.held_out is None and self._share * count >= 1:
            raise ValueError(
                f"{self._reader.owner}: a share of {self._share:g} of these {count} rows is none, since equal rows are "
                "held out together. Give validation=rows of your own, or Training(validation=0)"
            )
        self._count = count - (0 if self.held_out is None else len(self.held_out[0]))
        self._total = total - (0.0 if self.held_out is None else _weight(self.held_out, self.weighted))
        if not self._count:
            raise ValueError(f"{self._reader.owner}: all rows are held out; give validation=rows of your own")

    def _quietly(self, accept: Callable[[Tensor], None] | None = None) -> Iterator[Batch]:
        """A pass over all rows that moves no generator."""
        before = self.place
        try:
            yield from self._read(SEED, accept)
        finally:
            self.place = before

    def _read(self, seed: int, accept: Callable[[Tensor], None] | None = None) -> Iterator[Batch]:
        """One pass over all rows, checked."""
        start, owner, firsts = 0, self._reader.owner, list[int]()
        like = None if accept is not None else self.sample[0]
        for x, context, weights in _drawing(self._chunks.parts(self._reader.context_features > 0), seed, owner):
            check_chunk(x, owner)
            end = start + len(x)
            batch = None
            try:
                if self._weights is not None and end <= len(self._weights):
                    weights = self._weights[start:end]
                if len(x) and (weights is None or bool(check_weights(weights, owner, len(x)).any())):
                    batch = self._reader.read(x, context, weights, like=like)
                    if accept is not None:
                        accept(batch[0])
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{error} (in a chunk that begins with row {start} of the data)") from error
            if batch is not None:
                if self._weights is not None:
                    firsts.append(int(row_digests(batch[:1])[0].item()))
                    self._require_order(firsts)
                like = batch[0][:1]
                yield batch
            start = end
        if self._weights is not None and start != len(self._weights):
            raise ValueError(f"{owner} expects one weight for each row; got {len(self._weights)} for {start} rows")
        self._order = firsts if self._order is None else self._order

    def _require_order(self, firsts: list[int]) -> None:
        if self._order is not None and self._order[len(firsts) - 1 : len(firsts)] != firsts[-1:]:
            raise ValueError(
                f"{self._reader.owner}: the rows come in another order than in the first pass, so that weights beside "
                "them belong to other rows. Let them come in the chunks, Chunks(loader, weighted=True)"
            )

    def _is_held_out(self, batch: Batch) -> Tensor:
        places = row_digests(batch).double() / 2.0**64 + 0.5
        return (places < self._share).to(batch[0].device)


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, at least one, as one."""
    return batches[0] if len(batches) == 1 else tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def _generators(source: object) -> list[Generator]:
    """Those that a loader and its samplers draw from, as far as they are not torch's own."""
    sampler, batches = getattr(source, "sampler", None), getattr(source, "batch_sampler", None)
    parts = (source, sampler, batches, getattr(batches, "sampler", None))
    found = [getattr(part, "generator", None) for part in parts]
    return list({id(generator): generator for generator in found if isinstance(generator, Generator)}.values())


def _chosen(batch: Batch, which: Tensor) -> Batch:
    return tuple(t[which] for t in batch)


def _weight(batch: Batch, weighted: bool) -> float:
    return batch[-1].double().sum().item() if weighted else float(len(batch[0]))


def _drawing(source: Iterator[Any], seed: int, owner: str) -> Iterator[Any]:
    """The items of a source, which draws from torch's own generator as if that stood alone there, begun at a seed."""
    state = Generator().manual_seed(seed).get_state()
    while True:
        outside = torch.get_rng_state()
        torch.set_rng_state(state)
        try:
            item = next(source, None)
        except TypeError as error:
            raise TypeError(f"{owner}: {error}") from error
        finally:
            state = torch.get_rng_state()
            torch.set_rng_state(outside)
        if item is None:
            return
        yield item
