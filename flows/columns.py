"""Networks and transforms evaluated with points as columns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

ELEMENTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.Mish,
    nn.ReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
)


def columns(network: nn.Module, x: Tensor) -> Tensor:
    """network(xᵀ)ᵀ for x ``[inputs, n]``: outputs ``[outputs, n]``.

    Each output then lies contiguous in memory, so that what follows works on whole rows, and the products with tall
    weight matrices are faster. A ``Sequential`` of plain linear layers and elementwise activations is evaluated so; any
    other network, or one with hooks, is called as it is.

    Cost: that of the network.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    >>> x = torch.randn(5, 2)
    >>> torch.allclose(columns(net, x.T), net(x).T, atol=1e-6)
    True
    """
    if type(network) is not nn.Sequential or network._forward_hooks or network._forward_pre_hooks:
        y: Tensor = network(x.T)
        return y.T
    layers = list(network)
    if not all(_plain(layer) for layer in layers):
        y = network(x.T)
        return y.T
    in_place = False
    for layer in layers:
        if isinstance(layer, nn.Linear):
            in_place = not torch.is_grad_enabled()
            x = layer.weight @ x if layer.bias is None else torch.addmm(layer.bias.unsqueeze(1), layer.weight, x)
        elif in_place and type(layer) is nn.ReLU:
            x = torch.relu_(x)
        elif in_place and type(layer) is nn.Tanh:
            x = torch.tanh_(x)
        else:
            x = layer(x)
    return x


def by_columns(
    function: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A function of columns applied to points ``[*batch, D]`` and contexts ``[*batch, C]`` of one batch shape."""
    flat = None if context is None else context.reshape(-1, context.shape[-1]).T
    z, log_det = function(x.reshape(-1, x.shape[-1]).T, flat)
    return z.T.reshape(x.shape), log_det.reshape(x.shape[:-1])


def _plain(layer: nn.Module) -> bool:
    """Whether a layer is a linear one or acts on each number by itself, and nobody has hooked into it."""
    return (type(layer) is nn.Linear or type(layer) in ELEMENTWISE) and not (
        layer._forward_hooks or layer._forward_pre_hooks
    )
