"""The one fully connected network, shared so that flows and latent-variable models need not know each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from density.checks import check_count


def mlp(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[], nn.Module] = nn.SiLU,
    *,
    zero_init: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Linear layers with an activation between them: ``[*batch, inputs]`` to ``[*batch, outputs]``.

    Args:
        inputs, outputs: widths of the two ends.
        hidden: widths of the hidden layers; empty for one linear map.
        activation: makes the module between two linear layers.
        zero_init: start the last layer at zero, so that the network starts as the constant 0.
        dropout: share of the hidden units that is dropped in training mode, after each activation; 0 adds no layer.

    Raises:
        ValueError: a width is not a positive int, or dropout not in [0, 1).

    Cost: O(number of weights) per point.

    >>> import torch
    >>> net = mlp(3, 2, hidden=(8,), zero_init=True)
    >>> [type(layer).__name__ for layer in net]
    ['Linear', 'SiLU', 'Linear']
    >>> net(torch.ones(5, 3)).abs().max().item()
    0.0
    """
    inputs = check_count(inputs, "inputs")
    outputs = check_count(outputs, "outputs")
    widths = [check_count(width, f"hidden[{position}]") for position, width in enumerate(hidden)]
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), *hidden_units(activation, dropout, "mlp")]
        inputs = width
    last = nn.Linear(inputs, outputs)
    if zero_init:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def hidden_units(activation: Callable[[], nn.Module], dropout: float, owner: str) -> list[nn.Module]:
    """What follows a hidden linear layer: the activation, and dropout where its rate is not 0.

    Raises:
        ValueError: the rate is not in [0, 1).
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"{owner} expects a dropout rate in [0, 1); got {dropout}")
    return [activation(), nn.Dropout(dropout)] if dropout else [activation()]
