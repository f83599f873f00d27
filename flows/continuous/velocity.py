"""A velocity on a network of points, time and contexts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.network import network_output
from density.initialisation import Standardisation
from density.rebuildable import Rebuildable


class Velocity(Rebuildable, nn.Module):
    """A velocity v(x, t, c) by a network that reads points, time and contexts side by side.

    The first ``fit`` standardises the contexts.

    Args:
        network: maps rows ``[n, D + 1 + C]`` to ``[n, D]``, or to n events of D numbers.
        features: D.
        context_features: C.

    Raises:
        ValueError: a size is not a positive int; in use, the network returns something else.

    >>> velocity = Velocity(nn.Linear(3, 2), features=2)
    >>> velocity(torch.zeros(5, 2), torch.tensor(0.5)).shape
    torch.Size([5, 2])
    """

    def __init__(self, network: nn.Module, features: int, context_features: int = 0) -> None:
        super().__init__()
        self.features = check_count(features, f"{type(self).__name__}: features")
        self.context_features = check_count(context_features, f"{type(self).__name__}: context_features", least=0)
        self.network = network
        self.standardise = Standardisation(self.context_features) if self.context_features else None

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocities ``[n, D]`` at points ``[n, D]``; t is a scalar, or ``[n, 1]``, a time for each point."""
        seen = [x, t.to(x.dtype).expand(len(x), 1)]
        if self.standardise is not None and context is not None:
            seen.append(self.standardise(context))
        return network_output(
            self.network, torch.cat(seen, 1), self.features, type(self).__name__, "a velocity for each feature"
        )
