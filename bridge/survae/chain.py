r"""Chains of links, one after the other.

.. math:: x = z_0 \to z_1 \to \dots \to z_K, \qquad
          \log w = \log p(z_K) + \sum_k \log\frac{p(z_{k-1}|z_k)}{q(z_k|z_{k-1})}

A chain is tight when all its links are, and then log w = log p(x). The name is LinkChain, since it stands beside
``flows.Chain``, whose parts are bijections, and a chain of those within a chain of links is the usual case.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import cast

from torch import Generator, Tensor, nn

from density.checks import check_count, check_points
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import ReferenceMeasure
from density.support import Step, Support, preimage
from lvm.links import Link


class LinkChain(Link):
    """A chain of links, from data to latent. Its ``tight`` and ``deterministic`` are those of all its links.

    Links before the first one that draws run once, whatever the number of draws.

    Args:
        links: at least one; each one's latent is the next one's data.

    Raises:
        TypeError: a part is not a Link.
        ValueError: two neighbours differ in size or in measure; the message names them.

    Cost: the sum over the links.

    >>> import torch
    >>> from bridge.flow_vae import DeltaLink
    >>> from bridge.survae.ranges import Log
    >>> from bridge.survae.surjections import Abs
    >>> chain = LinkChain(Abs(2), DeltaLink(Log(), 2))
    >>> chain.tight, chain.infer(torch.tensor([[-1.0, 1.0]]))[0].tolist()
    (True, [[[0.0, 0.0]]])
    """

    def __init__(self, *links: Link) -> None:
        super().__init__()
        if not links:
            raise ValueError("LinkChain needs at least one link")
        for position, link in enumerate(links):
            if not isinstance(link, Link):
                raise TypeError(
                    f"LinkChain is made of Links; link {position} is a {type(link).__name__} (wrap a Transform in "
                    "DeltaLink, an encoder and a decoder in StochasticLink)"
                )
            if link.context_features:
                raise ValueError(
                    f"LinkChain joins x to z alone; link {position} ({type(link).__name__}) needs a context of "
                    f"{link.context_features} features"
                )
        for position, (link, following) in enumerate(pairwise(links)):
            names = f"link {position} ({type(link).__name__})", f"link {position + 1} ({type(following).__name__})"
            if link.latent_features != following.features:
                raise ValueError(
                    f"LinkChain: {names[0]} has a latent of {link.latent_features} features, {names[1]} takes data of "
                    f"{following.features}; they must agree"
                )
            measure = link.latent_measure
            if measure is not None and measure != following.measure:
                raise ValueError(
                    f"LinkChain: the latent of {names[0]} needs a density with respect to {measure.value} measure, "
                    f"{names[1]} makes one with respect to {following.measure.value} measure"
                )
        self.parts = nn.ModuleList(links)
        self.features, self.latent_features = links[0].features, links[-1].latent_features
        self.measure, self.latent_measure = links[0].measure, links[-1].latent_measure
        self.tight = all(link.tight for link in links)
        self.deterministic = all(link.deterministic for link in links)

    @property
    def links(self) -> list[Link]:
        return [one for part in self._parts for one in part.links]

    @property
    def description(self) -> str:
        return f"LinkChain({', '.join(part.description for part in self._parts)})"

    @property
    def _parts(self) -> list[Link]:
        return cast("list[Link]", list(self.parts))

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        check_points(x, self.features, type(self).__name__)
        draws = check_count(draws, "draws")
        z, total, spread = x, x.new_zeros(x.shape[:-1]), False
        for link in self.links:
            if spread or link.deterministic:
                z, log_ratio = link.infer_once(z, generator)
            else:
                z, log_ratio = link.infer(z, draws, generator=generator)
                spread = True
            total = total + log_ratio
        return (z, total) if spread else (z.expand(draws, *z.shape), total.expand(draws, *total.shape))

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        check_points(z, self.latent_features, f"{type(self).__name__}.generate")
        for link in reversed(self.links):
            z = link.generate(z, generator=generator)
        return z

    def simulate(self, z: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        check_points(z, self.latent_features, f"{type(self).__name__}.simulate")
        total = z.new_zeros(z.shape[:-1])
        for link in reversed(self.links):
            z, log_ratio = link.simulate(z, generator=generator)
            total = total + log_ratio
        return z, total

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        for link in self.links:
            x = link._initialise(x, UNKNOWN, generator)
        return x

    @property
    def support(self) -> Support | None:
        """Of the links up to the first that draws: what follows may have another draw for x."""
        steps: list[Step] = []
        for link in self.links:
            steps.append(Step(type(link).__name__, link.support, partial(_led_to, link)))
            if not link.deterministic:
                break
        return preimage(steps)

    def check_support(self, x: Tensor) -> None:
        self.links[0].check_support(x)
        super().check_support(x)


def _led_to(link: Link, x: Tensor) -> Tensor:
    return link.infer_once(x)[0]


def latent_measure(link: Link) -> ReferenceMeasure | None:
    """The measure that the density of a link's latent must be with respect to; None if any will do.

    >>> from bridge import UniformDequantisation
    >>> latent_measure(UniformDequantisation(3))
    <Measure.LEBESGUE: 'Lebesgue'>
    """
    return link.latent_measure
