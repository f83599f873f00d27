"""Links: encoder and decoder as one layer, with one log-ratio."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from density.checks import check_context, check_count
from density.contract import Density
from density.data.joined import joined, parted
from density.evaluating import evaluating
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure, ReferenceMeasure
from density.rebuildable import Rebuildable
from density.support import Step, Support, preimage


class Link(Rebuildable, nn.Module, ABC):
    """An encoder q(z|x) and a decoder p(x|z) as one layer (Nielsen et al. 2020, SurVAE Flows, section 2).

    Subclasses write ``infer`` and ``generate``; everything else has a default. A conditional link, q(z|x, c) and
    p(x|z, c), gets each point with its context behind it (:func:`~density.data.joined.joined`): C more columns than
    said below, in ``infer`` and in ``generate``; its ``_initialise`` gets the contexts apart.

    Attributes:
        features: size D of x.
        latent_features: size d of z.
        context_features: size C of the context c; 0 for an unconditional link.
        measure: what p(x|z), and so the model's density, is with respect to.
        latent_measure: what the density of z must be with respect to; None if any will do.
        tight: whether q(z|x) is the exact posterior of this layer, so that the log-ratio costs no bound.
        deterministic: whether ``infer`` draws nothing; then it is not computed anew for every draw.

    >>> import torch
    >>> from lvm import PPCA
    >>> z, log_ratio = PPCA(3, 1).link.infer(torch.zeros(2, 3), draws=5)
    >>> z.shape, log_ratio.shape
    (torch.Size([5, 2, 1]), torch.Size([5, 2]))
    """

    features: int
    latent_features: int
    context_features: int = 0
    measure: ReferenceMeasure = Measure.LEBESGUE
    latent_measure: ReferenceMeasure | None = None
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

    def infer_once(self, x: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """One latent draw ``[*batch, d]`` for each point, and the log-ratio ``[*batch]``."""
        z, log_ratio = self.infer(x, 1, generator=generator)
        return z.squeeze(0), log_ratio.squeeze(0)

    def simulate(self, z: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """x ~ p(x|z) ``[*batch, D]`` for z ``[*batch, d]``, and log p(x|z) − log q(z|x) ``[*batch]`` at that z.

        The mirror of ``infer``. Where z is a draw of the prior, it is one of the exact posterior of x.

        Raises:
            TypeError: the link draws z, and does not say how probable a given one is.
        """
        if not self.deterministic:
            raise TypeError(f"{type(self).__name__} draws latents, and does not say log q(z|x) of one that is given")
        x = self.generate(z, generator=generator)
        return x, self.infer_once(x)[1]

    def initialise(self, x: Tensor, *, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Set what is to be set from data ``[n, D]``, and return where the data goes: one draw ``[n, d]`` of z.

        No gradients are recorded.

        Raises:
            ValueError: data in other units than before (:func:`~density.initialisation.check_units`), or a context
                that is missing, superfluous or of another size.
        """
        check_context(context, self.context_features, type(self).__name__)
        given = UNKNOWN if context is None else StartingPoints.all(context, "contexts")
        with torch.no_grad(), evaluating(self):
            return self._initialise(StartingPoints.all(x), given, generator).points

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        """Set what this link takes from the points that reach it, and from their contexts if it is conditional; where
        the points go, one draw of z each.
        """
        rows = x.beside(context) if self.context_features else x
        return rows.through(self, lambda rows: self.infer_once(rows, generator)[0])

    @property
    def support(self) -> Support | None:
        """The x that some z can lead to; None for all. Elsewhere the log-ratio is −∞."""
        return None

    def check_support(self, x: Tensor) -> None:
        """Raise ValueError where no z can lead to x ``[*batch, D]``. O(nD)."""
        if (support := self.support) is not None:
            support.check(x, type(self).__name__)

    def check_pathwise(self) -> None:
        """Raise TypeError where a parameter of the encoder gets no gradient through its draws."""

    def check_prior(self, prior: Density) -> None:
        """Raise ValueError unless size, measure and range of a density are those of the latent."""
        check_size(prior, self.latent_features, f"the latent of {self.description}", self.context_features)
        measure = self.latent_measure
        if measure is not None and prior.measure != measure:
            raise ValueError(
                f"the latent of {self.description} needs a density with respect to {measure.value} measure; "
                f"{type(prior).__name__} has one with respect to {prior.measure.value} measure"
            )
        for position, link in enumerate(self.links):
            if (points := link.unreachable()) is not None:
                _check_range(prior, link, self.links[position + 1 :], points.to(prior.reference))

    def unreachable(self) -> Tensor | None:
        """Some points ``[k, d]`` that no x leads to, where the latent's density must be 0; None if there are none."""
        return None

    @property
    def links(self) -> list[Link]:
        """The links that this one is a chain of, from data to latent: itself, if it is none."""
        return [self]

    @property
    def description(self) -> str:
        """The link by its name, a chain by those of its links."""
        return type(self).__name__


