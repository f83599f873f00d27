"""The decoder of a Gaussian mixture."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count, free_to_look
from lvm.components import ComponentFamily
from lvm.mixture.covariance import Covariance

SCALARS_AT_ONCE = 2**20  # residuals formed together in one call of log_prob


class Components(ComponentFamily):
    r"""K Gaussians, of which the one-hot context z picks one: p(x|z) = N(x; μ_z, Σ_z).

    .. math:: \log p(x|z_k = 1) = -\tfrac12 \lVert S_k^{-1}(x-\mu_k)\rVert^2 - \log\det S_k - \tfrac D2\log 2\pi

    The K log-densities of a point are computed once and then picked from, however many z it is paired with; draws are
    grouped by component. Both are batched matrix products. O(KD²) a point, or O(KD).

    Args:
        features: D.
        components: K, the size of the context.
        covariance: structure of the covariances.

    >>> from lvm import Full
    >>> components = Components(2, 3, Full())
    >>> components.log_prob_of_each(torch.zeros(5, 2)).shape, components.context_features
    (torch.Size([5, 3]), 3)
    """

    def __init__(self, features: int, components: int, covariance: Covariance) -> None:
        super().__init__()
        self.features = features = check_count(features, "features")
        self.context_features = components = check_count(components, "components")
        self.covariance = covariance
        self.means = nn.Parameter(torch.randn(components, features))
        self.factor = nn.Parameter(torch.zeros(covariance.shape(components, features)))

    def log_prob_of_each(self, x: Tensor) -> Tensor:
        """log N(x; μ_k, Σ_k) for every k: ``[*batch, K]`` for x ``[*batch, D]``."""
        constant = self.log_det() + 0.5 * self.features * math.log(2 * math.pi)
        return -0.5 * self._distance(x, self.means.unsqueeze(1)) - constant

    def log_ratio_of_each(self, x: Tensor) -> Tensor:
        """The log-densities less a number for each row, ``[*batch, K]``: without overflow, however far away x is.

        Distances are formed in units of about the row's largest entry, and compared before they are given their units
        back. Units are powers of 2, so that nothing is rounded.
        """
        largest = x.detach().abs().amax(-1, keepdim=True).clamp_min(1.0)
        unit = largest / (2 * largest.frexp().mantissa)
        distance = self._distance(x / unit, self.means.unsqueeze(1), unit.reshape(-1, 1))
        further = distance - distance.amin(-1, keepdim=True)
        return -0.5 * (further * unit) * unit - self.log_det()

    def _distance(self, x: Tensor, means: Tensor, unit: Tensor | None = None) -> Tensor:
        """‖S_k⁻¹(x − μ_k)‖², ``[*batch, K]``, for x, and so the means, in units ``[rows, 1]``."""
        precision = self.covariance.precision(self.factor)
        rows = max(1, SCALARS_AT_ONCE // self.means.numel())
        parts = x.reshape(-1, self.features).split(rows)
        units = [None] * len(parts) if unit is None else unit.split(rows)
        squares = [
            self.covariance.distance(part - (means if own is None else means / own), precision)
            for part, own in zip(parts, units, strict=True)
        ]
        return torch.cat(squares, -1).mT.reshape(*x.shape[:-1], self.context_features)

    def log_det(self) -> Tensor:
        """log det S_k, ``[K]``."""
        return self.covariance.log_det(self.factor, self.features).expand(self.context_features)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None, "the base class has checked it"
        each = self.log_prob_of_each(x)
        index = context.argmax(-1, keepdim=True)
        shape = torch.broadcast_shapes(each.shape[:-1], index.shape[:-1])
        return each.expand(*shape, self.context_features).gather(-1, index.expand(*shape, 1)).squeeze(-1)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self._sample_with_log_prob(n, context, generator)[0]

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        assert context is not None, "the base class has checked it"
        index = context.argmax(-1).expand(n, *context.shape[:-1])
        noise = torch.randn(
            *index.shape, self.features, generator=generator, dtype=self.means.dtype, device=self.means.device
        )
        coloured = self._color(noise.reshape(-1, self.features), index.reshape(-1)).reshape(noise.shape)
        constant = self.log_det() + 0.5 * self.features * math.log(2 * math.pi)
        return self.means[index] + coloured, -0.5 * noise.square().sum(-1) - constant[index]

    def _expectation(self, context: Tensor | None) -> Tensor:
        assert context is not None, "the base class has checked it"
        return context @ self.means

    def _color(self, noise: Tensor, index: Tensor) -> Tensor:
        """S_k ε for rows of noise ``[m, D]`` with components ``[m]``: one product over rows grouped by component.

        How many rows a group has can only be looked at; where that would wait, every row has a factor of its own.
        """
        if not free_to_look(noise):
            return self._color_each(noise, index)
        order = index.argsort(stable=True)
        count = index.bincount(minlength=self.context_features)
        place = torch.empty_like(index)
        place[order] = torch.arange(index.numel(), device=index.device) - (count.cumsum(0) - count)[index[order]]
        grouped = noise.new_zeros(self.context_features, int(count.max()), self.features)
        grouped[index, place] = noise
        return self.covariance.color(grouped, self.factor)[index, place]

    def _color_each(self, noise: Tensor, index: Tensor) -> Tensor:
        if self.covariance.shared:
            return self.covariance.color(noise, self.factor)
        rows = max(1, SCALARS_AT_ONCE // (self.factor.numel() // self.context_features))
        coloured = [
            self.covariance.color(some.unsqueeze(1), self.factor[of]).squeeze(1)
            for some, of in zip(noise.split(rows), index.split(rows), strict=True)
        ]
        return torch.cat(coloured)
