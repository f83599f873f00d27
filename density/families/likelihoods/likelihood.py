"""What a likelihood is before there is a network: a description, from which a decoder is built."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from density.contract import Density
from density.measure import Measure, ReferenceMeasure


class Likelihood(ABC):
    """A family of densities of x whose parameters a network computes, some numbers for each feature.

    A description, without parameters of its own: a model may be built of it any number of times. Builders ask it how
    wide the network must be, and wrap the network into the density; ``VAE.of(features, latent_features, likelihood)``
    is such a builder.

    Attributes:
        measure: of the density.

    >>> from density.families.levels.discretised_logistic import DiscretisedLogistic
    >>> likelihood = DiscretisedLogistic(levels=16, mixtures=3)
    >>> network = nn.Linear(2, likelihood.numbers * 64)
    >>> likelihood.conditional(network, features=64, context_features=2).measure
    <Measure.COUNTING: 'counting'>
    """

    measure: ReferenceMeasure = Measure.LEBESGUE

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers a feature takes."""

    def width(self, features: int) -> int:
        """How many numbers D features take."""
        return self.numbers * features

    @abstractmethod
    def conditional(self, network: nn.Module, features: int, context_features: int) -> Density:
        """The density of D features given a context.

        Args:
            network: maps rows ``[n, C]`` to ``[n, numbers · D]``: the first number of every feature, then the second
                of every feature, and so on. So images ``[n, numbers · channels, H, W]`` will do.
            features: D.
            context_features: C.
        """

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module | None:
        """What an encoder's network does first with points ``[*, D + beside]``, so that it sees numbers of size 1.

        The D features are brought to such a size, or become several numbers each; what is beside them is a context.
        None for nothing to be done.
        """
        return None
