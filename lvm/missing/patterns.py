"""Rows of data grouped by which of their entries are observed, so that what depends on the pattern is done once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SCALARS_AT_ONCE = 2**20  # held together by one block: 8 MiB in float64
MOST_ROWS = 4096
BITS = 52  # of a pattern packed into one float64, exactly
ROWS_TO_PACK = 2**15


@dataclass(frozen=True, eq=False)
class Block:
    """B patterns with R rows each, all handled by the same batched matrix products.

    Attributes:
        mask: which entries are observed, ``[B, D]``, booleans.
        index: which rows have that pattern, ``[B, R]``; a pattern with fewer than R rows repeats its first.
        valid: which of these are no repetitions, ``[B, R]``.
    """

    mask: Tensor
    index: Tensor
    valid: Tensor

    @cached_property
    def seen(self) -> Tensor:
        """The mask as float64."""
        return self.mask.double()

    @cached_property
    def entries(self) -> Tensor:
        """How many entries a pattern has, ``[B]``, float64."""
        return self.seen.sum(-1)

    def rows(self, x: Tensor, origin: Tensor | None = None) -> Tensor:
        """The observed entries of x ``[n, D]`` about an origin, in float64, 0 where one is missing: ``[B, R, D]``."""
        own = x[self.index].double()
        return torch.where(self.mask.unsqueeze(1), own if origin is None else own - origin, 0.0)

    def weights(self, weights: Tensor | None) -> Tensor:
        """Weights of the rows ``[B, R]`` (1 if None), 0 for repetitions."""
        if weights is None:
            return self.valid.double()
        return torch.where(self.valid, weights[self.index].double(), 0.0)


@dataclass(frozen=True, eq=False)
class Patterns:
    """The distinct patterns of a data set, in blocks of bounded memory.

    Patterns whose numbers of rows round up to the same power of two share blocks: a data set where every row has its
    own pattern, and one where all rows share one, are both a few large matrix products.

    Args:
        observed: ``[n, D]``, booleans.
        count: how many different patterns there are.
        blocks: them.

    >>> patterns = Patterns.of(torch.tensor([[True, False], [True, True], [True, False]]), 1, 1)
    >>> patterns.count
    2
    >>> [block.index.tolist() for block in patterns.blocks]
    [[[1]], [[0, 2]]]
    """

    observed: Tensor
    count: int
    blocks: list[Block]

    @staticmethod
    def of(observed: Tensor, scalars_a_row: int, scalars_a_pattern: int) -> Patterns:
        """Group rows. O(nD + n log n). No rows are one block of no patterns.

        Args:
            observed: ``[n, D]``, booleans.
            scalars_a_row: how many numbers the caller will hold for each row of a block,
            scalars_a_pattern: and for each pattern of it.
        """
        if observed.shape[0] == 0:
            index = observed.new_zeros(0, 1, dtype=torch.long)
            return Patterns(observed, 0, [Block(observed, index, index.bool())])
        inverse, counts = _unique(observed)
        order = inverse.argsort(stable=True)
        starts = counts.cumsum(0) - counts
        most = max(1, min(MOST_ROWS, SCALARS_AT_ONCE // scalars_a_row))
        # A pattern with more rows than a block may hold is cut into pieces.
        pieces = (counts + most - 1) // most
        pattern = torch.repeat_interleave(torch.arange(counts.shape[0], device=counts.device), pieces)
        number = torch.arange(pattern.shape[0], device=counts.device) - (pieces.cumsum(0) - pieces)[pattern]
        start = starts[pattern] + number * most
        length = torch.minimum(counts[pattern] - number * most, counts.new_tensor(most))
        blocks = []
        for chosen, width in _alike(length):
            together = max(1, SCALARS_AT_ONCE // (width * scalars_a_row + scalars_a_pattern))
            place = torch.arange(width, device=counts.device)
            for part in chosen.split(together):
                valid = place < length[part].unsqueeze(1)
                index = order[start[part].unsqueeze(1) + torch.where(valid, place, 0)]
                blocks.append(Block(observed[index[:, 0]], index, valid))
        return Patterns(observed, counts.shape[0], blocks)

    def collect(self, parts: list[Tensor]) -> Tensor:
        """Results ``[B, R, ...]`` of every block, in the order of the rows: ``[n, ...]``, differentiable."""
        index = torch.cat([block.index[block.valid] for block in self.blocks])
        values = torch.cat([part[block.valid] for part, block in zip(parts, self.blocks, strict=True)])
        return values[index.argsort()]


def _alike(length: Tensor) -> Iterator[tuple[Tensor, int]]:
    """The pieces whose lengths round up to the same power of two, and the longest of these lengths."""
    power = (length.double() - 0.5).log2().floor()
    for value in power.unique().tolist():
        chosen = (power == value).nonzero().squeeze(1)
        yield chosen, int(length[chosen].max())


def _unique(observed: Tensor) -> tuple[Tensor, Tensor]:
    """The pattern of every row ``[n]``, as an index, and how many rows have each ``[P]``."""
    features = observed.shape[1]
    words = -(-features // BITS)
    digits = torch.zeros(features, words, dtype=torch.float64, device=observed.device)
    position = torch.arange(features, device=observed.device)
    digits[position, position // BITS] = 2.0 ** (position % BITS).double()
    packed = torch.cat([rows.double() @ digits for rows in observed.split(ROWS_TO_PACK)])
    if words == 1:
        _, inverse, counts = packed.squeeze(1).unique(return_inverse=True, return_counts=True)
    else:
        _, inverse, counts = packed.unique(dim=0, return_inverse=True, return_counts=True)
    return inverse, counts
