"""Which parameters of a model are weights of its networks."""

from __future__ import annotations

from typing import Any

from torch import nn

NETWORK_LAYERS = (
    nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention,
)  # fmt: skip
MATRIX = 2  # dimensions from which on a parameter is no bias and no scale


def network_weights(module: nn.Module) -> list[nn.Parameter]:
    """The matrices and kernels of the networks in a module: what weight decay is for.

    Biases, normalisation, and parameters that a density or a bijection holds itself (an LU layer's factors, an
    activation norm's scales, means and covariances of a mixture, a standard deviation) are none: zero is no simpler
    value of these than another.

    >>> [tuple(weight.shape) for weight in network_weights(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))]
    [(3, 2)]
    """
    found = {
        id(parameter): parameter
        for layer in module.modules()
        if isinstance(layer, NETWORK_LAYERS)
        for parameter in layer.parameters()
        if parameter.ndim >= MATRIX and parameter.requires_grad
    }
    return list(found.values())


def groups_of(
    module: nn.Module, parameters: list[nn.Parameter], weight_decay: float
) -> list[nn.Parameter] | list[dict[str, Any]]:
    """Parameters for an optimiser: in two groups where weights of networks decay, as they are otherwise.

    >>> layer = nn.Linear(2, 3)
    >>> [group["weight_decay"] for group in groups_of(layer, list(layer.parameters()), 0.1)]
    [0.1, 0.0]
    """
    decayed = network_weights(module) if weight_decay else []
    if not decayed:
        return parameters
    ids = {id(weight) for weight in decayed}
    others = [parameter for parameter in parameters if id(parameter) not in ids]
    groups = ({"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]
