"""Data sets that are read a chunk of rows at a time: arrays in memory or mapped from a file, loaders, lists."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from density.checks import foreign

Array = NDArray[np.floating[Any]]
Passes = Iterable[Tensor | Array] | Iterable[tuple[Tensor | Array, ...]]
Source = Tensor | Array | Passes | Callable[[], Passes]

ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class Chunks:
    """The rows of a source, a chunk at a time, as often as it is iterated.

    Of a memory map no more than a chunk is held in memory: its pages are given back once they are read.

    Args:
        source: a tensor ``[n, D]``; a NumPy array or memory map; or an iterable that can be gone through again and
            again (a list, a DataLoader), or a function that returns one, of tensors or arrays ``[rows, D]``. Of a
            tuple, as a loader of a TensorDataset gives, the first entry is the rows. What a masked array masks is nan
            in the chunks: a missing entry.
        rows: rows in a chunk, of tensors and arrays; iterables decide for themselves.
        weighted: the second entry of every tuple is the rows' weights ``[rows]``, and not, say, labels; the third,
            where a model takes contexts, which are then the second.

    Raises:
        TypeError: the source is none of these, or an iterator, which is spent after one pass.

    >>> x = torch.arange(10.0).reshape(5, 2)
    >>> [chunk.shape[0] for chunk in Chunks(x, rows=2)]
    [2, 2, 1]
    >>> [weights for _, weights in Chunks([(x, torch.ones(5))], weighted=True).pairs()]
    [tensor([1., 1., 1., 1., 1.])]
    >>> [len(chunk) for chunk in Chunks(lambda: (x[i:] for i in range(3)))]
    [5, 4, 3]
    """

    source: Source
    rows: int = ROWS_AT_ONCE
    weighted: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.source, Iterator):
            raise TypeError(
                "data is read several times, and an iterator is spent after one pass; give a list, a DataLoader or an "
                "object whose __iter__ starts anew"
            )
        source = self.source
        readable = isinstance(source, Iterable) or (callable(source) and not isinstance(source, type))
        if not readable or isinstance(source, Mapping | str) or _is_frame(source):
            raise TypeError(f"data must be a tensor, an array or an iterable of them; got {foreign(source, 'data')}")
        if self.weighted and isinstance(self.source, Tensor | np.ndarray):
            raise TypeError("weighted chunks are tuples (rows, weights); beside a tensor or an array, give its weights")

    def __iter__(self) -> Iterator[Tensor]:
        for rows, _ in self.pairs():
            yield rows

    def pairs(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Chunks ``[rows, D]``, and their weights ``[rows]`` where they have some.

        Raises:
            TypeError: chunks should be weighted, and one is no tuple of rows and weights.
        """
        for rows, _, weights in self.parts():
            yield rows, weights

    def parts(self, contexts: bool = False) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Chunks ``[rows, D]``, their contexts ``[rows, C]`` where they are to have some, and their weights ``[rows]``.

        Raises:
            TypeError: chunks should have contexts or weights, and one is no tuple of so many entries.
        """
        if isinstance(self.source, Tensor | np.ndarray):
            if contexts:
                raise TypeError("contexts come in the chunks, tuples (rows, contexts); a tensor or an array has none")
            for part in self._cut():
                yield part, None, None
            return
        entries = ["rows", *["contexts"] * contexts, *["weights"] * self.weighted]
        for chunk in self.source() if callable(self.source) else self.source:
            found = list(chunk) if isinstance(chunk, tuple | list) else [chunk]
            if len(found) < len(entries):
                kind = "weighted chunk" if self.weighted else "chunk of a model that takes contexts"
                raise TypeError(f"a {kind} is a tuple ({', '.join(entries)}); got {type(chunk).__name__}")
            rows, *others = (_tensor(entry) for entry in found[: len(entries)])
            yield rows, others.pop(0) if contexts else None, others.pop() if self.weighted else None

    def _cut(self) -> Iterator[Tensor]:
        if isinstance(self.source, Tensor):
            yield from self.source.split(self.rows)
        elif isinstance(self.source, np.ndarray):
            for start in range(0, len(self.source), self.rows):
                part = self.source[start : start + self.rows]
                rows = _tensor(part)
                _give_back(part)
                yield rows


def comes_in_chunks(source: object) -> bool:
    """Whether data is to be read in chunks, rather than being a tensor, or something to make one of.

    >>> x = torch.zeros(5, 2)
    >>> [comes_in_chunks(source) for source in ([x, x], lambda: [x], x, x.numpy(), x.tolist(), (x, x))]
    [True, True, False, False, False, False]
    """
    if isinstance(source, Chunks):
        return True
    if isinstance(source, Tensor | np.ndarray | Mapping | str | tuple | type) or _is_frame(source):
        return False
    first: Any = source
    while isinstance(first, list) and first:
        first = first[0]
    return not isinstance(first, int | float) and (isinstance(source, Iterable) or callable(source))


def check_chunk(rows: Tensor, owner: str) -> None:
    """Raise TypeError for the entry of a list of numbers."""
    if rows.ndim == 0:
        raise TypeError(
            f"{owner} expects data to be a torch.Tensor, an array or chunks of them; got numbers. "
            "Convert with torch.tensor"
        )


def _tensor(rows: Tensor | Array) -> Tensor:
    """Rows as a tensor; a copy of what an array holds, which may be mapped or read-only. What it masks is nan."""
    if isinstance(rows, Tensor):
        return rows
    array = np.asarray(rows.filled(np.nan) if _is_masked(rows) else rows)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a chunk of data must be a tensor or an array of numbers; got {foreign(rows, 'chunk')}")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _is_masked(rows: object) -> TypeGuard[np.ma.MaskedArray[Any, Any]]:
    """Whether an array masks some of its entries; TypeError if it has no nan to say so with."""
    if not isinstance(rows, np.ma.MaskedArray) or not rows.mask.any():
        return False
    if rows.dtype.kind != "f":
        raise TypeError(
            f"a masked array of {rows.dtype} cannot mark its missing entries by nan; convert it, data.astype(float)"
        )
    return True


def _is_frame(source: object) -> bool:
    """A table of pandas or polars: gone through, it gives its columns' names."""
    return hasattr(source, "to_numpy")


def _give_back(part: Array) -> None:
    """Tell the system that the pages of a part of a memory map need not stay in memory.

    They count as memory of this process from the first look at them until it ends. Pages of a copy-on-write map may
    have been changed in memory alone, and stay.
    """
    whole: Any = part
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if not isinstance(whole, np.memmap) or not isinstance(whole.base, mmap.mmap) or whole.mode == "c":
        return
    if not part.flags.c_contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = part.ctypes.data - np.frombuffer(whole.base, np.uint8).ctypes.data
    start = first // mmap.PAGESIZE * mmap.PAGESIZE
    whole.base.madvise(mmap.MADV_DONTNEED, start, first + part.nbytes - start)
