"""Links: encoder and decoder as one layer, with one log-ratio."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

from density.contract import Density
from density.log_density import Measure
from density.rebuildable import Rebuildable


class Link(Rebuildable, nn.Module, ABC):
    """Encoder q(z|x) and decoder p(x|z) as one layer (Nielsen et al. 2020, SurVAE Flows, section 2).

    Attributes:
        features: size D of x.
        latent_features: size d of z.
        measure: what p(x|z), and so the model's density, is with respect to.
        tight: whether q(z|x) is the exact posterior of this layer, so that the log-ratio costs no bound.
        deterministic: whether ``infer`` draws nothing; then it is not computed anew for every draw.
    """

    features: int
    latent_features: int
    measure: Measure = Measure.LEBESGUE
    tight: bool = False
    deterministic: bool = False

    @abstractmethod
    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """z ~ q(z|x), and log p(x|z) − log q(z|x) or its limit.

        Args:
            x: shape ``[*batch, D]``.
            draws: latent draws for each point.

        Returns:
            z ``[draws, *batch, d]`` and the log-ratio ``[draws, *batch]``, nats, pathwise differentiable.
        """

    @abstractmethod
    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        """x ~ p(x|z): ``[*batch, D]`` for z ``[*batch, d]``."""


class StochasticLink(Link):
    """The link of two densities, q(z|x) and p(x|z). The encoder runs once for all draws.

    Args:
        encoder: density over z with x as context.
        decoder: density over x with z as context.

    Raises:
        ValueError: the sizes do not fit together.
    """

    def __init__(self, encoder: Density, decoder: Density) -> None:
        super().__init__()
        _check_pair(encoder, decoder)
        self.features = decoder.features
        self.latent_features = encoder.features
        self.measure = decoder.measure
        self.encoder = encoder
        self.decoder = decoder

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        z, log_q = self.encoder.sample_with_log_prob(draws, context=x, generator=generator)
        return z, self.decoder.log_prob(x, z) - log_q

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return self.decoder.sample(1, context=z, generator=generator).squeeze(0)


def _check_pair(encoder: Density, decoder: Density) -> None:
    for name, density, own, given in (
        ("encoder", encoder, encoder.features, decoder.context_features),
        ("decoder", decoder, decoder.features, encoder.context_features),
    ):
        if own != given:
            other = "decoder" if name == "encoder" else "encoder"
            raise ValueError(
                f"the {name} ({type(density).__name__}) is a density over {own} features, but the {other} is "
                f"conditioned on {given}; encoder q(z|x) and decoder p(x|z) must agree on the sizes of x and z"
            )
