r"""Base classes of the links that are no bijections (Nielsen et al. 2020, SurVAE Flows, arXiv:2007.02731, table 1).

A surjection loses information in one direction, and the other direction draws what was lost:

- an :class:`InferenceSurjection` has z = f(x) deterministic and x ~ p(x|z) on the fibre f⁻¹(z). Whatever the prior,
  its q(z|x) = δ(z − f(x)) is the posterior, so it is tight, and log p(x) = log p(z) + log-ratio exactly.
- a :class:`GenerativeSurjection` has x = g(z) deterministic and z ~ q(z|x) on the fibre g⁻¹(x). The posterior depends
  on the prior, so it is loose: what it costs is E_q log q(z|x)/p(z|x).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor

from density.checks import check_count, check_points
from density.contract import Density
from density.initialisation import UNKNOWN, StartingPoints
from density.measure import Measure, ReferenceMeasure
from lvm.links import Link


class Layer(Link):
    """A link that checks the shapes of what it is given: subclasses write ``_infer`` and ``_generate``.

    >>> from bridge import Abs
    >>> try:
    ...     Abs(2).infer(torch.zeros(5, 3))
    ... except ValueError as error:
    ...     print(error)
    Abs expects x of shape [*batch, 2]; got [5, 3]
    """

    latent_measure: Measure = Measure.LEBESGUE

    def infer(self, x: Tensor, draws: int = 1, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        check_points(x, self.features, type(self).__name__)
        draws = check_count(draws, "draws")
        return self._infer(x, draws, generator)

    def generate(self, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        check_points(z, self.latent_features, f"{type(self).__name__}.generate")
        return self._generate(z, generator)

    def _initialise(self, x: StartingPoints, context: StartingPoints, generator: Generator | None) -> StartingPoints:
        # What a surjection draws is as large as the data that it belongs to, whatever its parameters.
        return x.mapped(lambda x: self.infer_once(x, generator)[0])

    @abstractmethod
    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _generate(self, z: Tensor, generator: Generator | None) -> Tensor: ...


class InferenceSurjection(Layer):
    """A tight layer: z = f(x), and a density on the fibre f⁻¹(z) to generate from. Subclasses write ``_project``.

    >>> from bridge import Abs, InferenceSurjection
    >>> layer = Abs(2)  # z = |x|, and a sign is drawn to generate
    >>> z, log_ratio = layer.infer(torch.tensor([-1.0, 2.0]))
    >>> isinstance(layer, InferenceSurjection), z.tolist(), round(log_ratio.item(), 4)
    (True, [[1.0, 2.0]], -1.3863)
    """

    tight = True
    deterministic = True

    def _infer(self, x: Tensor, draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        z, log_ratio = self._project(x)
        return z.expand(draws, *z.shape), log_ratio.expand(draws, *log_ratio.shape)

    @abstractmethod
    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = f(x) ``[*batch, d]`` and the limit of log p(x|z) − log q(z|x) ``[*batch]``."""


class GenerativeSurjection(Layer):
    """A loose layer: x = g(z), and inference draws from a density q(z|x) on the fibre g⁻¹(x).

    >>> from bridge import GenerativeSurjection, UniformDequantisation
    >>> layer = UniformDequantisation(2)  # x = ⌊z⌋, and z is drawn from the cell of x
    >>> isinstance(layer, GenerativeSurjection), layer.tight, layer.generate(torch.tensor([1.7, 0.2])).tolist()
    (True, False, [1.0, 0.0])
    """


def drawn(density: Density, context: Tensor, generator: Generator | None) -> Tensor:
    """One draw ``[*batch, features]`` for each context ``[*batch, C]``, which an unconditional density ignores."""
    return drawn_with_log_prob(density, context, 1, generator)[0].squeeze(0)


def drawn_with_log_prob(
    density: Density, context: Tensor, draws: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Draws ``[draws, *batch, features]`` for each context, and their log-densities ``[draws, *batch]``."""
    if density.context_features:
        return density.sample_with_log_prob(draws, context=context, generator=generator)
    batch = context.shape[:-1]
    if batch.numel() == 0:
        return context.new_zeros(draws, *batch, density.features), context.new_zeros(draws, *batch)
    value, log_prob = density.sample_with_log_prob(draws * batch.numel(), generator=generator)
    return value.reshape(draws, *batch, density.features), log_prob.reshape(draws, *batch)


def at(density: Density, value: Tensor, context: Tensor) -> Tensor:
    """log p(value|context), or log p(value) of an unconditional density."""
    return density.log_prob(value, context if density.context_features else None)


def start(density: Density, value: StartingPoints, context: StartingPoints) -> None:
    """Let a density of a value, given the context or not, take from them what it takes."""
    density._initialise(value, context if density.context_features else UNKNOWN)


def check_part(owner: str, part: str, density: Density, features: int, context: int, measure: ReferenceMeasure) -> None:
    """Raise unless a density over that many features, with the layer's own context or none, stands where it should."""
    if not isinstance(density, Density):
        raise TypeError(f"{owner}: {part} must be a Density; got {type(density).__name__}")
    name = type(density).__name__
    if density.features != features:
        raise ValueError(f"{owner}: {part} must be a density over {features} features; {name} has {density.features}")
    if density.context_features not in (0, context):
        raise ValueError(
            f"{owner}: {part} is conditioned on {context} features or on none; {name} takes {density.context_features}"
        )
    if density.measure != measure:
        raise ValueError(
            f"{owner}: {part} must be a density with respect to {measure.value} measure; {name} is one with respect to "
            f"{density.measure.value} measure"
        )


def check_positive_support(owner: str, part: str, density: Density) -> None:
    """Raise unless a density over a part that is never negative says that it is not."""
    try:
        density.check_support(density.reference.new_full((1, density.features), -1.0))
    except ValueError:
        return
    raise ValueError(
        f"{owner}: {part} is never negative, but {type(density).__name__} takes -1 for a possible value and would lose "
        "mass there; use HalfNormal, or a density whose check_support refuses what is not positive"
    )


def as_columns(columns: list[int] | range | tuple[int, ...], features: int, owner: str) -> list[int]:
    """Different column numbers within 0 … D−1, as given; ValueError otherwise."""
    chosen = [int(column) for column in columns]
    if not chosen or len(set(chosen)) < len(chosen) or min(chosen) < 0 or max(chosen) >= features:
        raise ValueError(f"{owner} expects different columns in 0 ... {features - 1}, at least one; got {chosen}")
    return chosen


def repeated(x: Tensor, draws: int) -> Tensor:
    """x ``[*batch, D]`` as ``[draws, *batch, D]``, without a copy."""
    return x.expand(draws, *x.shape)


def zeros(x: Tensor) -> Tensor:
    """``[*batch]`` zeros for points ``[*batch, D]``."""
    return torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
