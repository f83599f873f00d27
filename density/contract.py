r"""The contract that every model keeps.

For a point x and a latent draw z ~ q(z|x), every model here can say one number, the log-weight

.. math:: \log w(x, z) = \log p(z) + \log p(x|z) - \log q(z|x).

Its mean is the ELBO, its spread the looseness of the bound; it is constant and equal to log p(x) exactly when q is the
posterior. A :class:`Density` knows log p(x) itself, a :class:`Bound` knows log-weights, and a :class:`Model` is either,
fitted to data and asked for a :class:`~density.log_density.LogDensity`.

Subclasses of :class:`Density` write the mathematics (``_log_prob``, ``_sample``, ``_sample_with_log_prob``) for checked
arguments; the public methods check shapes and dtypes. The values themselves are checked where data enters, in
``Model.fit`` and ``Model.log_density``: ``log_prob`` stays a function of tensors that can be differentiated, compiled
and captured, and at NaN its value is NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from density.checks import check_batches, check_context, check_count, check_data, check_points, reference
from density.history import History
from density.log_density import Kind, LogDensity, Measure
from density.rebuildable import Rebuildable


class Density(Rebuildable, nn.Module, ABC):
    """A normalised density over vectors: a prior, a base, an encoder, a decoder; a flow is one.

    Attributes:
        features: event size D; points have shape ``[*batch, D]``.
        context_features: size C of the vector that the density is conditioned on; 0 for an unconditional one.
        measure: what the density is with respect to.
    """

    features: int
    context_features: int = 0
    measure: Measure = Measure.LEBESGUE

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Exact log-density, nats, differentiable.

        Args:
            x: shape ``[*batch, D]``.
            context: shape ``[*batch, C]``; batch shapes broadcast against each other.

        Returns:
            Shape ``[*batch]``.

        Raises:
            TypeError: x is not a floating-point tensor of the density's dtype.
            ValueError: a shape does not fit, or a context is missing or superfluous.
        """
        check_points(x, self.features, type(self).__name__, reference=self.reference)
        self._check_context(context)
        check_batches(x, context, type(self).__name__)
        return self._log_prob(x, context)

    def sample(self, n: int, *, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points for every context: shape ``[n, *context_batch, D]``, pathwise where reparametrised."""
        check_count(n, "n")
        self._check_context(context)
        return self._sample(n, context, generator)

    def sample_with_log_prob(
        self, n: int, *, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws ``[n, *context_batch, D]`` and their log-densities ``[n, *context_batch]``, in one pass."""
        check_count(n, "n")
        self._check_context(context)
        return self._sample_with_log_prob(n, context, generator)

    def check_support(self, x: Tensor) -> None:
        """Raise ValueError where x lies outside the support; called once where data enters. O(nD)."""

    @property
    def reference(self) -> Tensor:
        """A tensor of the density's dtype and device, which draws take theirs from."""
        return reference(self)

    @abstractmethod
    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor: ...

    @abstractmethod
    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]: ...

    def _check_context(self, context: Tensor | None) -> None:
        check_context(context, self.context_features, type(self).__name__, reference=self.reference)


class Model(Rebuildable, nn.Module, ABC):
    """Something that one fits to data and asks how probable other data is.

    Attributes:
        features: event size D.
        measure: what log p(x) is with respect to.
    """

    features: int
    measure: Measure

    @abstractmethod
    def fit(self, x: Tensor) -> History:
        """Fit to points ``[n, D]``: the same call whether closed form, EM or gradient.

        The model moves to the dtype and device of x. Settings, where there are any, are keywords with defaults.
        """

    @abstractmethod
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``[n, D]``."""

    @abstractmethod
    def log_density(self, x: Tensor, *, draws: int = 1000, generator: Generator | None = None) -> LogDensity:
        """The strongest claim about log p(x) that this model can make by itself, for points ``[n, D]``.

        Args:
            draws: latent draws per point where the claim is sampled; exact models ignore it.
        """


class ExactModel(Density, Model):
    """A model whose log p(x) is exact: its claim is its ``log_prob``."""

    def log_density(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        draws: int = 1000,
        generator: Generator | None = None,
    ) -> LogDensity:
        """log p(x), or log p(x|c) of a conditional model at contexts ``[n, C]``: exact, without gradients."""
        name = type(self).__name__
        check_data(x, self.features, name, reference=self.reference)
        self.check_support(x)
        if context is not None and self.context_features:
            check_data(context, self.context_features, f"{name}, as context,", reference=self.reference)
        with torch.no_grad():
            return LogDensity(self.log_prob(x, context), Kind.EXACT, self.method, measure=self.measure)

    @property
    @abstractmethod
    def method(self) -> str:
        """How log p(x) is computed, in words, as the claims print it."""


class Bound(Model):
    """A model whose log p(x) is bounded through a latent."""

    @abstractmethod
    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        """log p(z) + log p(x|z) − log q(z|x) at z ~ q(z|x): ``[draws, *batch]`` for x ``[*batch, D]``, nats.

        Pathwise differentiable where q is reparametrised.
        """

    def elbo(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> Tensor:
        """Unbiased estimate of the ELBO, the mean log-weight: ``[*batch]``, nats, differentiable."""
        return self.log_weights(x, draws, generator=generator).mean(0)

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is a data set ``[n, D]`` that this model can have produced. O(nD)."""
        check_data(x, self.features, type(self).__name__)
