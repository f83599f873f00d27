"""Rows grouped by pattern: a partition of the rows, in bounded blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from lvm.missing import patterns as module
from lvm.missing.patterns import Patterns


@pytest.mark.parametrize(("n", "features"), [(1, 1), (7, 3), (500, 4), (300, 120), (1000, 1)])
@pytest.mark.parametrize("limit", [1, 100, 2**20])
def test_every_row_is_in_one_block_with_its_own_pattern(
    n: int, features: int, limit: int, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCALARS_AT_ONCE", limit)
    observed = torch.rand(n, features, generator=generator) < 0.6
    patterns = Patterns.of(observed, 3, 5)
    assert patterns.count == len(observed.unique(dim=0))
    seen = torch.cat([block.index[block.valid] for block in patterns.blocks])
    assert torch.equal(seen.sort().values, torch.arange(n))
    for block in patterns.blocks:
        assert torch.equal(observed[block.index], block.mask.unsqueeze(1).expand(*block.index.shape, -1))
        assert block.valid[:, 0].all()
        b, r = block.index.shape
        assert b == 1 or b * (3 * r + 5) <= limit
        assert r == 1 or 3 * r <= limit
        assert 2 * block.valid.sum() > block.valid.numel()  # less than half of the work is on repetitions
    row = torch.arange(float(n))
    assert torch.equal(patterns.collect([row[block.index] for block in patterns.blocks]), row)


def test_a_pattern_is_known_by_all_of_its_features() -> None:
    observed = torch.ones(120, 120, dtype=torch.bool)
    observed.fill_diagonal_(False)  # each row misses another feature, also beyond the 52 bits of one float64
    assert Patterns.of(observed, 1, 1).count == 120


def test_few_blocks_for_many_patterns(generator: Generator) -> None:
    observed = torch.rand(20_000, 16, generator=generator) < 0.5
    patterns = Patterns.of(observed, 100, 100)
    assert patterns.count > 10_000
    assert len(patterns.blocks) < 20


def test_values_and_weights_of_a_block() -> None:
    x = torch.tensor([[1.0, torch.nan], [2.0, torch.nan], [3.0, torch.nan], [4.0, 5.0]])
    blocks = Patterns.of(~x.isnan(), 1, 1).blocks
    (several,) = [block for block in blocks if block.valid.shape[1] > 1]
    assert several.rows(x).tolist() == [[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]]
    assert several.weights(None).tolist() == [[1.0, 1.0, 1.0]]
    assert several.weights(torch.tensor([2.0, 3.0, 4.0, 5.0])).tolist() == [[2.0, 3.0, 4.0]]
