"""Activation normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.initialisation import StartingPoints, check_units
from flows.transform import Transform


class Diagonal(NamedTuple):
    """A layer z = (x − centre) · factor + shift, each ``[D]``, and its log-determinant; without a shift None."""

    centre: Tensor
    factor: Tensor
    shift: Tensor | None
    log_abs_det: Tensor


class ActNorm(Transform):
    r"""An activation norm: a trainable shift and scale of each feature, first set from data.

    Kingma & Dhariwal 2018, arXiv:1807.03039, §3.1.

    .. math:: z = \Big(\frac{x - \text{mean}}{\text{std}} - \text{shift}\Big) \, e^{-\text{log\_scale}}, \qquad
              \log|\det \partial z/\partial x| = -\sum (\log\text{std} + \text{log\_scale})

    A new layer is the identity. :meth:`initialise` takes mean and standard deviation from the points that it is given,
    once: the buffer ``initialised`` remembers. Later data in other units are refused, where no trained layer lies
    between them and this one. A feature that is constant there, up to rounding, is shifted and keeps
    scale 1. Mean and std are buffers, so that what is trained has no units: a step of an optimiser is as large for data
    of scale 1e-8 as for any other.

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
    mean: Tensor
    std: Tensor
    initialised: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, f"{type(self).__name__}: features")
        self.features = features
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("initialised", torch.tensor(False))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z = ((x - self.mean) / self.std - self.shift) * torch.exp(-self.log_scale)
        return z, -self._log_abs_det().expand(x.shape[:-1])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = (z * torch.exp(self.log_scale) + self.shift) * self.std + self.mean
        return x, self._log_abs_det().expand(z.shape[:-1])

    @staticmethod
    def diagonals(layers: Sequence[ActNorm]) -> list[Diagonal]:
        """What several layers of one width do, formed together: a few kernels for all."""
        std, log_scale, shift = (
            torch.stack([getattr(layer, name) for layer in layers]) for name in ("std", "log_scale", "shift")
        )
        scale = torch.exp(-log_scale)
        log_det = -(std.log() + log_scale).sum(1)
        formed = zip((scale / std).unbind(0), (-shift * scale).unbind(0), log_det.unbind(0), strict=True)
        return [Diagonal(layer.mean, *one) for layer, one in zip(layers, formed, strict=True)]

    def _log_abs_det(self) -> Tensor:
        return (self.std.log() + self.log_scale).sum()

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        if x.known and not self.initialised:
            mean, std = column_moments(x.points.reshape(-1, self.features))
            self.mean.copy_(mean)
            self.std.copy_(std)
            self.initialised.fill_(True)
        elif x.fixed:
            check_units(x.points, self.mean, self.std, x.what)
        return self._onward(x, context)


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
