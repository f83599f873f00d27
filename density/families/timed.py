"""A network of points, a number and contexts side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.families.network import network_output
from density.initialisation import Standardisation
from density.rebuildable import Rebuildable


class Timed(Rebuildable, nn.Module):
    """A function of points, a number and contexts, f(x, t, c), by a network that reads them side by side.

    A velocity at a time, or the noise in a latent at a noise level. The first ``fit`` standardises the contexts.

    Args:
        network: maps rows ``[n, D + 1 + C]`` to ``[n, D]``, or to n events of D numbers.
        features: D.
        context_features: C.
        unit: of t; the network sees t / unit.

    Raises:
        ValueError: a size is not a positive int; in use, the network returns something else.

    >>> velocity = Timed(nn.Linear(3, 2), features=2)
    >>> velocity(torch.zeros(5, 2), torch.tensor(0.5)).shape
    torch.Size([5, 2])
    """

    def __init__(self, network: nn.Module, features: int, context_features: int = 0, unit: float = 1.0) -> None:
        super().__init__()
        self.features = check_count(features, f"{type(self).__name__}: features")
        self.context_features = check_count(context_features, f"{type(self).__name__}: context_features", least=0)
        self.unit = unit
        self.network = network
        self.standardise = Standardisation(self.context_features) if self.context_features else None

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """``[n, D]`` at points ``[n, D]``; t is a scalar, or ``[n, 1]``, one for each point."""
        seen = [x, (t / self.unit).to(x.dtype).expand(len(x), 1)]
        if self.standardise is not None and context is not None:
            seen.append(self.standardise(context))
        return network_output(
            self.network, torch.cat(seen, 1), self.features, type(self).__name__, "one for each feature"
        )
