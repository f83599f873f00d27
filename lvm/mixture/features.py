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

import torch
from torch import Tensor

from density.linalg.cholesky import unpack_triangular
from density.linalg.spectral_norm import inverse, squared_norm, squared_norm_of_inverse

TOLERANCE = 1e-8  # nats, of the bound; the largest error that the tests find is a quarter of it
UNIT = 0.5 * torch.finfo(torch.float64).eps
TINY = torch.finfo(torch.float64).tiny

Sums = tuple[Tensor, Tensor, Tensor]


class Quadratic(ABC):
    """The features of one mixture, and their sums over rows. Components are in the order of falling radius.

    Rows lie in L lanes of n/L: features are ``[L, F, n/L]``, their sums ``[L, K, F]``.

    Args:
        constant: b_k = log π_k − log det S_k − D/2 log 2π, ``[K]``.
        weights: π, ``[K]``.
        means: μ, ``[K, D]``.

    Attributes:
        order: component of every place, ``[K]``.
        radius: how long y may be for the features to be safe, ``[K]``, in that order.
    """

    order: Tensor
    radius: Tensor
    _lanes: int
    _features: Tensor
    _y: Tensor
    _squares: Tensor
    _norms: Tensor

    def __init__(self, weights: Tensor, means: Tensor) -> None:
        self._products: list[tuple[Tensor, Tensor, Tensor]] = []
        self.centre = weights @ means
        self.deviation = means - self.centre
        self._rows, self._longest = 0, means.new_zeros(())

    def _arrange(self, coefficients: Tensor, norm: Tensor, centres: Tensor, summed: int) -> None:
        """Take coefficients W ``[K, F]``, ‖|A_k|‖² as norm ``[K]`` and ν ``[K, D]``; sum the first so many features."""
        operations = coefficients.shape[1] + 3 * centres.shape[1] + 2
        self._loss = 0.5 * min(operations, 6 * math.sqrt(operations)) * UNIT
        radius = (TOLERANCE / (self._loss * norm)).sqrt() - centres.norm(dim=1)
        self.radius, self.order = radius.sort(descending=True, stable=True)
        self._coefficients = coefficients[self.order]
        many = coefficients.device.type == "cpu" and coefficients.shape[1] > coefficients.shape[0]
        self._lanes = torch.get_num_threads() if many else 1  # few features are no more than the log-joint
        self._sums = coefficients.new_zeros(self._lanes, coefficients.shape[0], summed)

    def distrust(self, components: Tensor) -> None:
        """Leave these components, booleans ``[K]``, to the computation with residuals."""
        radius = torch.where(components[self.order], -torch.inf, self.radius)
        self.radius, again = radius.sort(descending=True, stable=True)
        self.order, self._coefficients = self.order[again], self._coefficients[again]

    def take(self, rows: Tensor, *, careful: bool = True) -> int:
        """Form the features of rows ``[n, D]``; how many components, from the first, they are safe for, if careful."""
        n, d = rows.shape
        if n != self._rows:
            self._rows = n
            lanes = self._lanes if n % self._lanes == 0 else 1
            self._features = self.centre.new_ones(lanes, self._coefficients.shape[1], n // lanes)
            self._prepare(d)
        y = self._y[:, 1:]
        self._whiten(self._in_lanes(rows.mT), y)
        torch.mul(y, y, out=self._squares)
        torch.sum(self._squares, 1, out=self._norms)
        longest = self._norms.amax()  # a norm that is nan is safe for none
        safe = int((self.radius >= longest.sqrt()).sum()) if careful else len(self.radius)
        self._longest = torch.maximum(self._longest, longest)
        if safe:
            for left, right, product in self._products:
                torch.mul(left, right, out=product)
        return safe

    def all_were_safe(self) -> Tensor:
        """Whether the features of all rows taken were safe for all components, a scalar."""
        return (self.radius >= self._longest.sqrt()).all()

    def log_joint(self, safe: int, out: Tensor) -> None:
        """log π_k + log N(x; μ_k, Σ_k) of the rows taken, into ``[safe, n]``."""
        lanes, _, rows = self._features.shape
        if lanes == 1:
            _product(self._coefficients[:safe], self._features, out.unsqueeze(0))
        else:
            product = self._features.new_empty(lanes, safe, rows)
            _product(self._coefficients[:safe], self._features, product)
            out.view(safe, lanes, rows).copy_(product.transpose(0, 1))

    def add(self, responsibilities: Tensor, weights: Tensor | None) -> None:
        """Add Σᵢ r_ki φ(yᵢ) over the rows taken, for the first components: responsibilities ``[safe, n]``."""
        summed = self._features[:, : self._sums.shape[2]]
        sums = self._sums[: len(summed), : len(responsibilities)]
        sums.baddbmm_(self._in_lanes(responsibilities), summed.mT)

    @abstractmethod
    def sums(self, ridge: Tensor) -> tuple[Sums, Tensor]:
        """Counts ``[K]``, means ``[K, D]`` and scatters of what was added, and in which components they are not safe.

        A component that shrank a great deal in one step has lost digits: the same bound as before, at the covariance
        that these sums give (plus the ridge ``[D]``) and at the mean of ‖y‖², exceeds the tolerance.
        """

    def _in_lanes(self, columns: Tensor) -> Tensor:
        """Rows as columns ``[size, n]`` to lanes ``[L, size, n/L]``."""
        return columns.unflatten(1, (len(self._features), -1)).transpose(0, 1)

    def _moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Σᵢ r_ki φ(yᵢ), and of it counts and means."""
        sums = self._sums.sum(0)
        count = sums[:, 0]
        return sums, count, sums[:, 1 : self.centre.shape[0] + 1] / count.clamp_min(TINY).unsqueeze(1)

    def _unsafe(self, norm: Tensor, square: Tensor) -> Tensor:
        return ~(self._loss * norm * square <= TOLERANCE)

    @abstractmethod
    def _whiten(self, columns: Tensor, out: Tensor) -> None:
        """T(x − c) for columns x, ``[L, D, n/L]``."""

    def _prepare(self, d: int) -> None:
        """Lay out ``_y``, whose first coordinate is 1, y² and ‖y‖²; ``_features`` are new, and all 1.

        Features that are none of these are products of two tensors.
        """
        self._y = self._features[:, : d + 1]
        self._squares = torch.empty_like(self._y[:, 1:], memory_format=torch.contiguous_format)
        self._norms = self._features[:, -1]


class FullQuadratic(Quadratic):
    """Features 1, y_i and y_i y_j for i ≤ j: half the arithmetic of K dense products. F = O(D²/2)."""

    def __init__(self, constant: Tensor, weights: Tensor, means: Tensor, factor: Tensor, precision: Tensor) -> None:
        super().__init__(weights, means)
        d = means.shape[1]
        places = range(0, d + 1, 1 if d < 32 else 4)  # few kernels, at the price of doubled entries
        self._blocks = [slice(i, j) for i, j in zip(places, [*places[1:], d + 1], strict=True)]
        self._colour = _root(torch.einsum("k,kij->ij", weights, _square(unpack_triangular(factor))), self, weights)
        self._bleach = inverse(self._colour)
        a = precision @ self._colour
        centres = self.deviation @ self._bleach.mT
        projected = (a @ centres.unsqueeze(-1)).squeeze(-1)
        form = a.new_empty(means.shape[0], d + 1, d + 1)
        form[:, 0, 0] = constant - 0.5 * projected.square().sum(-1)
        form[:, 0, 1:] = form[:, 1:, 0] = 0.5 * (a.mT @ projected.unsqueeze(-1)).squeeze(-1)
        form[:, 1:, 1:] = -0.5 * (a.mT @ a)
        for rows in self._blocks:
            form[:, rows, rows.stop :] *= 2  # entries right of a diagonal block stand for those below it as well
        coefficients = torch.cat([form[:, rows, rows.start :].flatten(1) for rows in self._blocks], 1)
        self._arrange(coefficients, squared_norm(a), centres, coefficients.shape[1])

    def _whiten(self, columns: Tensor, out: Tensor) -> None:
        _product(self._bleach, columns - self.centre.unsqueeze(1), out)

    def _prepare(self, d: int) -> None:
        lanes, _, rows = self._features.shape
        y, start = self._features.new_ones(lanes, d + 1, rows), 0
        self._y, self._squares, self._norms = y, y.new_empty(lanes, d, rows), y.new_empty(lanes, rows)
        self._products = []
        for r in self._blocks:
            left, right = y[:, r].unsqueeze(2), y[:, r.start :].unsqueeze(1)
            shape = (left.shape[1], right.shape[2])
            stop = start + shape[0] * shape[1]
            self._products.append((left, right, self._features[:, start:stop].unflatten(1, shape)))
            start = stop

    def sums(self, ridge: Tensor) -> tuple[Sums, Tensor]:
        sums, count, mean = self._moments()
        k, size = mean.shape[0], mean.shape[1] + 1
        moments, start = mean.new_empty(k, size, size), 0
        for r in self._blocks:
            shape = (r.stop - r.start, size - r.start)
            block = sums[:, start : start + shape[0] * shape[1]].reshape(k, *shape)
            moments[:, r, r.start :], moments[:, r.start :, r] = block, block.mT
            start += shape[0] * shape[1]
        second = moments[:, 1:, 1:]
        scatter = second - mean.unsqueeze(2) * mean.unsqueeze(1) * count[:, None, None]
        rows = count.clamp_min(TINY)
        whitened = scatter / rows[:, None, None] + (self._bleach * ridge) @ self._bleach.mT
        unsafe = self._unsafe(squared_norm_of_inverse(whitened), second.diagonal(dim1=1, dim2=2).sum(1) / rows)
        return (count, self.centre + mean @ self._colour.mT, self._colour @ scatter @ self._colour.mT), unsafe


class TiedQuadratic(Quadratic):
    """Whitened by the covariance that all share, the features are 1, y and ‖y‖², and Σ y yᵀ needs no posterior."""

    def __init__(self, constant: Tensor, weights: Tensor, means: Tensor, factor: Tensor, precision: Tensor) -> None:
        super().__init__(weights, means)
        k, d = means.shape
        self._colour, self._bleach = unpack_triangular(factor), precision
        centres = self.deviation @ self._bleach.mT
        first = (constant - 0.5 * centres.square().sum(1)).unsqueeze(1)
        coefficients = torch.cat([first, centres, torch.full_like(first, -0.5)], 1)
        self._arrange(coefficients, means.new_ones(k), centres, d + 1)
        self.radius = self.radius.min().expand(k)  # one scatter for all: they are safe together
        self._second = means.new_zeros(d, d)

    def distrust(self, components: Tensor) -> None:
        if bool(components.any()):
            self.radius = torch.full_like(self.radius, -torch.inf)

    def _whiten(self, columns: Tensor, out: Tensor) -> None:
        _product(self._bleach, columns - self.centre.unsqueeze(1), out)

    def add(self, responsibilities: Tensor, weights: Tensor | None) -> None:
        super().add(responsibilities, weights)
        y = self._y[:, 1:]
        weighted = y if weights is None else y * self._in_lanes(weights.unsqueeze(0))
        self._second += torch.bmm(weighted, y.mT).sum(0)

    def sums(self, ridge: Tensor) -> tuple[Sums, Tensor]:
        _, count, mean = self._moments()
        scatter = self._second - mean.mT @ (count.unsqueeze(1) * mean)
        rows = count.sum().clamp_min(TINY)
        whitened = scatter / rows + (self._bleach * ridge) @ self._bleach.mT
        unsafe = self._unsafe(squared_norm_of_inverse(whitened), self._second.diagonal().sum() / rows)
        means = self.centre + mean @ self._colour.mT
        return (count, means, self._colour @ scatter @ self._colour.mT), unsafe.expand_as(count)


class DiagonalQuadratic(Quadratic):
    """Features 1, y and y², in units of each column's standard deviation."""

    def __init__(self, constant: Tensor, weights: Tensor, means: Tensor, factor: Tensor, precision: Tensor) -> None:
        super().__init__(weights, means)
        d = means.shape[1]
        self._scale = (weights @ ((2 * factor).exp() + self.deviation.square())).sqrt()
        a = precision * self._scale
        centres = self.deviation / self._scale
        first = constant - 0.5 * (a * centres).square().sum(1)
        coefficients = torch.cat([first.unsqueeze(1), a.square() * centres, -0.5 * a.square()], 1)
        self._arrange(coefficients, a.square().amax(1), centres, 2 * d + 1)

    def _whiten(self, columns: Tensor, out: Tensor) -> None:
        torch.sub(columns, self.centre.unsqueeze(1), out=out).div_(self._scale.unsqueeze(1))

    def _prepare(self, d: int) -> None:
        self._y, self._squares = self._features[:, : d + 1], self._features[:, d + 1 :]
        self._norms = self._features.new_empty(self._features.shape[0], self._features.shape[2])

    def sums(self, ridge: Tensor) -> tuple[Sums, Tensor]:
        sums, count, mean = self._moments()
        second = sums[:, mean.shape[1] + 1 :]
        scatter = second - count.unsqueeze(1) * mean.square()
        rows = count.clamp_min(TINY).unsqueeze(1)
        whitened = scatter / rows + ridge / self._scale.square()
        least = whitened.amin(1)
        unsafe = self._unsafe(torch.where(least > 0, 1 / least, torch.inf), (second / rows).sum(1))
        return (count, self.centre + mean * self._scale, scatter * self._scale.square()), unsafe


class SphericalQuadratic(Quadratic):
    """Features 1, y and ‖y‖², in units of the standard deviation of all columns."""

    def __init__(self, constant: Tensor, weights: Tensor, means: Tensor, factor: Tensor, precision: Tensor) -> None:
        super().__init__(weights, means)
        d = means.shape[1]
        self._scale = (weights @ ((2 * factor).exp() + self.deviation.square().mean(1))).sqrt()
        a = (precision * self._scale).square().unsqueeze(1)
        centres = self.deviation / self._scale
        first = constant.unsqueeze(1) - 0.5 * a * centres.square().sum(1, keepdim=True)
        self._arrange(torch.cat([first, a * centres, -0.5 * a], 1), a.squeeze(1), centres, d + 2)

    def _whiten(self, columns: Tensor, out: Tensor) -> None:
        torch.sub(columns, self.centre.unsqueeze(1), out=out).div_(self._scale)

    def sums(self, ridge: Tensor) -> tuple[Sums, Tensor]:
        sums, count, mean = self._moments()
        d = mean.shape[1]
        second = sums[:, -1] / d
        scatter = second - count * mean.square().mean(1)
        rows = count.clamp_min(TINY)
        whitened = scatter / rows + ridge.mean() / self._scale.square()
        unsafe = self._unsafe(torch.where(whitened > 0, 1 / whitened, torch.inf), d * second / rows)
        return (count, self.centre + mean * self._scale, scatter * self._scale.square()), unsafe


def _product(matrix: Tensor, lanes: Tensor, out: Tensor) -> None:
    if len(lanes) == 1:
        torch.mm(matrix, lanes[0], out=out[0])
    else:
        torch.bmm(matrix.expand(len(lanes), *matrix.shape), lanes, out=out)


def _square(root: Tensor) -> Tensor:
    return root @ root.mT


def _root(within: Tensor, of: Quadratic, weights: Tensor) -> Tensor:
    """Cholesky factor of the mixture's covariance; of its diagonal, where that is not regular."""
    scaled = weights.sqrt().unsqueeze(1) * of.deviation
    total = within + scaled.mT @ scaled
    root, info = torch.linalg.cholesky_ex(total)
    return torch.where(info == 0, root, total.diagonal().sqrt().diag())
