"""Convolutional networks from images to images of the same height and width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from density.checks import check_count
from density.families.nets import hidden_units
from density.families.network import OutOfPlace, leaves_input_alone
from density.rebuildable import Rebuildable

ImageNetwork = Callable[[int, int], nn.Module]


def convolutional_network(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[], nn.Module] = nn.Tanh,
    *,
    dropout: float = 0.0,
) -> nn.Sequential:
    """3×3 convolutions at both ends and 1×1 ones between hidden layers: images ``[n, inputs, H, W]`` to outputs.

    The network of Glow's couplings (Kingma & Dhariwal 2018, arXiv:1807.03039, §4). The last layer starts at zero.

    Args:
        inputs, outputs: channels at the two ends.
        hidden: channels of the hidden layers; at least one.
        activation: of the hidden layers. Bounded by default, so that the outputs are: see
            :class:`~flows.AffineCoupling`.
        dropout: share of the hidden units that is dropped in training mode; 0 adds no layer.

    Raises:
        ValueError: a width is not a positive int, there is none, or dropout is not in [0, 1).

    Cost: O(number of weights) a pixel.

    >>> [type(layer).__name__ for layer in convolutional_network(2, 4, (8, 8))]
    ['Conv2d', 'Tanh', 'Conv2d', 'Tanh', 'Conv2d']
    """
    owner = "convolutional_network"
    widths = [check_count(width, f"{owner}: hidden[{position}]") for position, width in enumerate(hidden)]
    if not widths:
        raise ValueError(f"{owner} expects at least one hidden layer; got none")
    layers: list[nn.Module] = [nn.Conv2d(check_count(inputs, f"{owner}: inputs"), widths[0], 3, padding=1)]
    for width, following in pairwise(widths):
        layers += [*hidden_units(activation, dropout, owner), nn.Conv2d(width, following, 1)]
    return nn.Sequential(*layers, *hidden_units(activation, dropout, owner), _zero(widths[-1], outputs, owner))


def residual_network(
    inputs: int,
    outputs: int,
    channels: int = 64,
    blocks: int = 2,
    activation: Callable[[], nn.Module] = nn.Tanh,
    *,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A 3×3 convolution, residual blocks, and a 3×3 convolution that starts at zero: it sees 5 + 4·blocks pixels.

    Args:
        inputs, outputs: channels at the two ends.
        channels: of the blocks.
        blocks: how many.
        activation: before each convolution but the first. Bounded by default, so that the outputs are.
        dropout: share of the hidden units that is dropped in training mode; 0 adds no layer.

    Raises:
        ValueError: a count is not a positive int, or dropout is not in [0, 1).

    Cost: O(number of weights) a pixel.

    >>> [type(layer).__name__ for layer in residual_network(2, 4, 8, blocks=1)]
    ['Conv2d', 'ResidualBlock', 'Tanh', 'Conv2d']
    """
    owner = "residual_network"
    inputs, channels = check_count(inputs, f"{owner}: inputs"), check_count(channels, f"{owner}: channels")
    first = nn.Conv2d(inputs, channels, 3, padding=1)
    body = [ResidualBlock(channels, activation, dropout) for _ in range(check_count(blocks, f"{owner}: blocks"))]
    return nn.Sequential(first, *body, *hidden_units(activation, dropout, owner), _zero(channels, outputs, owner))


class ResidualBlock(Rebuildable, OutOfPlace):
    """A residual block of images, x + W₂ a(W₁ a(x)) with 3×3 convolutions (He et al. 2016, arXiv:1603.05027, fig. 4e).

    Args:
        channels: of its input and its output.
        activation: a.
        dropout: share of the hidden units that is dropped in training mode.
        zero_init: start W₂ at zero, so that the block starts as the identity, and a deep stack of them needs no
            normalisation to be trained.

    >>> import torch
    >>> ResidualBlock(3)(torch.zeros(2, 3, 5, 5)).shape
    torch.Size([2, 3, 5, 5])
    """

    def __init__(
        self,
        channels: int,
        activation: Callable[[], nn.Module] = nn.Tanh,
        dropout: float = 0.0,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        channels = check_count(channels, f"{owner}: channels")
        self.residual = nn.Sequential(
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            *hidden_units(activation, dropout, owner),
            _zero(channels, channels, owner) if zero_init else nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.residual(x if leaves_input_alone(self.residual) else x.clone())
        return x + change


def channels_last(images: Tensor) -> Tensor:
    """Images ``[n, C, H, W]`` whose channels lie side by side in memory, by which convolutions are faster."""
    return images.movedim(1, -1).contiguous().movedim(-1, 1)


def _zero(inputs: int, outputs: int, owner: str) -> nn.Conv2d:
    """A 3×3 convolution that starts at zero."""
    layer = nn.Conv2d(inputs, check_count(outputs, f"{owner}: outputs"), 3, padding=1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
