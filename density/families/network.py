"""A user's network, called in one way wherever the parameters of a density or a bijection come from one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# What these return is their input, or a view of it, so that the layer after them may write into it.
VIEWS = {nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout}
# These write into their input where they have an ``inplace`` that says so, and nowhere else.
LAYERS = {
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm,
    nn.CELU, nn.ELU, nn.GELU, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.PReLU, nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Tanh,
}  # fmt: skip


class OutOfPlace(nn.Module):
    """A network that writes nothing into the points it is given, so that it needs no copy of what others still read."""


class InputLayer(OutOfPlace):
    """What a network does first with the points that it reads, so that it sees numbers of size 1.

    Attributes:
        features: how many it does it with; what is behind them, of a context, passes.
    """

    features: int

    def blank(self, like: Tensor) -> Tensor:
        """What stands for missing entries of such points, ``[features]``: what becomes 0; nan, where that does."""
        raise TypeError(f"{type(self).__name__} does not say what stands for a missing entry")


def with_blanks(rows: Tensor, features: int, network: nn.Module) -> Tensor:
    """Rows ``[*batch, features + C]`` as a network may see them, where nan marks missing ones of the first features.

    What the network's :class:`InputLayer` makes 0 of stands there; 0, where it has none.
    """
    layers = (layer for layer in network.modules() if isinstance(layer, InputLayer))
    points = rows[..., :features]
    blank = next((layer.blank(points) for layer in layers if layer.features in (features, rows.shape[-1])), None)
    instead = points.new_zeros(()) if blank is None else blank[:features].to(points)
    filled = torch.where(points.isnan(), instead, points)
    return filled if rows.shape[-1] == features else torch.cat([filled, rows[..., features:]], -1)


def network_output(
    network: nn.Module,
    x: Tensor | None,
    width: int,
    owner: str,
    numbers: str,
    pair: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """The numbers ``[*batch, width]`` that a network returns for points ``[*batch, C]``.

    The network sees ``[n, C]`` whatever the batch shape is, a single point as ``[1, C]``: so convolutions, networks
    that fold dimensions themselves, and normalisation over the batch do as they do elsewhere. It may return
    ``[n, width]``, or n events of as many numbers, such as images ``[n, 1, 8, 8]``. It may write into what it sees:
    where it is not known to leave that alone (:func:`leaves_input_alone`), it sees a copy.

    Args:
        network: of one's own.
        x: points, or contexts.
        width: how many numbers.
        owner: the class that asks, for the error.
        numbers: what they are called, for the error.
        pair: makes one tensor ``[n, width]`` of two ``[n, width / 2]``; None where a pair is not understood.

    Raises:
        ValueError: the network returns anything else, or there is no context.

    Cost: that of the network, and of a copy of x where it may write into it.

    >>> import torch
    >>> image = nn.Sequential(nn.Unflatten(-1, (1, 2, 2)), nn.ConvTranspose2d(1, 1, 2))
    >>> network_output(image, torch.zeros(5, 3, 4), 9, "Doctest", "pixels").shape
    torch.Size([5, 3, 9])
    """
    if x is None:
        raise ValueError(f"{owner} needs a context [*batch, C] for its network; got none")
    rows = x if x.ndim == 2 else x.unsqueeze(0) if x.ndim == 1 else x.flatten(0, -2)
    output: object = network(rows if leaves_input_alone(network) else rows.clone())
    n = rows.shape[0]
    if isinstance(output, Tensor) and output.shape == (n, width):
        flat: Tensor | None = output
    elif pair is not None and isinstance(output, tuple | list) and len(output) == 2:
        mean, log_variance = (_events(half, n, width // 2) for half in output)
        flat = None if mean is None or log_variance is None else pair(mean, log_variance)
    else:
        flat = _events(output, n, width)
    if flat is None:
        raise ValueError(refusal(output, n, width, owner, numbers, pair is not None))
    return flat if x.ndim == 2 else flat.reshape(*x.shape[:-1], width)


def refusal(output: object, n: int, width: int, owner: str, numbers: str, pair: bool = False) -> str:
    """The error about a network that returned something else than that many numbers for each of n points."""
    or_pair = f", or a pair (mean, log-variance) of [n, {width // 2}] each" if pair else ""
    return (
        f"{owner} expects its network to return [n, {width}] for n points, {numbers}, or n events of as many "
        f"numbers{or_pair}; got {_shown(output)} for n = {n} (docs/howto/own_network.md)"
    )


def leaves_input_alone(network: nn.Module) -> bool:
    """Whether a network is known to write nothing into its input: of a ``Sequential``, the first layers decide.

    >>> leaves_input_alone(nn.Sequential(nn.Flatten(), nn.Linear(3, 3), nn.ReLU(inplace=True)))
    True
    >>> leaves_input_alone(nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)))
    False
    """
    ahead = [network]
    while ahead:
        layer = ahead.pop(0)
        if type(layer) is nn.Sequential:
            ahead = [*layer, *ahead]
        elif layer.__dict__.get("inplace", False):
            return False
        elif type(layer) not in VIEWS:
            return type(layer) in LAYERS or isinstance(layer, OutOfPlace)
    return True


def _events(output: object, n: int, width: int) -> Tensor | None:
    """n events of that many numbers as ``[n, width]``; None if it is something else."""
    if not isinstance(output, Tensor) or output.ndim < 1:
        return None
    fits = output.shape[0] == n and math.prod(output.shape[1:]) == width
    return output.reshape(n, width) if fits else None


def _shown(output: object) -> str:
    if isinstance(output, Tensor):
        return str(list(output.shape))
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {', '.join(_shown(one) for one in output) or 'nothing'}"
    return f"a {type(output).__name__}"
