"""Which fit a fit is: what its checkpoint and its processes must agree on."""

from __future__ import annotations

import torch
from torch import Generator, nn
from torch.optim import Optimizer

from density.data.digest import data_in_words, parameters_in_words
from density.data.stream import Stream
from density.fitting.batches import Batch
from density.fitting.checkpoint import Task
from density.fitting.training import Training
from density.parallel import processes


def task_of(
    module: nn.Module,
    optimiser: Optimizer,
    data: Batch,
    stream: Stream | None,
    training: Training,
    parts: int,
    generator: Generator | None,
) -> Task:
    """The identity of a fit: all that its checkpoint and its processes must agree on."""
    if training.checkpoint is None and processes.world() == 1:
        return {}
    usual = ("lr", training.learning_rate)  # said already
    kind = torch.optim.LBFGS if isinstance(optimiser, torch.optim.LBFGS) else type(optimiser)  # wherever it searches
    groups = [
        {name: value for name, value in group.items() if name != "params" and (name, value) != usual}
        for group in optimiser.param_groups
    ]
    return {
        "model": parameters_in_words(module),
        "data": "; ".join(filter(None, [data_in_words(data), "" if stream is None else stream.in_words()])),
        **training.task(),
        "optimiser": f"{kind.__name__} {groups}",
        "parts": parts,
        "generator": "torch's own" if generator is None else "given",
    }
