"""Data sets that are read a chunk of rows at a time: arrays in memory or mapped from a file, loaders, lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating[Any]]
Source = Tensor | Array | Iterable[Tensor | Array]

ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class Chunks:
    """The rows of a source, a chunk at a time, as often as it is iterated.

    Args:
        source: a tensor ``[n, D]``; a NumPy array or memory map; or an iterable that can be gone through again and
            again (a list, a DataLoader) of tensors or arrays ``[rows, D]``. Of a tuple, as a loader of a TensorDataset
            gives, the first entry is the rows.
        rows: rows in a chunk, of tensors and arrays; iterables decide for themselves.

    Raises:
        TypeError: the source is none of these, or an iterator, which is spent after one pass.

    >>> x = torch.arange(10.0).reshape(5, 2)
    >>> [chunk.shape[0] for chunk in Chunks(x, rows=2)]
    [2, 2, 1]
    """

    source: Source
    rows: int = ROWS_AT_ONCE

    def __post_init__(self) -> None:
        if isinstance(self.source, Iterator):
            raise TypeError(
                "data is read several times, and an iterator is spent after one pass; give a list, a DataLoader or an "
                "object whose __iter__ starts anew"
            )
        if not isinstance(self.source, Iterable):
            raise TypeError(f"data must be a tensor, an array or an iterable of them; got {type(self.source).__name__}")

    def __iter__(self) -> Iterator[Tensor]:
        if isinstance(self.source, Tensor):
            yield from self.source.split(self.rows)
        elif isinstance(self.source, np.ndarray):
            for start in range(0, len(self.source), self.rows):
                yield torch.from_numpy(np.array(self.source[start : start + self.rows]))
        else:
            for chunk in self.source:
                rows = chunk[0] if isinstance(chunk, tuple | list) else chunk
                yield rows if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows))
