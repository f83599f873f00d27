"""What families of counts have in common: their values, their start, and how an encoder sees them."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from density.families.likelihoods.inputs import LogCounts
from density.families.likelihoods.univariate import UnivariateLikelihood
from density.measure import Measure
from density.support import Region

WHOLE = Region(
    "counts, whole numbers 0, 1, 2, ...",
    lambda x: (x < 0) | (x.floor() < x),
    "Round them if they are counts, or take a likelihood of real numbers",
)


@dataclass(frozen=True)
class Counts(UnivariateLikelihood, ABC):
    """A family of masses of counts, of which the network computes the logarithm of the mean.

    The mean starts at that of each feature in the data of the first fit, and a network's number moves its logarithm
    from there, by at most 7. An encoder sees log(1 + x). Draws are not reparametrised.

    >>> from density import Counts, NegativeBinomial, Poisson
    >>> isinstance(Poisson(), Counts), isinstance(NegativeBinomial(), Counts), Poisson().measure.value
    (True, True, 'counting')
    """

    measure = Measure.COUNTING
    from_data = True

    @property
    def region(self) -> Region:
        return WHOLE

    def encoder_input(self, features: int, beside: int = 0) -> nn.Module:
        return LogCounts(features)


def log_means(x: Tensor) -> Tensor:
    """log of the mean of each column ``[D]`` of counts ``[n, D]``, that of half a count in all where there is none."""
    return (x.sum(0).clamp_min(0.5) / len(x)).log()


def poisson_noise(rate: Tensor, generator: Generator | None, owner: str) -> Tensor:
    """A Poisson draw for each rate."""
    try:
        return torch.poisson(rate, generator=generator)
    except RuntimeError as error:
        if bool(rate.isfinite().all()):
            raise
        raise ValueError(
            f"{owner} cannot draw: some rates are not finite. Look for nan or inf in the context"
        ) from error
