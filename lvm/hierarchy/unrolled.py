r"""A chain of links as a model of one latent: what all of its links draw, side by side.

Of x → z_1 → … → z_L by stochastic links, with prior p(z_L), that is z = (z_1, …, z_L), and

.. math:: \log p(x, z) = \log p(x|z_1) + \sum_{k<L} \log p(z_k|z_{k+1}) + \log p(z_L), \qquad
          \log q(z|x) = \log q(z_1|x) + \sum_{k<L} \log q(z_{k+1}|z_k).

Deterministic tight links among them, bijections and inference surjections, draw nothing: they add their log-ratio to
the density below them, and what they return is what the encoder above them sees. So whatever can be asked of a model
with a latent (annealing, a local posterior, a gap with its causes) can be asked of a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar, cast

from torch import Generator, Tensor, nn

from density.contract import Density
from density.support import Step, Support, preimage
from lvm.hierarchy.model import HierarchicalVAE
from lvm.latent import LatentVariableModel
from lvm.layered import LinkedModel
from lvm.links import Link, StochasticLink
from lvm.vae.model import VAE

AnyModel = TypeVar("AnyModel")


def unrolled(model: AnyModel) -> AnyModel | LatentVariableModel:
    """A model of a prior and stochastic links as a latent-variable model of all that the links draw.

    It shares the parts of the model. Others are returned as they are: those that are latent-variable models, and those
    whose links draw what is no latent with a density on all of it, as dequantisation is, or latents of two measures.

    >>> from density import ConditionalGaussian, StandardNormal
    >>> from lvm import LinkedModel, StochasticLink
    >>> link = StochasticLink(ConditionalGaussian(nn.Linear(3, 4), 2, 3), ConditionalGaussian(nn.Linear(2, 6), 3, 2))
    >>> type(unrolled(LinkedModel(StandardNormal(2), link))).__name__
    'VAE'
    """
    if not isinstance(model, LinkedModel):
        return model
    links = model.link.links
    drawn = [link for link in links if isinstance(link, StochasticLink)]
    known = all(isinstance(link, StochasticLink) or (link.deterministic and link.tight) for link in links)
    if not known or len({link.latent_measure for link in drawn}) != 1:
        return model
    passed: list[Link] = []
    encoders: list[Density] = []
    decoders: list[Density] = []
    for link in links:
        if isinstance(link, StochasticLink):
            encoders.append(_AfterLinks(passed, link.encoder) if passed else link.encoder)
            decoders.append(_Pullback(passed, link.decoder) if passed else link.decoder)
            passed = []
        else:
            passed.append(link)
    prior = _Pullback(passed, model.prior) if passed else model.prior
    if len(drawn) == 1:
        return VAE(prior, encoders[0], decoders[0], model.context_features)
    return HierarchicalVAE(prior, encoders, decoders)


class _Linked(Density):
    """Links and a density: what both views share."""

    def __init__(self, links: Sequence[Link], density: Density) -> None:
        super().__init__()
        self.parts = nn.ModuleList(links)
        self.density = density

    @property
    def links(self) -> list[Link]:
        return cast("list[Link]", list(self.parts))


class _Pullback(_Linked):
    """The density of x of which deterministic tight links make y, given that of y: p(y|c) and their log-ratios."""

    def __init__(self, links: Sequence[Link], density: Density) -> None:
        super().__init__(links, density)
        self.features, self.measure = links[0].features, links[0].measure
        self.context_features = density.context_features

    @property
    def support(self) -> Support | None:
        steps = [Step(type(link).__name__, link.support, partial(_image, link)) for link in self.links]
        return preimage([*steps, Step(type(self.density).__name__, self.density.support)])

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        total = x.new_zeros(x.shape[:-1])
        for link in self.links:
            x, log_ratio = link.infer_once(x)
            total = total + log_ratio
        return self.density._log_prob(x, context) + total

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        x = self.density._sample(n, context, generator)
        for link in reversed(self.links):
            x = link.generate(x, generator=generator)
        return x


class _AfterLinks(_Linked):
    """The density q(z|y), given the x of which deterministic links make y."""

    def __init__(self, links: Sequence[Link], density: Density) -> None:
        super().__init__(links, density)
        self.features, self.measure = density.features, density.measure
        self.context_features = links[0].features

    def _seen(self, x: Tensor | None) -> Tensor | None:
        assert x is not None, "the public methods have checked it"
        for link in self.links:
            x = _image(link, x)
        return x

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.density._log_prob(x, self._seen(context))

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return self.density._sample(n, self._seen(context), generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        return self.density._sample_with_log_prob(n, self._seen(context), generator)


def _image(link: Link, x: Tensor) -> Tensor:
    return link.infer_once(x)[0]
