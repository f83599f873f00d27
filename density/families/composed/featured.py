"""A conditional density of features that a network makes of the context."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from density.checks import check_count
from density.contract import Density
from density.data.states import Alphabet
from density.families.network import network_output
from density.initialisation import StartingPoints, take_input
from density.support import Step, Support, preimage


class Featured(Density):
    """A conditional density that sees features h = network(c) of its context; the network runs once for all draws.

    Args:
        network: any module that maps rows ``[n, C]`` to ``[n, H]``, or to n events of H numbers; it sees contexts of
            any batch shape as rows.
        density: with a context of H features.
        context_features: C.

    Raises:
        ValueError: the density is unconditional.

    >>> import torch
    >>> from density.families.conditional_gaussian import ConditionalGaussian, FixedScale
    >>> density = ConditionalGaussian(nn.Identity(), features=3, context_features=3, scale=FixedScale())
    >>> Featured(nn.Linear(5, 3), density, context_features=5).sample(7, context=torch.zeros(4, 5)).shape
    torch.Size([7, 4, 3])
    """

    def __init__(self, network: nn.Module, density: Density, context_features: int) -> None:
        super().__init__()
        context_features = check_count(context_features, "context_features")
        if not density.context_features:
            raise ValueError(f"Featured feeds features to a conditional density; {type(density).__name__} takes none")
        self.features = density.features
        self.context_features = context_features
        self.measure = density.measure
        self.factorises = density.factorises
        self.network = network
        self.density = density

    @property
    def support(self) -> Support | None:
        return preimage([Step(type(self.density).__name__, self.density.support)])

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        return self.density.alphabets

    def check_support(self, x: Tensor) -> None:
        self.density.check_support(x)

    def _initialise(self, x: StartingPoints, context: StartingPoints) -> None:
        take_input(self.network, self.context_features, context)
        self.density._initialise(x, context.through(self.network, self._seen))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density.log_prob(x, self._seen(context))

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        return self.density._log_prob_at_each(x, self._seen(context))

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob_by_feature(x, self._seen(context))

    def _inside(self) -> Tensor:
        return self.density._inside()

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.density.sample(n, context=self._seen(context), generator=generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        return self.density.sample_with_log_prob(n, context=self._seen(context), generator=generator)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.density.expectation(self._seen(context))

    def _seen(self, context: Tensor | None) -> Tensor:
        return network_output(self.network, context, self.density.context_features, "Featured", "features")