class StochasticLink(Link):
    """The link of two densities, q(z|x) and p(x|z). The encoder runs once for all draws.

    Args:
        encoder: density over z with x as context, or x and then c.
        decoder: density over x with z as context, or z and then c.
        context_features: C, the size of c.

    Raises:
        ValueError: the sizes do not fit together.

    >>> import torch
    >>> from density import ConditionalGaussian
    >>> encoder = ConditionalGaussian(torch.nn.Linear(3, 2), 1, 3)
    >>> link = StochasticLink(encoder, ConditionalGaussian(torch.nn.Linear(1, 6), 3, 1))
    >>> link.features, link.latent_features, link.generate(torch.zeros(4, 1)).shape
    (3, 1, torch.Size([4, 3]))
    """

    def __init__(self, encoder: Density, decoder: Density, context_features: int = 0) -> None:
        super().__init__()
        context_features = check_count(context_features, "context_features", least=0)
        check_pair(encoder, decoder, context_features)
        self.features = decoder.features
        self.latent_features = encoder.features
        self.context_features = context_features
        self.measure = decoder.measure
        self.latent_measure = encoder.measure
        self.encoder = encoder
        self.decoder = decoder

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        z, log_q = self.encoder.sample_with_log_prob(draws, context=x, generator=generator)
        return z, log_likelihood(self.decoder, x, z) - log_q

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        return self.decoder.sample(1, context=z, generator=generator).squeeze(0)

    def simulate(self, z: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        latent, context = parted(z, self.latent_features)
        x = joined(self.generate(z, generator=generator), context)
        return x[..., : self.features], log_likelihood(self.decoder, x, latent) - self.encoder.log_prob(latent, x)

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        encoder = self.encoder
        rows = x.beside(context) if self.context_features else x
        encoder._initialise(UNKNOWN, rows)  # it is about z, which only it itself could draw
        z = rows.encoded(lambda rows: encoder.sample(1, context=rows, generator=generator).squeeze(0))
        self.decoder._initialise(x, z.beside(context) if self.context_features else z)
        return z

    @property
    def support(self) -> Support | None:
        return preimage([Step(type(self.decoder).__name__, self.decoder.support)])

    def check_support(self, x: Tensor) -> None:
        self.decoder.check_support(x)

    def check_pathwise(self) -> None:
        if Measure.COUNTING in self.encoder.measure.columns(self.encoder.features):
            raise TypeError(
                f"fit differentiates through the latent draws, and those of {type(self.encoder).__name__} are "
                "discrete. Fit that layer as a VAE with a score-function estimator"
            )


def log_likelihood(decoder: Density, rows: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) of points, or log p(x|z, c) of points with contexts behind them; batch shapes broadcast."""
    x, context = parted(rows, decoder.features)
    return decoder.log_prob(x, joined(z, context))


@torch.no_grad()
def _check_range(prior: Density, link: Link, below: list[Link], points: Tensor) -> None:
    """Raise if what is below a link has density where the link never leads: the model would lack that mass.

    A probe of some points, not a proof.
    """
    generator = Generator(points.device).manual_seed(0)
    z, total = points, points.new_zeros(len(points))
    for one in below:
        z, log_ratio = one.infer_once(z, generator)
        total = total + log_ratio
    total = total + prior.log_prob(z)
    for point in points[total > -torch.inf]:
        names = " and ".join([type(one).__name__ for one in below] + [type(prior).__name__])
        raise ValueError(
            f"{type(link).__name__} never leads to {[round(v, 4) for v in point.tolist()]}, but below it {names} "
            "has density there: the model would lack that mass. Put a bijection from the range between "
            "(DeltaLink of Log or InverseSoftplus after Abs, of Spacings after Sort), or use a prior whose log_prob "
            "is −∞ outside that range"
        )


def check_size(prior: Density, latent_features: int, latent: str, context_features: int = 0) -> None:
    """Raise unless a prior is a density over that many features, unconditional or of that context."""
    if prior.features != latent_features or prior.context_features not in (0, context_features):
        expected = "an unconditional density" if context_features == 0 else "a density"
        of_context = f", of no context or of one of {context_features} features" if context_features else ""
        raise ValueError(
            f"the prior must be {expected} over the {latent_features} features of {latent}{of_context}; got "
            f"{type(prior).__name__} over {prior.features} features with {prior.context_features} context features"
        )


def check_pair(encoder: Density, decoder: Density, context_features: int = 0) -> None:
    """Raise unless encoder and decoder agree on the sizes of x and z, and are of that context beside."""
    for name, density, own, given in (
        ("encoder", encoder, encoder.features, decoder.context_features),
        ("decoder", decoder, decoder.features, encoder.context_features),
    ):
        if own + context_features != given:
            other = "decoder" if name == "encoder" else "encoder"
            formulas = "encoder q(z|x) and decoder p(x|z) must agree on the sizes of x and z"
            if context_features:
                formulas = (
                    f"encoder q(z|x, c) and decoder p(x|z, c) must be conditioned on x or z and then on the "
                    f"{context_features} features of c"
                )
            raise ValueError(
                f"the {name} ({type(density).__name__}) is a density over {own} features, but the {other} is "
                f"conditioned on {given}; {formulas} (docs/howto/own_network.md)"
            )
