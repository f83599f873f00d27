"""Likelihoods whose maximum has a closed form, since it matches moments: exponential families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor

from density.families.likelihoods.likelihood import Likelihood


class ExponentialFamily(Likelihood, ABC):
    r"""A likelihood p(x|θ) ∝ exp(η(θ)ᵀ T(x)): over rows with weights it is highest where E_θ T is their mean of T.

    It is what an M-step needs, whatever the model is whose posterior the weights are. S statistics a feature,
    elementwise, in the order of the numbers: the first of every feature, then the second of every feature, …

    Attributes:
        dispersed: whether θ follows from mean and variance of T(x) = x, and not from the mean of T alone.
        vague: the mean of T in a row that is taken for granted beside the data, so that nothing is impossible.

    >>> from density import Poisson
    >>> counts = torch.tensor([[0.0], [1.0], [5.0]])
    >>> numbers = Poisson().natural().maximum(Poisson().statistics(counts).mean(0))
    >>> round(numbers.exp().item(), 4)  # the mean of the counts
    2.0
    """

    dispersed: ClassVar[bool] = False
    vague: float = 0.0

    @abstractmethod
    def statistics(self, x: Tensor) -> Tensor:
        """T(x), ``[*batch, S·D]`` for x ``[*batch, D]``."""

    @abstractmethod
    def maximum(self, mean: Tensor, variance: Tensor | None = None) -> Tensor:
        """The numbers ``[*batch, numbers·D]`` of :meth:`natural` at which T has that mean ``[*batch, S·D]``, and, if
        ``dispersed``, that variance.
        """

    def variance(self, numbers: Tensor) -> Tensor:
        """The variance ``[*batch, D]`` of x at numbers ``[*batch, numbers·D]`` of :meth:`natural`, if ``dispersed``."""
        raise TypeError(f"{type(self).__name__} has no variance of its own")

    def natural(self) -> Self:
        """The same family with its numbers as they come: none of them bounded, or in units of the data's spread.

        Raises:
            ValueError: the likelihood says how its numbers are to be bounded.
        """
        return self

    @property
    def moments(self) -> int:
        """S."""
        return 1

    @property
    def freedom(self) -> int:
        """Free parameters of a feature: the numbers, less those that say nothing."""
        return self.numbers


def logarithm(mean: Tensor) -> Tensor:
    """log of a mean that may be 0: finite, so that 0 times it is 0."""
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
