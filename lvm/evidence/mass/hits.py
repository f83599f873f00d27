"""How often a model draws each of some states: the masses that it puts there, by simulation."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from density.contract import Model
from density.data.blocks import ROWS_AT_ONCE
from density.data.digest import row_digests
from density.importance.weights import SECONDS_BEFORE_BAR
from density.parallel import processes


def hits(model: Model, states: Tensor, draws: int, generator: Generator | None = None) -> Tensor:
    """Counts ``[m]`` of so many independent draws of the model that are equal to each of m different states ``[m, D]``.

    Rows are found by a hash of 64 bits, and then compared. O(draws · (D + log m)), in blocks.

    >>> from density import Bernoulli
    >>> counts = hits(Bernoulli(1), torch.tensor([[0.0], [1.0]]), 1000, torch.Generator().manual_seed(0))
    >>> counts.sum().item(), 400 < counts[0].item() < 600
    (1000, True)
    """
    states = states + 0.0  # −0 is 0
    digests, order = row_digests([states]).to(states.device).sort()
    states = states[order]
    assert len(digests.unique()) == len(digests), "two different states have one hash of 64 bits"
    counts = torch.zeros(len(states), dtype=torch.int64, device=states.device)
    hidden = None if processes.is_main() else True
    bar = tqdm(total=draws, desc="simulated", leave=False, disable=hidden, delay=SECONDS_BEFORE_BAR, unit_scale=True)
    with torch.no_grad(), bar:
        for start in range(0, draws, ROWS_AT_ONCE):
            x = model.sample(min(ROWS_AT_ONCE, draws - start), generator=generator) + 0.0
            place = torch.searchsorted(digests, row_digests([x]).to(x.device)).clamp_max(len(digests) - 1)
            equal = (states[place] == x).all(-1)
            counts.index_add_(0, place, equal.long())
            bar.update(len(x))
    return torch.zeros_like(counts).scatter_(0, order, counts)
