"""Densities in the units of the data: standardisation taken from data, and the change of variables that it needs."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from density.checks import check_count
from density.contract import Density
from density.families.network import OutOfPlace
from density.linalg.moments import centre, is_constant
from density.log_density import Measure
from density.rebuildable import Rebuildable


class Standardisation(Rebuildable, OutOfPlace):
    """The map (x − shift) / scale, feature by feature; shift and scale are buffers that :meth:`match` takes from data.

    >>> standardise = Standardisation(2)
    >>> standardise.match(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> standardise(torch.tensor([[3.0, 6.0]]))
    tensor([[1., 1.]])
    """

    shift: Tensor
    scale: Tensor
    matched: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features = check_count(features, "features")
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("matched", torch.tensor(False))

    def match(self, x: Tensor) -> None:
        """Take mean and standard deviation from x ``[n, D]``, the first time only; constant columns keep scale 1.

        Raises:
            ValueError: they were taken before, and this data is in other units: a column's mean lies more than a
                hundred standard deviations away, or its standard deviation differs by a factor of a hundred.
        """
        mean, centred = centre(x.detach().double())
        variance = centred.square().mean(0)
        constant = is_constant(mean, variance, x.dtype)
        if bool(self.matched):
            scale = self.scale.double()
            other = ((mean - self.shift).abs() > 100 * scale) | (variance.sqrt() > 100 * scale)
            other = other | (~constant & (100 * variance.sqrt() < scale))
            if bool(other.any()):
                column = int(other.nonzero()[0])
                raise ValueError(
                    f"this model was fitted to data in other units: column {column} had mean {self.shift[column]:.4g} "
                    f"and standard deviation {self.scale[column]:.4g}, and now has {mean[column]:.4g} and "
                    f"{variance[column].sqrt():.4g}. Build a new model for this data"
                )
            return
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(variance), variance.sqrt()))
        self.matched.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale

    def inverse(self, y: Tensor) -> Tensor:
        """shift + scale · y."""
        return self.shift + self.scale * y


class Rescaled(Density):
    r"""The density of x = shift + scale · y for a density of y: what a decoder of standardised data says of the data.

    .. math:: \log p(x|c) = \log p_y((x - \text{shift}) / \text{scale}\,|\,c) - \sum_j \log \text{scale}_j

    Args:
        density: of y, continuous.

    Raises:
        TypeError: not a Density.
        ValueError: the density is discrete, so that a change of units does not change its log-probabilities.

    >>> from density.families.gaussian import StandardNormal
    >>> density = Rescaled(StandardNormal(1))
    >>> density.standardise.match(torch.tensor([[-2.0], [2.0]]))
    >>> density.log_prob(torch.tensor([[0.0]]))  # N(0; 0, 2²)
    tensor([-1.6121])
    """

    def __init__(self, density: Density) -> None:
        super().__init__()
        if not isinstance(density, Density):
            raise TypeError(f"Rescaled takes a Density; got {type(density).__name__}")
        if density.measure is not Measure.LEBESGUE:
            raise ValueError(f"Rescaled expects a continuous density; {type(density).__name__} is discrete")
        self.features = density.features
        self.context_features = density.context_features
        self.measure = density.measure
        self.density = density
        self.standardise = Standardisation(density.features)

    def check_support(self, x: Tensor) -> None:
        self.density.check_support(self.standardise(x))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob(self.standardise(x), context) - self.standardise.scale.log().sum()

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.standardise.inverse(self.density._sample(n, context, generator))

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        y, log_prob = self.density._sample_with_log_prob(n, context, generator)
        return self.standardise.inverse(y), log_prob - self.standardise.scale.log().sum()

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.standardise.inverse(self.density._expectation(context))
