"""Networks and transforms evaluated with points as columns."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    Each output then lies contiguous in memory, so that what follows works on whole rows. The plain linear layers and
    elementwise activations of a ``Sequential`` are evaluated so; any other network or layer, or one with hooks, is
    called with points as rows. Where a graph is recorded, all layers have points as columns, which the products of the
    gradient with narrow first and last layers are faster for; elsewhere the last layer alone, since wide products
    share better between threads with points as rows; the two agree to rounding.

    Cost: that of the network.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    >>> x = torch.randn(5, 2)
    >>> torch.allclose(columns(net, x.T), net(x).T, atol=1e-6)
    True
    """
    if type(network) is not nn.Sequential or _watched(network):
        y: Tensor = network(x.T)
        return y.T
    last = None if torch.is_grad_enabled() or len(network) == 0 else network[-1]
    fresh = False  # whether x is a product just formed, which nobody else reads: a product's gradient does not
    for layer in network:
        kind = type(layer)
        if _watched(layer) or not (kind in ELEMENTWISE or kind is nn.Linear):
            x, fresh = layer(x.T).T, False
        elif isinstance(layer, nn.Linear):
            (weight, bias), fresh = _weight_and_bias(layer), True
            if last is not None and layer is not last:
                x = F.linear(x.T, weight, bias).T
            else:
                x = weight @ x if bias is None else torch.addmm(bias.unsqueeze(1), weight, x)
        elif fresh and kind is nn.ReLU:
            x, fresh = torch.relu_(x), False
        elif fresh and kind is nn.Tanh:
            x, fresh = torch.tanh_(x), False
        else:
            x, fresh = layer(x), False
    return x


def by_columns(
    function: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A function of columns applied to points ``[*batch, D]`` and contexts ``[*batch, C]`` of one batch shape.

    Its log-determinants may be one for each point, or rows to be summed.
    """
    flat = None if context is None else context.reshape(-1, context.shape[-1]).T
    z, log_det = function(x.reshape(-1, x.shape[-1]).T, flat)
    log_det = log_det.sum(0) if log_det.ndim == 2 else log_det
    return z.T.reshape(x.shape), log_det.reshape(x.shape[:-1])


def _weight_and_bias(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    try:
        weight, bias = layer._parameters["weight"], layer._parameters["bias"]  # five times as fast as by attribute
    except KeyError:  # replicas of a layer, and shards, hold tensors of the names instead
        return layer.weight, layer.bias
    assert weight is not None
    return weight, bias


def _watched(layer: nn.Module) -> bool:
    """Whether somebody has hooked into a layer, and so expects it to be called with points as rows."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)
