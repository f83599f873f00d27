"""The rows that a fit reads: checked, with their weights, a chunk at a time, and this process's share of them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import torch
from torch import Tensor

from density.checks import check_data, check_incomplete, check_points, foreign
from density.data.chunks import Chunks, Source, check_chunk
from density.data.digest import data_in_words
from density.linalg.moments import Moments
from density.parallel import processes


class Rows:
    """A data set ``[n, D]`` with weights, as its parts reach this process.

    Args:
        source: a tensor, or whatever :class:`~density.data.chunks.Chunks` reads. A tensor is checked at once, a stream
            whenever it is read.
        features: D.
        owner: whose error it is.
        weights: ``[n]``, not negative: 3 is the row three times, 0 a row that is not there. 1 if None.
        incomplete: nan marks a missing entry; else it is an error.

    Attributes:
        whole: the data, where it is a tensor.
        like: a row of it, for dtype and device.

    Raises:
        TypeError, ValueError: the data is none, not finite, or of another number of features; or the weights are
            negative or all 0, or not as many as the rows.

    On several processes each gets an equal share of the rows of a tensor, and of every chunk of a stream.
    """

    def __init__(
        self,
        source: Source,
        features: int,
        owner: str,
        weights: Tensor | None = None,
        *,
        incomplete: bool = False,
    ) -> None:
        self._check = check_incomplete if incomplete else _check_complete
        self._features = features
        self._owner = owner
        self._values: Tensor | None = None
        self.weights = None if weights is None else check_weights(weights, owner)
        self.whole: Tensor | None = None
        self._chunks = Chunks([])
        self._like: Tensor | None = None
        if isinstance(source, Tensor):
            check_points(source, features, owner)
            self._require_length(source.shape[0])
            self.whole, self.weights = self._there(source, self.weights)
            self.like = self._like = self.whole[:1]
            return
        try:
            self._chunks = source if isinstance(source, Chunks) else Chunks(source)
        except TypeError as error:
            raise TypeError(f"{owner}: {error}") from error
        if self._chunks.weighted and weights is not None:
            raise TypeError(f"{owner} expects weights beside the rows or in their chunks; got both")
        for rows, _ in self._stream():
            self.like = self._like = rows[:1]
            return
        nothing = "none" if weights is None and not self._chunks.weighted else "none of positive weight"
        raise ValueError(f"{owner} expects at least one row of data; got {nothing}")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Parts ``[rows, D]`` and their weights ``[rows]``: this process's share."""
        for chunk, weights in self.pairs():
            own = processes.share(chunk.shape[0])
            if own.stop > own.start:
                yield chunk[own], None if weights is None else weights[own]

    def pairs(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """All rows and their weights, whichever process they are for."""
        if self.whole is None:
            yield from self._stream()
        else:
            yield self.whole, self.weights

    def _stream(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        start = 0
        for chunk, weights in self._chunks.pairs():
            check_chunk(chunk, self._owner)
            end = start + chunk.shape[0]
            if self.weights is not None and self.weights.shape[0] < end:
                break
            try:
                own = None if weights is None else check_weights(weights, self._owner, chunk.shape[0])
                own = own if self.weights is None else self.weights[start:end]
                if chunk.shape[0] and (own is None or bool(own.any())):
                    rows, own = self._there(chunk, own)
                else:
                    rows = chunk[:0]
            except ValueError as error:
                raise ValueError(f"{error} (in a chunk that begins with row {start} of the data)") from error
            if rows.shape[0]:
                yield rows if self._values is None else torch.where(rows.isnan(), self._values, rows), own
            start = end
        self._require_length(start)

    def _there(self, rows: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The rows whose weight is not 0, checked, and their weights."""
        check_points(rows, self._features, self._owner, reference=self._like)
        if weights is None or bool(weights.all()):
            self._check(rows, self._features, self._owner)
            return rows.detach(), weights
        there = weights > 0
        if not bool(there.any()):
            raise ValueError(f"{self._owner} expects at least one row of data; got none of positive weight")
        self._check(torch.where(there.unsqueeze(1), rows, 0.0), self._features, self._owner)
        return rows[there].detach(), weights[there]

    def filled(self, values: Tensor) -> Rows:
        """The same rows with the values ``[D]`` in the place of missing entries."""
        filled = copy(self)
        filled._values = values.to(self.like.dtype)
        filled.like = torch.where(self.like.isnan(), filled._values, self.like)
        if self.whole is not None:
            filled.whole = torch.where(self.whole.isnan(), filled._values, self.whole)
        return filled

    def chunks(self) -> Iterator[Tensor]:
        """All rows, whichever process they are for."""
        for chunk, _ in self.pairs():
            yield chunk

    def moments(self) -> Moments:
        """Moments of the rows of all processes, the same in every one. O(nD²)."""
        own = Moments.of(self.like[:0])
        for rows, weights in self:
            own = own + Moments.of(rows, weights)
        features = own.mean.shape[0]
        packed = torch.cat([own.count.reshape(1), own.mean, own.scatter.flatten()])
        parts = [
            Moments(part[0], part[1 : 1 + features], part[1 + features :].reshape(features, features))
            for part in processes.gathered(packed.unsqueeze(0))
        ]
        return sum(parts[1:], start=parts[0])

    def in_words(self) -> str:
        """A digest of data and weights, by which a checkpoint knows them. O(nD)."""
        return "; ".join(data_in_words([part for part in pair if part is not None]) for pair in self.pairs())

    def _require_length(self, n: int) -> None:
        if self.weights is not None and self.weights.shape[0] != n:
            raise ValueError(
                f"{self._owner} expects one weight for each row; got {self.weights.shape[0]} weights for "
                f"{n} rows (or more, where data comes in chunks)"
            )


def check_weights(weights: Tensor, owner: str, n: int | None = None) -> Tensor:
    """The weights of n rows, detached; ValueError unless they are ``[n]``, finite and none of them negative."""
    if not isinstance(weights, Tensor) or weights.ndim != 1 or n not in (None, weights.shape[0]):
        got = list(weights.shape) if isinstance(weights, Tensor) else foreign(weights, "weights")
        raise ValueError(f"{owner} expects weights of shape [n], one for each row; got {got}")
    bad = ~(weights.isfinite() & (weights >= 0))
    if bool(bad.any()):
        raise ValueError(f"{owner} expects finite weights, none of them negative; got {weights[bad][0].item()}")
    return weights.detach()


def _check_complete(x: Tensor, features: int, owner: str, *, reference: Tensor | None = None) -> None:
    try:
        check_data(x, features, owner, reference=reference)
    except ValueError as error:
        if not bool(x.isnan().any()):
            raise
        advice = (
            "or, where nan or a mask marks a missing entry, call model.observed.fit(x) of PPCA, a mixture or a VAE "
            "(docs/howto/own_data.md)"
        )
        raise ValueError(f"{error}; {advice}") from error
