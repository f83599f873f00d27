"""Densities whose parameters a network computes from the context."""

from __future__ import annotations

from abc import ABC

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.contract import Density


class Conditional(Density, ABC):
    """A density whose parameters are the :func:`network_output` at the context.

    Args:
        network: maps ``[*batch, C]`` to some numbers for each of the D features, ``[*batch, numbers · D]``.
        features: D.
        context_features: C.
    """

    def __init__(self, network: nn.Module, features: int, context_features: int) -> None:
        super().__init__()
        check_count(features, "features")
        check_count(context_features, "context_features")
        self.features = features
        self.context_features = context_features
        self.network = network
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # networks may be free of parameters


def network_output(network: nn.Module, context: Tensor | None, width: int, owner: str) -> Tensor:
    """What a network makes of contexts ``[*batch, C]``: ``[*batch, width]``.

    Raises:
        ValueError: the network returns another width.
    """
    output: Tensor = network(context)
    if output.shape[-1] != width:
        raise ValueError(f"{owner} expects its network to return [*batch, {width}]; got {list(output.shape)}")
    return output
