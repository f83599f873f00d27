"""Activation normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.contract import check_count
from flows.transform import Transform


class ActNorm(Transform):
    r"""A trainable shift and scale of each feature, first set from data.

    Kingma & Dhariwal 2018, arXiv:1807.03039, §3.1.

    .. math:: z = (x - \text{shift}) \, e^{-\text{log\_scale}}, \qquad
              \log|\det \partial z/\partial x| = -\sum \text{log\_scale}

    A new layer is the identity. :meth:`initialise` sets mean 0 and standard deviation 1 on the points that it is given,
    once: the buffer ``initialised`` remembers. A feature that is constant there, up to rounding, is shifted and keeps
    scale 1.

    Args:
        features: width D.

    Raises:
        ValueError: features is not a positive int.

    Cost: O(D) per point.

    >>> layer = ActNorm(2)
    >>> layer.initialise(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    features: int
    initialised: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        check_count(features, "features")
        self.features = features
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("initialised", torch.tensor(False))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (x - self.shift) * torch.exp(-self.log_scale), -self.log_scale.sum().expand(x.shape[:-1])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * torch.exp(self.log_scale) + self.shift, self.log_scale.sum().expand(z.shape[:-1])

    def _initialise(self, x: Tensor, context: Tensor | None) -> Tensor:
        if not self.initialised:
            mean, std = column_moments(x.reshape(-1, self.features))
            self.shift.copy_(mean)
            self.log_scale.copy_(std.log())
            self.initialised.fill_(True)
        return self._forward(x, context)[0]


def column_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (divisor n) of each column of ``[n, D]``; the latter is 1 for a constant column.

    Differences from the first row, in units of the largest, lose nothing to an offset and neither under- nor overflow.
    A spread within 4 roundings of the largest value counts as none.
    """
    difference = x - x[0]
    spread = difference.abs().amax(0)
    constant = spread <= 4 * torch.finfo(x.dtype).eps * x.abs().amax(0)
    unit = spread.where(~constant, 1.0)
    scaled = difference / unit
    mean = scaled.mean(0)
    std = (scaled - mean).square().mean(0).sqrt() * unit
    return x[0] + mean * unit, std.where(~constant, 1.0)
