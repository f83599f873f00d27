"""A VAE from somebody's encode and decode."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from bridge.adapters.calls import Calls
from bridge.adapters.distribution import FromDistribution, is_discrete
from density.checks import check_count, find_reference
from density.contract import Density
from density.evaluating import evaluating
from density.families.bernoulli import ConditionalBernoulli
from density.families.conditional_gaussian import ConditionalGaussian, NetworkScale, ScaleModel
from density.families.gaussian import StandardNormal
from density.log_density import LogDensity
from density.measure import Measure
from lvm.vae.model import VAE

Likelihood = ScaleModel | type[ConditionalBernoulli] | Callable[[Any], Distribution]


class AdaptedVAE(VAE):
    """A VAE whose parts come from elsewhere; its claim says how they were read.

    Args:
        prior, encoder, decoder: see :class:`~lvm.vae.model.VAE`.
        reading: how they were read, in words.

    >>> from density import FixedScale
    >>> vae = from_functions(nn.Linear(6, 4), nn.Linear(2, 6), latent_features=2, likelihood=FixedScale(0.5))
    >>> type(vae).__name__, vae.log_density(torch.zeros(3, 6), draws=5).kind.value
    ('AdaptedVAE', 'lower bound')
    """

    def __init__(self, prior: Density, encoder: Density, decoder: Density, reading: str) -> None:
        super().__init__(prior, encoder, decoder)
        self.reading = reading

    def log_density(
        self, x: Tensor, *, context: Tensor | None = None, draws: int = 1000, generator: Generator | None = None
    ) -> LogDensity:
        claim = super().log_density(x, context=context, draws=draws, generator=generator)
        return replace(claim, method=f"{claim.method}; {self.reading}")


class _Events(nn.Module):
    """A function of events ``[n, *event_shape]`` as one of rows ``[n, D]``."""

    def __init__(self, function: nn.Module, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.event_shape = event_shape

    def forward(self, rows: Tensor) -> Any:  # noqa: ANN401
        return self.function(rows.reshape(-1, *self.event_shape))


class _Then(nn.Module):
    """A likelihood of what a network returns."""

    def __init__(self, network: nn.Module, likelihood: Callable[[Any], Distribution]) -> None:
        super().__init__()
        self.network = network
        self.likelihood = Calls(likelihood)

    def forward(self, z: Tensor) -> Any:  # noqa: ANN401
        return self.likelihood(self.network(z))


def from_functions(
    encode: Callable[[Tensor], Any],
    decode: Callable[[Tensor], Any],
    prior: Density | None = None,
    *,
    event_shape: int | Sequence[int] | None = None,
    latent_features: int | None = None,
    likelihood: Likelihood | None = None,
    reading: str | None = None,
) -> AdaptedVAE:
    """The VAE of an encoder and a decoder that were written, and perhaps trained, elsewhere.

    Modules and their methods are parts of the model; so are modules that a function names. They are shared, trained,
    moved, and in evaluation mode when the model is asked. Points are rows ``[n, D]`` here, whatever their shape there.

    Args:
        encode: maps ``[n, *event_shape]`` to a distribution of z ``[n, d]``, or to its (mean, log-variance).
        decode: maps z ``[n, d]`` to a distribution of x, or to numbers that ``likelihood`` reads, of any event shape.
        prior: standard normal over ``latent_features`` if None.
        event_shape: of one point; ``[D]``, with D as decode has it, if None.
        latent_features: d; the prior's if None.
        likelihood: of what decode returns where that is no distribution: a scale model such as
            ``FixedScale(1.0)`` for means, ``ConditionalBernoulli`` for logits, or a function of it that returns a
            distribution. A pair (mean, log-variance) needs none.
        reading: how the parts are read, in words, for the claim; by default it names the likelihood.

    Raises:
        TypeError: decode or encode returns something else.
        ValueError: a size is missing, or does not fit.

    >>> _ = torch.manual_seed(0)
    >>> encoder, decoder = nn.Linear(64, 4), nn.Linear(2, 64)
    >>> model = from_functions(
    ...     lambda x: encoder(x.flatten(1)).chunk(2, -1), decoder, event_shape=(1, 8, 8), latent_features=2,
    ...     likelihood=ConditionalBernoulli,
    ... )
    >>> model.log_density(torch.ones(5, 64), draws=100, generator=torch.Generator().manual_seed(0)).measure
    <Measure.COUNTING: 'counting'>
    """
    if prior is None and latent_features is None:
        raise ValueError("from_functions needs latent_features=, the width of z, or a prior that has it")
    if prior is not None and latent_features not in (None, prior.features):
        raise ValueError(f"from_functions: the prior has {prior.features} features; got {latent_features=}")
    width = check_count(cast(int, latent_features) if prior is None else prior.features, "latent_features")
    encoder_network, decoder_network = (f if isinstance(f, nn.Module) else Calls(f) for f in (encode, decode))
    like = find_reference(decoder_network)
    like = torch.zeros(()) if like is None else like
    with torch.no_grad(), evaluating(decoder_network):
        output = decoder_network(like.new_zeros(1, width))
    shape = _event(event_shape, output)
    decoder, words = _decoder(decoder_network, output, width, math.prod(shape), likelihood)
    encoder = _encoder(_Events(encoder_network, shape), width, shape, like)
    normal = StandardNormal(width).to(like)
    return AdaptedVAE(normal if prior is None else prior, encoder, decoder, words if reading is None else reading)


def _event(event_shape: int | Sequence[int] | None, output: object) -> tuple[int, ...]:
    if isinstance(event_shape, int):
        return (check_count(event_shape, "event_shape"),)
    if event_shape is not None:
        return tuple(check_count(size, "event_shape") for size in event_shape)
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, Distribution):
        return ((output.batch_shape + output.event_shape).numel(),)
    if isinstance(output, Tensor):
        return (output.numel(),)
    raise TypeError(
        f"from_functions expects decode to return a Distribution, a tensor, or (mean, log-variance); "
        f"got {type(output).__name__}"
    )


def _decoder(
    network: nn.Module, output: object, width: int, features: int, likelihood: Likelihood | None
) -> tuple[Density, str]:
    """The density of x given z, and how decode was read."""
    if isinstance(output, Distribution):
        measure = Measure.COUNTING if is_discrete(output) else Measure.LEBESGUE
        return FromDistribution(network, features, width, measure), "decoder as its distribution says"
    if likelihood is None and isinstance(output, tuple | list):
        gaussian = ConditionalGaussian(network, features, width, NetworkScale(bound=None))
        return gaussian, "decoder read as mean and log-variance"
    if isinstance(likelihood, ScaleModel):
        name = type(likelihood).__name__
        sigma = f"σ = {likelihood.std:g}" if hasattr(likelihood, "std") else f"σ of {name}"
        return ConditionalGaussian(network, features, width, likelihood), f"decoder read as mean, {sigma}"
    if likelihood is ConditionalBernoulli:
        return ConditionalBernoulli(network, features, width), "decoder read as log-odds"
    if likelihood is None or isinstance(likelihood, type):
        raise TypeError(
            "from_functions: decode returns numbers; say what they mean, by likelihood=FixedScale(1.0) or another "
            "scale model for means, likelihood=ConditionalBernoulli for logits, or a function of them that returns a "
            f"torch.distributions.Distribution; got {likelihood}"
        )
    made = likelihood(output)
    if not isinstance(made, Distribution):
        raise TypeError(f"from_functions expects likelihood to return a Distribution; got {type(made).__name__}")
    measure = Measure.COUNTING if is_discrete(made) else Measure.LEBESGUE
    return FromDistribution(_Then(network, likelihood), features, width, measure), f"decoder read as {_kind(made)}"


def _encoder(network: nn.Module, width: int, shape: tuple[int, ...], like: Tensor) -> Density:
    features = math.prod(shape)
    with torch.no_grad(), evaluating(network):
        output = network(like.new_zeros(1, features))
    if isinstance(output, Distribution):
        return FromDistribution(network, width, features)
    return ConditionalGaussian(network, width, features, NetworkScale(bound=None))


def _kind(made: Distribution) -> str:
    while hasattr(made, "base_dist") and type(made).__name__ == "Independent":
        made = made.base_dist
    return type(made).__name__
