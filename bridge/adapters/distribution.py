"""Distributions in the manner of ``torch.distributions`` as densities: fixed ones, or made by a module at a context."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from bridge.adapters.adapted import Adapted, author
from bridge.adapters.calls import Calls, seeded
from density.checks import find_reference
from density.measure import Measure, ReferenceMeasure


@dataclass(frozen=True, eq=False)
class _Fixed:
    """What makes a distribution that is made already."""

    made: Distribution

    def __call__(self) -> Distribution:
        return self.made


class FromDistribution(Adapted):
    """The density of a ``torch.distributions.Distribution``, or of the one that a module makes at a context.

    Built by :func:`from_distribution`, which says what the arguments are.

    >>> density = from_distribution(torch.distributions.Laplace(torch.zeros(2), 1.0), features=2)
    >>> type(density).__name__, round(density.log_prob(torch.zeros(2)).exp().item(), 4)
    ('FromDistribution', 0.25)
    """

    def __init__(
        self,
        make: Distribution | nn.Module | Callable[..., Distribution],
        features: int,
        context_features: int = 0,
        measure: ReferenceMeasure = Measure.LEBESGUE,
    ) -> None:
        fixed = isinstance(make, Distribution)
        if fixed and context_features:
            raise ValueError(
                f"{type(self).__name__}: a distribution that is made already has no context; give the module or the "
                "function that makes it of one, or context_features=0"
            )
        source: nn.Module
        if isinstance(make, nn.Module):
            source = make
        else:
            source = Calls(_Fixed(make) if isinstance(make, Distribution) else make)
        like = find_reference(source)
        if like is None and not context_features:  # of a function, or a distribution: ask a draw
            with torch.no_grad(), seeded(Generator(), torch.device("cpu")):
                draw = _drawn(source(), ())
            like = draw if draw.is_floating_point() else None
        super().__init__(features, context_features, measure, like)
        self.source = source

    @property
    def method(self) -> str:
        context = self.reference.new_zeros(1, self.context_features) if self.context_features else None
        with torch.no_grad():
            made = self._at(context)
        while isinstance(made, Independent):
            made = made.base_dist
        return f"log_prob of {type(made).__name__}, as {author(type(made))} says"

    def check_support(self, x: Tensor) -> None:
        if self.context_features:
            return
        made = self._at(None)
        inside = _inside(made, x.reshape(len(x), *made.event_shape))
        if inside is not None and not bool(inside.all()):
            row = int((~inside).nonzero()[0])
            raise ValueError(
                f"{type(self).__name__} expects points in the support of its {type(made).__name__}; row {row} is "
                f"outside ({int((~inside).sum())} of {len(x)} are)"
            )

    def _rows_log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return _log_prob(self._at(context), x)

    def _draws(self, n: int, context: Tensor | None) -> Tensor:
        return _drawn(self._at(context), (n,))

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        if context is None or context.numel() == 0:
            return super()._sample_with_log_prob(n, context, generator)
        rows = context.reshape(-1, self.context_features)
        made = self._at(rows)  # once for both
        with seeded(generator, self.reference.device):
            draws = _drawn(made, (n,)).to(self.reference.dtype).reshape(n, len(rows), self.features)
        value = _log_prob(made, draws)
        return draws.reshape(n, *context.shape[:-1], -1), value.to(draws.dtype).reshape(n, *context.shape[:-1])

    def _expectation(self, context: Tensor | None) -> Tensor:
        made = self._at(None if context is None else context.reshape(-1, self.context_features))
        try:
            mean: Tensor = made.mean
        except (NotImplementedError, AttributeError):
            return super()._expectation(context)
        return mean.reshape(self.features) if context is None else mean.reshape(*context.shape[:-1], self.features)

    def _at(self, context: Tensor | None) -> Distribution:
        """The distribution at rows of contexts ``[m, C]``: batch shape ``[m]``, and all other axes one event."""
        made = self.source() if context is None else self.source(context)
        name = type(self).__name__
        if not isinstance(made, Distribution):
            raise TypeError(
                f"{name} takes a torch.distributions.Distribution, or what makes one of a context; "
                f"got {type(made).__name__}"
            )
        rows = () if context is None else (len(context),)
        if not made.batch_shape and rows:
            made = made.expand(torch.Size(rows))  # it does not look at its context
        shape = made.batch_shape + made.event_shape
        size = math.prod(shape[len(rows) :])
        if made.batch_shape[: len(rows)] != rows or size != self.features:
            raise ValueError(
                f"{name} expects a distribution over {self.features} features"
                f"{f' for each of {rows[0]} contexts' if rows else ''}; got batch shape {list(made.batch_shape)} and "
                f"event shape {list(made.event_shape)}"
            )
        beyond = len(made.batch_shape) - len(rows)
        return Independent(made, beyond) if beyond else made


def from_distribution(
    make: Any,  # noqa: ANN401  # a Distribution, a module or a function
    features: int,
    context_features: int = 0,
    measure: ReferenceMeasure = Measure.LEBESGUE,
) -> FromDistribution:
    """A ``torch.distributions.Distribution`` as a density, or a module or function that makes one of a context.

    A zuko flow is such a module. Axes beyond those of the context are the event: ``Normal(zeros(3), ones(3))`` is
    one density over three features, and so is an image over ``[1, 8, 8]`` over 64. Modules are parts of the density:
    they are trained, moved and put into evaluation mode with it, also those that a function names. Outside the support
    log p is −∞. The claim is exact on its author's word, and says so; ``check_exact`` tries it.

    Args:
        make: the distribution; or, called with contexts ``[m, C]``, or with nothing where there is no context, it
            returns one.
        features: D.
        context_features: C.
        measure: what log p is with respect to; ``Measure.COUNTING`` for a discrete distribution.

    Returns:
        An exact model; draws follow the generator through a forked random state, since torch's distributions take
        none, and are pathwise where the distribution's are.

    Raises:
        TypeError: what is made is no Distribution.
        ValueError: it is over another number of features, or not one for each context.

    >>> gamma = from_distribution(torch.distributions.Gamma(torch.tensor([2.0, 3.0]), 1.0), features=2)
    >>> gamma.log_density(torch.tensor([[1.0, 2.0], [0.5, 4.0]]))
    log p(x) = -2.7103 ± 0.4 (data) nats, exact (log_prob of Gamma, as torch says), Lebesgue measure, 2 points
    """
    return FromDistribution(make, features, context_features, measure)


def is_discrete(made: Distribution) -> bool:
    """Whether a distribution is one of masses, by its support; False where it does not say."""
    try:
        return bool(made.support is not None and made.support.is_discrete)
    except (NotImplementedError, AttributeError):
        return False


def _log_prob(made: Distribution, x: Tensor) -> Tensor:
    """log p of points ``[*, D]`` that fit the batch shape, −∞ outside the support and nan at nan."""
    y = x.reshape(*x.shape[:-1], *made.event_shape)
    inside = _inside(made, y)
    if inside is None or bool(inside.all()):
        return made.log_prob(y)
    with torch.no_grad(), seeded(Generator(), x.device):
        within = made.sample()
    value = made.log_prob(torch.where(inside.reshape(*inside.shape, *[1] * len(made.event_shape)), y, within))
    return value.masked_fill(~inside, -math.inf).masked_fill(x.isnan().any(-1), math.nan)


def _inside(made: Distribution, y: Tensor) -> Tensor | None:
    """Which points ``[*, *event]`` are in the support; None where it does not say."""
    try:
        support = made.support
    except (NotImplementedError, AttributeError):
        return None
    if support is None or constraints.is_dependent(support):
        return None
    inside: Tensor = support.check(y)
    return inside.reshape(*y.shape[: y.ndim - len(made.event_shape)], -1).all(-1)


def _drawn(made: Distribution, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape)
    return made.rsample(size) if made.has_rsample else made.sample(size)
