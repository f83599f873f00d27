r"""K Gaussians as two matrix products over the features 1, y and y yᵀ of whitened data.

About a centre c and in coordinates y = T(x − c) the log-joint of a component is a quadratic function of y,

.. math:: \log\pi_k + \log N(x;\mu_k,\Sigma_k) = b_k - \tfrac12 \lVert A_k (y - \nu_k)\rVert^2 = w_k^\top \phi(y),

linear in the features φ(y); and what the M-step wants of the data, :math:`\sum_i r_{ik}\,\phi(y_i)`, is linear in them,
too. So the E-step is the product W Φ, the M-step the product R Φᵀ, and no number is formed for every row, component and
feature. The price is cancellation, which is bounded here, for every component and every chunk of rows, before its
result is used. With N = F + 3D + 2 operations on a term (F features), rounding unit u and everything in float64, the
error of the log-joint, beside the rounding of y itself, is

.. math:: |\text{error}| \le c(N)\,u\,\tfrac12\big\lVert |A_k| \big\rVert_2^2\,(\lVert y\rVert + \lVert\nu_k\rVert)^2,

with c(N) = N whatever the roundings are (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 3), and
c(N) = 6 √N but for a probability of 10⁻⁷ N where they are independent with mean zero (Higham & Mary 2019). The smaller
one is taken: they part at D = 5, and at D = 64 the former is 8 times the latter.
Solved for ‖y‖ this is the component's ``radius``: rows within it are safe. The centre and the whitening are the
mixture's own mean and covariance, so the units of the data do not matter.

On a CPU each thread has a lane of the rows, and all numbers of a lane lie together: what a thread has written it also
reads, while features in one piece would be written along one side, multiplied along the other, and sent from core to
core each time, which takes from nothing to three times as long as the arithmetic, as near as the cores are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from density.linalg import pairs
from density.linalg.spectral_norm import inverse, squared_norm, squared_norm_of_inverse

TOLERANCE = 1e-8  # nats, of the bound; the largest error that the tests find is a quarter of it
UNIT = 0.5 * torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny

Sums = tuple[Tensor, Tensor, Tensor]


class Gaussians(Protocol):
    """A mixture as its features need it: K Gaussians, of covariances of some structure."""

    @property
    def weights(self) -> Tensor:
        """π, ``[K]``."""

    @property
    def means(self) -> Tensor:
        """μ, ``[K, D]``."""

    @property
    def root(self) -> Tensor:
        """S_k, in the structure's shape."""

    @property
    def precision(self) -> Tensor:
        """S_k⁻¹, in the structure's shape."""

    @property
    def covariances(self) -> Tensor:
        """Σ_k, in the structure's shape."""

    @property
    def constant(self) -> Tensor:
        """b_k = log π_k − log det S_k − D/2 log 2π, ``[K]``."""


