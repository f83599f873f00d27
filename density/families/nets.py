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
) -> nn.Sequential:
    """Linear layers with an activation between them: ``[*batch, inputs]`` to ``[*batch, outputs]``.

    Args:
        inputs, outputs: widths of the two ends.
        hidden: widths of the hidden layers; empty for one linear map.
        activation: makes the module between two linear layers.
        zero_init: start the last layer at zero, so that the network starts as the constant 0.

    Raises:
        ValueError: a width is not a positive int.

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
        layers += [nn.Linear(inputs, width), activation()]
        inputs = width
    last = nn.Linear(inputs, outputs)
    if zero_init:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
