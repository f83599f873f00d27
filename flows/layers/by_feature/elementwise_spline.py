"""A spline of each feature by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from density.checks import check_count
from density.initialisation import StartingPoints
from flows.monotone.spline import RationalQuadratic
from flows.networks.columns import by_columns
from flows.transform import Transform

FARTHEST = 3.0  # standard deviations of a normal, to which the outermost inner knots are sent


class ElementwiseSpline(Transform):
    r"""A learned rational-quadratic spline of each feature, the same whatever the others are.

    .. math:: z_j = f(x_j; \theta_j), \qquad \log|\det \partial z/\partial x| = \sum_j \log f'(x_j; \theta_j)

    A new layer is the identity. :meth:`initialise` makes each marginal of the data nearly normal, once: quantiles of
    the feature become knots, and those of a normal their images. So it is a first layer for data of skew, heavy-tailed
    or many-peaked columns, after an activation norm (which brings the data within the bound) and before any other flow:
    ``Chain(ActNorm(D), ElementwiseSpline(D), maf(D).transform)``. What is taken from data is a buffer, and what is
    trained is added to it.

    Args:
        features: width D.
        spline: bins and bound; outside the bound, in standard deviations after an activation norm, the layer is the
            identity.

    Raises:
        ValueError: features is not a positive int.

    Cost: O(DK) per point.

    >>> layer = ElementwiseSpline(1)
    >>> z = layer.initialise(torch.linspace(0.1, 1, 1000).log()[:, None])
    >>> round(layer(torch.tensor([0.55]).log())[0].item(), 1)  # the median
    0.0
    """

    features: int
    start: Tensor
    initialised: Tensor

    def __init__(self, features: int, spline: RationalQuadratic = RationalQuadratic(16, 10.0)) -> None:
        super().__init__()
        self.features = features = check_count(features, f"{type(self).__name__}: features")
        self.spline = spline
        self.theta = nn.Parameter(torch.zeros(spline.parameters, features))
        self.register_buffer("start", torch.zeros(spline.parameters, features))
        self.register_buffer("initialised", torch.tensor(False))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._forward_columns, x, context)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return by_columns(self._inverse_columns, z, context)

    def _forward_columns(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_derivative = self.spline.forward(x, self._parameters_of(x))
        return z, log_derivative.sum(0)

    def _inverse_columns(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_derivative = self.spline.inverse(z, self._parameters_of(z))
        return x, log_derivative.sum(0)

    def _parameters_of(self, x: Tensor) -> Tensor:
        return (self.start + self.theta).unsqueeze(-1).expand(-1, *x.shape)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> StartingPoints:
        if x.known and not self.initialised and self.spline.bins > 1:
            points = x.points.reshape(-1, self.features)
            normal = torch.linspace(-FARTHEST, FARTHEST, self.spline.bins + 1)[1:-1].to(points)
            knots = points.quantile(torch.special.ndtr(normal), dim=0)
            self.start.copy_(self.spline.through(knots, normal.unsqueeze(1).expand_as(knots)))
            self.initialised.fill_(True)
        return self._onward(x, context)
