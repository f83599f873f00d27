"""Densities whose parameters a network computes from the context."""

from __future__ import annotations

from abc import ABC

import torch
from torch import nn

from density.checks import check_count
from density.contract import Density


class Conditional(Density, ABC):
    """A density whose parameters are the :func:`~density.families.network.network_output` at the context.

    Args:
        network: maps ``[n, C]`` to some numbers for each of the D features, ``[n, numbers · D]``, or to n events of as
            many numbers. It sees contexts of any batch shape as rows.
        features: D.
        context_features: C.
    """

    def __init__(self, network: nn.Module, features: int, context_features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        context_features = check_count(context_features, "context_features")
        self.features = features
        self.context_features = context_features
        self.network = network
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # networks may be free of parameters
