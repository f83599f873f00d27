"""Networks and transforms evaluated with points as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as modules

from density.families.network import leaves_input_alone, network_output, refusal

ELEMENTWISE = (
    nn.CELU,
    nn.Dropout,
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
PLAIN = {nn.Linear, *ELEMENTWISE}


def columns(network: nn.Module, x: Tensor, width: int, owner: str, numbers: str) -> Tensor:
    """The outputs of a network for points as columns: network(xᵀ)ᵀ, ``[width, n]`` for x ``[inputs, n]``.

    Each output then lies contiguous in memory, so that what follows works on whole rows. A ``Sequential`` of linear
    layers and elementwise activations is evaluated so, a layer of it that does not hold its weights itself with points
    as rows; any other network as a whole, and one that somebody watches (:func:`is_watched`), has points as rows, by
    :func:`~density.families.network.network_output`. Where a graph is recorded, all layers have points as columns,
    which the products of the gradient with narrow first and last layers are faster for; elsewhere the last layer alone,
    since wide products share better between threads with points as rows; the two agree to rounding.

    Args:
        network, x, width, owner, numbers: as in :func:`~density.families.network.network_output`.

    Raises:
        ValueError: the network returns something else.

    Cost: that of the network.

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    >>> x = torch.randn(5, 2)
    >>> torch.allclose(columns(net, x.T, 3, "Doctest", "numbers"), net(x).T, atol=1e-6)
    True
    """
    layers = list(network) if type(network) is nn.Sequential else []
    if not layers or any(HOOKS_OF_ALL) or not PLAIN.issuperset(map(type, layers)) or is_watched([network, *layers]):
        return network_output(network, x.T, width, owner, numbers).T.contiguous()
    if type(layers[0]) is not nn.Linear and not leaves_input_alone(network):
        x = x.clone()
    last = None if torch.is_grad_enabled() else layers[-1]
    fresh = False  # whether x is a product just formed, which nobody else reads: a product's gradient does not
    for layer in layers:
        kind, held = type(layer), layer._parameters
        weight = held.get("weight")
        if kind is nn.Linear and weight is not None and "bias" in held:
            bias, fresh = held["bias"], True
            if last is not None and layer is not last:
                x = F.linear(x.T, weight, bias).T
            else:
                x = weight @ x if bias is None else torch.addmm(bias.unsqueeze(1), weight, x)
        elif kind is nn.Linear:
            x, fresh = layer(x.T).T, False
        elif fresh and kind is nn.ReLU:
            x, fresh = torch.relu_(x), False
        elif fresh and kind is nn.Tanh:
            x, fresh = torch.tanh_(x), False
        else:
            x, fresh = layer(x), False
    if x.shape[0] != width:
        raise ValueError(refusal(x.T, x.shape[1], width, owner, numbers))
    return x


def by_columns(
    function: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What a function of columns returns for points ``[*batch, D]`` and contexts ``[*batch, C]`` of one batch shape.

    Its log-determinants may be one for each point, or rows to be summed.
    """
    flat = None if context is None else context.reshape(-1, context.shape[-1]).T
    z, log_det = function(x.reshape(-1, x.shape[-1]).T, flat)
    log_det = log_det.sum(0) if log_det.ndim == 2 else log_det
    return z.T.reshape(x.shape), log_det.reshape(x.shape[:-1])


# The private names of torch that this library uses: all of them are in this file. torch has no public query for hooks,
# which are what nn.Module.__call__ asks for before it goes straight to ``forward``. And it has none for weights that a
# layer holds itself: replicas, shards and pruned layers hold computed tensors of these names, and no such parameters.
# tests/flows/networks/test_columns.py fails when these names change.
HOOKS_OF_ALL = (
    modules._global_forward_hooks,
    modules._global_forward_pre_hooks,
    modules._global_backward_hooks,
    modules._global_backward_pre_hooks,
)


def is_watched(layers: Iterable[nn.Module]) -> bool:
    """Whether calling one of the layers means more than its formula: it has hooks, or another ``forward``."""
    for layer in layers:
        if (
            layer._forward_hooks
            or layer._forward_pre_hooks
            or layer._backward_hooks
            or layer._backward_pre_hooks
            or "forward" in layer.__dict__
        ):
            return True
    return False
