"""Data sets that are read a chunk of rows at a time: arrays in memory or mapped from a file, loaders, lists."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from density.checks import foreign

Array = NDArray[np.floating[Any]]
Source = Tensor | Array | Iterable[Tensor | Array] | Iterable[tuple[Tensor | Array, ...]]

ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class Chunks:
    """The rows of a source, a chunk at a time, as often as it is iterated.

    Of a memory map no more than a chunk is held in memory: its pages are given back once they are read.

    Args:
        source: a tensor ``[n, D]``; a NumPy array or memory map; or an iterable that can be gone through again and
            again (a list, a DataLoader) of tensors or arrays ``[rows, D]``. Of a tuple, as a loader of a TensorDataset
            gives, the first entry is the rows. What a masked array masks is nan in the chunks: a missing entry.
        rows: rows in a chunk, of tensors and arrays; iterables decide for themselves.
        weighted: the second entry of every tuple is the rows' weights ``[rows]``, and not, say, labels.

    Raises:
        TypeError: the source is none of these, or an iterator, which is spent after one pass.

    >>> x = torch.arange(10.0).reshape(5, 2)
    >>> [chunk.shape[0] for chunk in Chunks(x, rows=2)]
    [2, 2, 1]
    >>> [weights for _, weights in Chunks([(x, torch.ones(5))], weighted=True).pairs()]
    [tensor([1., 1., 1., 1., 1.])]
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
        if not isinstance(source, Iterable) or isinstance(source, Mapping | str) or _is_frame(source):
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
        if isinstance(self.source, Tensor):
            for part in self.source.split(self.rows):
                yield part, None
        elif isinstance(self.source, np.ndarray):
            for start in range(0, len(self.source), self.rows):
                part = self.source[start : start + self.rows]
                rows = _tensor(part)
                _give_back(part)
                yield rows, None
        else:
            for chunk in self.source:
                parts = list(chunk) if isinstance(chunk, tuple | list) else [chunk]
                if self.weighted and len(parts) < 2:
                    raise TypeError(f"a weighted chunk is a tuple (rows, weights); got {type(chunk).__name__}")
                yield _tensor(parts[0]), _tensor(parts[1]) if self.weighted else None


def mapped(source: Tensor | Array) -> Tensor:
    """A tensor as it is, or an array as a tensor that shares its memory: a memory map stays where it is mapped from.

    >>> mapped(np.zeros((2, 3), np.float32)).shape
    torch.Size([2, 3])
    """
    if not isinstance(source, np.ndarray) or _is_masked(source):
        return source  # type: ignore[return-value]  # for the checks of the model to refuse
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(source))


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
