"""Densities in the units of the data: the change of variables that standardisation needs."""

from __future__ import annotations

from torch import Generator, Tensor

from density.contract import Density
from density.initialisation import Standardisation, StartingPoints
from density.measure import Measure
from density.support import Step, Support, preimage


class Rescaled(Density):
    r"""The density of x = shift + scale · y for a density of y: what a decoder of standardised data says of the data.

    A prior or a base with units of its own, as a Gaussian or a mixture, takes those of the data in it. Shift and scale
    are set by :meth:`initialise`.

    .. math:: \log p(x|c) = \log p_y((x - \text{shift}) / \text{scale}\,|\,c) - \sum_j \log \text{scale}_j

    Args:
        density: of y, continuous.

    Raises:
        TypeError: not a Density.
        ValueError: the density is discrete, so that a change of units does not change its log-probabilities.

    >>> import torch
    >>> from density.families.gaussian import StandardNormal
    >>> density = Rescaled(StandardNormal(1))
    >>> density.initialise(torch.tensor([[-2.0], [2.0]]))
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
        self.factorises = density.factorises
        self.density = density
        self.standardise = Standardisation(density.features)

    @property
    def support(self) -> Support | None:
        inside = Step(type(self.density).__name__, self.density.support)
        return preimage([Step("the standardisation", None, self.standardise), inside])

    def check_support(self, x: Tensor) -> None:
        self.density.check_support(self.standardise(x))

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        self.standardise.take(x)
        self.density._initialise(x.mapped(self.standardise), context)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob(self.standardise(x), context) - self.standardise.scale.log().sum()

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.density._log_prob_at_each(self.standardise(x), context) - self.standardise.scale.log().sum()

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob_by_feature(self.standardise(x), context) - self.standardise.scale.log()

    def _inside(self) -> Tensor:
        return self.standardise.inverse(self.density._inside())

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.standardise.inverse(self.density._sample(n, context, generator))

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        y, log_prob = self.density._sample_with_log_prob(n, context, generator)
        return self.standardise.inverse(y), log_prob - self.standardise.scale.log().sum()

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.standardise.inverse(self.density._expectation(context))
