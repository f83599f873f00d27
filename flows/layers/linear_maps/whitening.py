"""A layer that takes the correlations out of data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from density.checks import check_count
from density.initialisation import StartingPoints
from flows.layers.by_feature.activation_norm import column_moments
from flows.transform import Transform

LEAST = 1e-4  # of the largest eigenvalue: no axis is stretched a hundred times more than another


class Whitening(Transform):
    r"""A fixed linear layer that takes the correlations out of data, as far as the data can tell them.

    .. math:: z = C^{-\alpha/2} x, \qquad \alpha = \max\Big(0, 1 - \frac{D(D+1)}{2n}\Big), \qquad
              \log|\det \partial z/\partial x| = -\frac{\alpha}{2} \sum_i \log \lambda_i

    with C the correlation matrix of the n points that :meth:`initialise` is given, once, and λ its eigenvalues. The
    symmetric root moves the features as little as whitening can (Kessy, Lewin & Strimmer 2018, arXiv:1512.00809, §4,
    "ZCA"), and does not depend on their order. As many points as C has numbers tell nothing about them: then α is 0 and
    the layer the identity, which a new one is too. Axes are stretched by at most a hundred times as much as others, as
    training would not bear more: what comes before the layer is moved by its steps, too. It expects features of unit
    variance, as an activation norm leaves them; a constant feature has no correlations. Nothing is trained: layers that
    follow start from data without correlations, in which a step of an optimiser is as large along every axis.

    Args:
        features: width D.

    Raises:
        ValueError: features is not a positive int.

    Cost for n points: O(nD² + D³); log-determinant O(D).

    >>> layer = Whitening(2)
    >>> x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).cumsum(1)
    >>> layer.initialise(x / x.std(0)).T.corrcoef().round(decimals=2)
    tensor([[1., 0.],
            [0., 1.]])
    """

    features: int
    axes: Tensor
    log_scale: Tensor
    initialised: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features = check_count(features, f"{type(self).__name__}: features")
        self.register_buffer("axes", torch.eye(features))
        self.register_buffer("log_scale", torch.zeros(features))
        self.register_buffer("initialised", torch.tensor(False))

    def matrix(self, *, inverse: bool = False) -> Tensor:
        """C^{−α/2}, or its inverse, shape ``[D, D]``."""
        scale = torch.exp(-self.log_scale if inverse else self.log_scale)
        return (self.axes * scale) @ self.axes.mT

    def log_abs_det(self) -> Tensor:
        """log|det C^{−α/2}|, a scalar."""
        return self.log_scale.sum()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.matrix()), self.log_abs_det().expand(x.shape[:-1])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return F.linear(z, self.matrix(inverse=True)), -self.log_abs_det().expand(z.shape[:-1])

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        if x.known and not self.initialised:
            points = x.points.reshape(-1, self.features)
            power = max(0.0, 1 - self.features * (self.features + 1) / (2 * len(points)))
            matrix = correlations(points)
            # Constant features stay apart, to the last bit: what is added to them would be all that they have.
            varying = matrix.count_nonzero(1) > 1
            if power > 0 and bool(varying.any()):
                values, axes = torch.linalg.eigh(matrix[varying][:, varying])
                self.axes[varying.outer(varying)] = axes.to(self.axes).flatten()
                self.log_scale[varying] = -power / 2 * values.clamp_min(LEAST * values.amax()).log().to(self.axes)
            self.initialised.fill_(True)
        return self._onward(x, context)


def correlations(x: Tensor) -> Tensor:
    """The correlation matrix of the columns of ``[n, D]``, float64; a constant column has none with others. O(nD²)."""
    x = x.double()
    mean, std = column_moments(x)
    standard = (x - mean) / std
    matrix = standard.mT @ standard / len(x)
    return matrix - matrix.diagonal().diag() + torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