class Quadratic(ABC):
    """The features of one mixture, and their sums over rows.

    Rows lie in L lanes of n/L: features are ``[L, F, n/L]``, their sums ``[L, K, F]``.

    Attributes:
        radius: how long y may be for the features to be safe, ``[K]``.
    """

    radius: Tensor
    _limit: float
    _lanes: int
    _coefficients: Tensor
    _summed: int
    _features: Tensor
    _length: Tensor

    def __init__(self, of: Gaussians) -> None:
        self.centre = of.means.mT @ of.weights
        self._rows = 0
        self._longest: Tensor | None = None
        self._sums: Tensor | None = None

    def _arrange(self, coefficients: Tensor, norm: Tensor, centres: Tensor, summed: int) -> None:
        """Take coefficients W ``[K, F]``, ‖|A_k|‖² as norm ``[K]`` and ν ``[K, D]``; sum the first so many features."""
        operations = coefficients.shape[1] + 3 * centres.shape[1] + 2
        self._limit = TOLERANCE / (0.5 * min(operations, 6 * math.sqrt(operations)) * UNIT)
        self.radius = math.sqrt(self._limit) * norm.rsqrt() - centres.norm(dim=1)
        self._coefficients, self._summed = coefficients, summed
        many = coefficients.device.type == "cpu" and coefficients.shape[1] > coefficients.shape[0]
        self._lanes = torch.get_num_threads() if many else 1  # few features are no more than the log-joint

    def distrust(self, components: Tensor) -> None:
        """Leave these components, booleans ``[K]``, to the computation with residuals."""
        self.radius = self.radius.masked_fill(components, -torch.inf)

    def take(self, rows: Tensor) -> None:
        """Form the features of rows ``[n, D]``."""
        n, d = rows.shape
        if n != self._rows:
            self._rows = n
            lanes = self._lanes if n % self._lanes == 0 else 1
            self._features = self.centre.new_empty(lanes, self._coefficients.shape[1], n // lanes)
            self._prepare(d)
        self._length = self._form(self._in_lanes(rows.mT)).amax().sqrt()  # one that is nan is safe for no component
        self._longest = self._length if self._longest is None else torch.maximum(self._longest, self._length)

    def unsafe(self) -> list[int]:
        """The components that the features of the rows last taken are not safe for."""
        safe = self.radius >= self._length
        return [] if bool(safe.all()) else (~safe).nonzero().squeeze(1).tolist()

    def were_safe(self) -> Tensor:
        """Which components the features of all rows taken were safe for, booleans ``[K]``."""
        return self.radius >= (-torch.inf if self._longest is None else self._longest)

    def log_joint(self) -> Tensor:
        """log π_k + log N(x; μ_k, Σ_k) of the rows taken, ``[K, n]``."""
        lanes, _, rows = self._features.shape
        product = self._features.new_empty(lanes, len(self._coefficients), rows)
        _product(self._coefficients, self._features, product)
        return product.transpose(0, 1).flatten(1)

    def add(self, responsibilities: Tensor, weights: Tensor | None) -> None:
        """Add Σᵢ r_ki φ(yᵢ) over the rows taken, for responsibilities ``[K, n]``."""
        owned, summed = self._in_lanes(responsibilities), self._features[:, : self._summed].mT
        if self._sums is None and len(owned) == self._lanes:
            self._sums = owned @ summed
            return
        if self._sums is None:
            self._sums = owned.new_zeros(self._lanes, owned.shape[1], self._summed)
        self._sums[: len(owned)].baddbmm_(owned, summed)

    def sums(self, ridge: Tensor) -> tuple[Sums, Tensor] | None:
        """Counts ``[K]``, means ``[K, D]`` and scatters of what was added, and for which components they are safe.

        A component that shrank a great deal in one step has lost digits: the same bound as before, at the covariance
        that these sums give (plus the ridge ``[D]``) and at the mean of ‖y‖², exceeds the tolerance. None if nothing
        was added.
        """
        if self._sums is None:
            return None
        return self._moments(self._sums[0] if self._lanes == 1 else self._sums.sum(0), ridge)

    @abstractmethod
    def _moments(self, sums: Tensor, ridge: Tensor) -> tuple[Sums, Tensor]:
        """The same of sums over all lanes, ``[K, F]``."""

    @abstractmethod
    def _prepare(self, d: int) -> None:
        """Lay out ``_features``, which are new."""

    @abstractmethod
    def _form(self, columns: Tensor) -> Tensor:
        """Write the features of columns x, ``[L, D, n/L]``; returns ‖y‖², ``[L, n/L]``."""

    def _in_lanes(self, columns: Tensor) -> Tensor:
        """Rows as columns ``[size, n]`` to lanes ``[L, size, n/L]``."""
        return columns.unflatten(1, (len(self._features), -1)).transpose(0, 1)


class FullQuadratic(Quadratic):
    """Products of all pairs of z = (1, y), half the arithmetic of K dense products (:mod:`density.linalg.pairs`)."""

    def __init__(self, of: Gaussians) -> None:
        super().__init__(of)
        inwards = self.centre - of.means
        self._colour = _root(of, inwards)
        self._bleach = inverse(self._colour)
        both = torch.cat([inwards.unsqueeze(2), self._colour.expand(len(inwards), *self._colour.shape)], 2)
        a = torch.linalg.solve_triangular(of.root, both, upper=False)  # A (y − ν) = a z
        coefficients = pairs.of_form(a.mT @ a, -0.5)
        coefficients[:, 0].add_(of.constant)
        self._arrange(coefficients, squared_norm(a[:, :, 1:]), inwards @ self._bleach.mT, coefficients.shape[1])

    def _prepare(self, d: int) -> None:
        (lanes, _, rows), numbers = self._features.shape, d + 1
        z = self._features.new_ones(lanes, numbers + numbers // 2, rows)
        self._y, self._again = z[:, 1:numbers], z[:, numbers + 1 :]
        self._z, self._windows = z[:, :numbers].unsqueeze(2), pairs.windows(z, numbers)
        self._products = self._features.unflatten(1, (numbers, -1))

    def _form(self, columns: Tensor) -> Tensor:
        _product(self._bleach, columns - self.centre.unsqueeze(1), self._y)
        self._again.copy_(self._y[:, : self._again.shape[1]])
        torch.mul(self._z, self._windows, out=self._products)
        return self._products[:, 1:, 0].sum(1)

    def _moments(self, sums: Tensor, ridge: Tensor) -> tuple[Sums, Tensor]:
        moments = pairs.to_matrix(sums, len(self.centre) + 1)
        count, first, second = moments[:, 0, 0], moments[:, 0, 1:], moments[:, 1:, 1:]
        rows = count.clamp_min(TINY)
        mean = first / rows.unsqueeze(1)
        scatter = torch.addcmul(second, first.unsqueeze(2), mean.unsqueeze(1), value=-1)
        whitened = torch.addcdiv((self._bleach * ridge) @ self._bleach.mT, scatter, rows[:, None, None])
        square = second.diagonal(dim1=1, dim2=2).sum(1) / rows
        safe = squared_norm_of_inverse(whitened) * square <= self._limit
        means = torch.addmm(self.centre, mean, self._colour.mT)
        return (count, means, self._colour @ scatter @ self._colour.mT), safe


class TiedQuadratic(Quadratic):
    """Whitened by the covariance that all share, the features are 1, y and ‖y‖², and Σ y yᵀ needs no posterior."""

    def __init__(self, of: Gaussians) -> None:
        super().__init__(of)
        k, d = of.means.shape
        self._colour, self._bleach = of.root, of.precision
        centres = (of.means - self.centre) @ self._bleach.mT
        first = (of.constant - 0.5 * centres.square().sum(1)).unsqueeze(1)
        coefficients = torch.cat([first, centres, torch.full_like(first, -0.5)], 1)
        self._arrange(coefficients, of.means.new_ones(k), centres, d + 1)
        self.radius = self.radius.min().expand(k)  # one scatter for all: they are safe together
        self._second = of.means.new_zeros(d, d)

    def distrust(self, components: Tensor) -> None:
        super().distrust(components.any())

    def _prepare(self, d: int) -> None:
        self._features[:, 0] = 1.0
        self._y, self._norms = self._features[:, 1 : d + 1], self._features[:, -1]

    def _form(self, columns: Tensor) -> Tensor:
        _product(self._bleach, columns - self.centre.unsqueeze(1), self._y)
        return torch.sum(self._y.square(), 1, out=self._norms)

    def add(self, responsibilities: Tensor, weights: Tensor | None) -> None:
        super().add(responsibilities, weights)
        weighted = self._y if weights is None else self._y * self._in_lanes(weights.unsqueeze(0))
        self._second += torch.bmm(weighted, self._y.mT).sum(0)

    def _moments(self, sums: Tensor, ridge: Tensor) -> tuple[Sums, Tensor]:
        count, first = sums[:, 0], sums[:, 1:]
        mean = first / count.clamp_min(TINY).unsqueeze(1)
        scatter = torch.addmm(self._second, mean.mT, first, alpha=-1)
        rows = count.sum().clamp_min(TINY)
        whitened = torch.addcdiv((self._bleach * ridge) @ self._bleach.mT, scatter, rows)
        safe = squared_norm_of_inverse(whitened) * (self._second.diagonal().sum() / rows) <= self._limit
        means = torch.addmm(self.centre, mean, self._colour.mT)
        return (count, means, self._colour @ scatter @ self._colour.mT), safe.expand_as(count)


class DiagonalQuadratic(Quadratic):
    """Features 1, y and y², in units of each column's standard deviation."""

    def __init__(self, of: Gaussians) -> None:
        super().__init__(of)
        d, deviation = of.means.shape[1], of.means - self.centre
        self._scale = ((of.covariances + deviation.square()).mT @ of.weights).sqrt()
        square = (self._scale / of.root).square()
        centres = deviation / self._scale
        linear = square * centres
        first = (of.constant - 0.5 * (linear * centres).sum(1)).unsqueeze(1)
        self._arrange(torch.cat([first, linear, -0.5 * square], 1), square.amax(1), centres, 2 * d + 1)

    def _prepare(self, d: int) -> None:
        self._features[:, 0] = 1.0
        self._y, self._squares = self._features[:, 1 : d + 1], self._features[:, d + 1 :]

    def _form(self, columns: Tensor) -> Tensor:
        torch.sub(columns, self.centre.unsqueeze(1), out=self._y).div_(self._scale.unsqueeze(1))
        return torch.mul(self._y, self._y, out=self._squares).sum(1)

    def _moments(self, sums: Tensor, ridge: Tensor) -> tuple[Sums, Tensor]:
        count, first, second = sums[:, 0], *sums[:, 1:].chunk(2, 1)
        rows = count.clamp_min(TINY).unsqueeze(1)
        mean = first / rows
        scatter = torch.addcmul(second, first, mean, value=-1)
        square = self._scale.square()
        least = torch.addcdiv(ridge / square, scatter, rows).amin(1)
        safe = (second / rows).sum(1) <= self._limit * least
        return (count, torch.addcmul(self.centre, mean, self._scale), scatter * square), safe


class SphericalQuadratic(Quadratic):
    """Features 1, y and ‖y‖², in units of the standard deviation of all columns."""

    def __init__(self, of: Gaussians) -> None:
        super().__init__(of)
        d, deviation = of.means.shape[1], of.means - self.centre
        self._scale = ((of.covariances + deviation.square().mean(1)) @ of.weights).sqrt()
        square = (self._scale / of.root).square().unsqueeze(1)
        centres = deviation / self._scale
        linear = square * centres
        first = (of.constant - 0.5 * (linear * centres).sum(1)).unsqueeze(1)
        self._arrange(torch.cat([first, linear, -0.5 * square], 1), square.squeeze(1), centres, d + 2)

    def _prepare(self, d: int) -> None:
        self._features[:, 0] = 1.0
        self._y, self._norms = self._features[:, 1 : d + 1], self._features[:, -1]

    def _form(self, columns: Tensor) -> Tensor:
        torch.sub(columns, self.centre.unsqueeze(1), out=self._y).div_(self._scale)
        return torch.sum(self._y.square(), 1, out=self._norms)

    def _moments(self, sums: Tensor, ridge: Tensor) -> tuple[Sums, Tensor]:
        count, first, norms = sums[:, 0], sums[:, 1:-1], sums[:, -1]
        rows = count.clamp_min(TINY)
        mean = first / rows.unsqueeze(1)
        scatter = (norms - (first * mean).sum(1)) / first.shape[1]
        square = self._scale.square()
        safe = norms / rows <= self._limit * (scatter / rows + ridge.mean() / square)
        return (count, torch.addcmul(self.centre, mean, self._scale), scatter * square), safe


def _product(matrix: Tensor, lanes: Tensor, out: Tensor) -> None:
    if len(lanes) == 1:
        torch.mm(matrix, lanes[0], out=out[0])
    else:
        torch.bmm(matrix.expand(len(lanes), *matrix.shape), lanes, out=out)


def _root(of: Gaussians, deviation: Tensor) -> Tensor:
    """Cholesky factor of the mixture's covariance; of its diagonal, where that is not regular."""
    within = (of.covariances.flatten(1).mT @ of.weights).view(2 * deviation.shape[1:])
    total = torch.addmm(within, deviation.mT * of.weights, deviation)
    root, info = torch.linalg.cholesky_ex(total)
    return torch.where(info == 0, root, total.diagonal().sqrt().diag())
