"""The models that a prior and links make: a density where every link is tight, a bound elsewhere."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from bridge.flow_vae import DeltaLink
from bridge.survae.chain import described, flattened, inferred_once, latent_measure
from bridge.survae.layer import Layer
from density.checks import check_count, check_data
from density.contract import Density
from density.families.rescaled import Standardisation
from density.fitting.ascent import maximise
from density.fitting.training import Training
from density.history import History
from density.log_density import Measure
from flows.flow import Flow, initialisation_rows
from lvm.latent import ExactLayeredModel, LayeredModel
from lvm.links import Link, StochasticLink


class TightLayeredModel(ExactLayeredModel):
    """A prior and a tight link: every log-weight is log p(x), and the model is a density.

    Raises:
        ValueError: the link is loose, or the prior does not fit: its size, its measure, or its support.

    >>> from bridge.survae.ranges import HalfNormal
    >>> from bridge.survae.surjections import Abs
    >>> model = TightLayeredModel(HalfNormal(1), Abs(1))  # a normal density, folded and unfolded
    >>> model.log_prob(torch.tensor([[-1.0]])).item()
    -1.4189
    """

    def __init__(self, prior: Density, link: Link) -> None:
        _check_prior(prior, link)
        super().__init__(prior, link, f"tight log-weight of {described(link)}")

    def check_support(self, x: Tensor) -> None:
        _check_support(self.layer, x)

    def fit(self, x: Tensor, training: Training = Training(), *, generator: Generator | None = None) -> History:
        """Maximum likelihood of x ``[n, D]`` by gradient, from a data-dependent start where parts have one.

        Raises:
            ValueError: unusable data.
            NonFiniteObjective: the objective overflowed; the last good weights are kept.
        """
        return _fit(self, self.layer, x, training, 1, generator)


class LooseLayeredModel(LayeredModel):
    """A prior and any link: log-weights whose mean is the ELBO. It is no Density: ask for ``elbo`` or ``log_density``.

    Raises:
        ValueError: the prior does not fit the link: its size, its measure, or its support.

    >>> from density.families.gaussian import StandardNormal
    >>> from bridge.survae.dequantisation import UniformDequantisation
    >>> model = LooseLayeredModel(StandardNormal(1), UniformDequantisation(1))
    >>> x = torch.zeros(1, 1)
    >>> claim = model.log_density(x, draws=10_000, generator=torch.Generator().manual_seed(0))
    >>> claim.measure, round(claim.value.exp().item(), 2)  # Φ(1) − Φ(0)
    (<Measure.COUNTING: 'counting'>, 0.34)
    """

    def __init__(self, prior: Density, link: Link) -> None:
        super().__init__()
        _check_prior(prior, link)
        self.features = link.features
        self.measure = link.measure
        self.prior = prior
        self.layer = link

    @property
    def link(self) -> Link:
        return self.layer

    def fit(
        self, x: Tensor, training: Training = Training(), *, draws: int = 1, generator: Generator | None = None
    ) -> History:
        """Maximise the ELBO of x ``[n, D]`` by gradient through the draws.

        Args:
            training: see :class:`~density.fitting.training.Training`.
            draws: latent draws a point and step.

        Raises:
            TypeError: an encoder with parameters draws discrete values, through which no gradient passes.
            ValueError: unusable data.
            NonFiniteObjective: the objective overflowed; the last good weights are kept.
        """
        check_count(draws, "draws")
        for link in flattened(self.layer):
            if isinstance(link, StochasticLink) and link.encoder.measure is Measure.COUNTING:
                raise TypeError(
                    f"fit differentiates through the latent draws, and those of {type(link.encoder).__name__} are "
                    "discrete. Fit that layer as a VAE with a score-function estimator"
                )
        return _fit(self, self.layer, x, training, draws, generator)

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        return self.layer.generate(self.prior.sample(n, generator=generator), generator=generator)

    def check_input(self, x: Tensor) -> None:
        super().check_input(x)
        _check_support(self.layer, x)


def layered(prior: Density, link: Link) -> TightLayeredModel | LooseLayeredModel:
    """The model of a prior and a link: a density exactly when the link is tight, a bound otherwise.

    >>> from density.families.gaussian import StandardNormal
    >>> from bridge.survae.augmentation import Augmentation
    >>> from bridge.survae.surjections import Slice
    >>> type(layered(StandardNormal(1), Slice(2, [0], StandardNormal(1)))).__name__
    'TightLayeredModel'
    >>> type(layered(StandardNormal(2), Augmentation(1, StandardNormal(1)))).__name__
    'LooseLayeredModel'
    """
    tight = isinstance(link, Link) and link.tight  # what is no link is refused by name
    return TightLayeredModel(prior, link) if tight else LooseLayeredModel(prior, link)


def _check_support(link: Link, x: Tensor) -> None:
    first = flattened(link)[0]
    if isinstance(first, Layer):
        first.check_support(x)
    elif isinstance(first, StochasticLink):
        first.decoder.check_support(x)


def _check_prior(prior: Density, link: Link) -> None:
    if not isinstance(prior, Density) or not isinstance(link, Link):
        raise TypeError(
            f"a layered model takes a prior Density and a Link, in this order; got {type(prior).__name__} and "
            f"{type(link).__name__}"
        )
    if prior.features != link.latent_features or prior.context_features:
        raise ValueError(
            f"the prior must be an unconditional density over the {link.latent_features} features of the latent of "
            f"{described(link)}; got {type(prior).__name__} over {prior.features} features with "
            f"{prior.context_features} context features"
        )
    measure = latent_measure(link)
    if measure is not None and prior.measure is not measure:
        raise ValueError(
            f"the latent of {described(link)} needs a density with respect to {measure.value} measure; "
            f"{type(prior).__name__} has one with respect to {prior.measure.value} measure"
        )
    flat = flattened(link)
    for position, layer in enumerate(flat):
        if isinstance(layer, Layer) and (points := layer.unreachable()) is not None:
            _check_range(prior, layer, flat[position + 1 :], points.to(prior.reference))


@torch.no_grad()
def _check_range(prior: Density, layer: Layer, below: list[Link], points: Tensor) -> None:
    """Raise if what is below a layer has density where the layer never leads: the model would lack that mass.

    A probe of some points, not a proof.
    """
    generator = Generator(points.device).manual_seed(0)
    for point in points:
        z, total = point, point.new_zeros(())
        try:
            for link in below:
                z, log_ratio = inferred_once(link, z, generator)
                total = total + log_ratio
            prior.check_support(z.unsqueeze(0))
            total = total + prior.log_prob(z)
        except ValueError:
            continue
        if bool(total.isfinite()):
            names = " and ".join([type(link).__name__ for link in below] + [type(prior).__name__])
            raise ValueError(
                f"{type(layer).__name__} never leads to {[round(v, 4) for v in point.tolist()]}, but below it {names} "
                "has density there: the model would lack that mass. Put a bijection from the range between "
                "(DeltaLink of Log or InverseSoftplus after Abs, of Spacings after Sort), or use a prior with that "
                "range whose check_support says so"
            )


def _fit(
    model: TightLayeredModel | LooseLayeredModel,
    link: Link,
    x: Tensor,
    training: Training,
    draws: int,
    generator: Generator | None,
) -> History:
    check_data(x, model.features, type(model).__name__)
    _check_support(link, x)
    model.to(x)
    _initialise(model.prior, flattened(link), x[initialisation_rows(len(x))], generator)

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return model.elbo(batch[0], draws=draws, generator=generator)

    return maximise(model, objective, (x,), training, generator=generator)


@torch.no_grad()
def _initialise(prior: Density, links: list[Link], x: Tensor, generator: Generator | None) -> None:
    """Set what parts take from data, each from the data as the parts before it leave it."""
    for link in links:
        if isinstance(link, DeltaLink):
            x = link.transform.initialise(x)
            continue
        if isinstance(link, StochasticLink):
            for module in (*link.encoder.modules(), *link.decoder.modules()):
                if isinstance(module, Standardisation) and module.features == link.features:
                    module.match(x)
        x, _ = inferred_once(link, x, generator)
    if isinstance(prior, Flow) and not prior.context_features:
        prior.transform.initialise(x)
