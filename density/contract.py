r"""The contract that every model keeps.

For a point x and a latent draw z ~ q(z|x), every model here can say one number, the log-weight

.. math:: \log w(x, z) = \log p(z) + \log p(x|z) - \log q(z|x).

Its mean is the ELBO, its spread the looseness of the bound; it is constant and equal to log p(x) exactly when q is the
posterior. A :class:`Density` knows log p(x) itself, a :class:`Bound` knows log-weights, and a :class:`Model` is either,
fitted to data and asked for a :class:`~density.log_density.LogDensity`.

A subclass of :class:`Density` sets ``features`` and writes the mathematics for checked arguments, ``_log_prob`` and
``_sample``; what follows from them has a default (``_sample_with_log_prob``, ``_expectation``), to be overridden where
there is a shorter way. The public methods check shapes and dtypes, once: a density that is made of others calls their
hooks with what it was given, and their public methods with what somebody else's network or link made of it. The values
themselves are checked where data enters, in ``Model.fit`` and ``Model.log_density``: ``log_prob`` stays a function of
tensors that can be differentiated, compiled and captured. Outside :attr:`Density.support` its value is −∞, and at NaN
it is NaN.

As a module, a density answers with its ``log_prob``, a bound with its ``elbo``, and a model that is both with its
``log_prob``: what takes a module (``torch.compile``, ``torch.func.functional_call``, ``AveragedModel``) takes these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import no_type_check

import torch
from torch import Generator, Tensor, nn

from density.checks import (
    check_batches,
    check_context,
    check_contexts,
    check_count,
    check_data,
    check_points,
    reference,
)
from density.data.blocks import in_blocks
from density.data.points import Points
from density.data.states import Alphabet
from density.evaluating import evaluated
from density.history import History
from density.initialisation import Initialisable
from density.log_density import LogDensity
from density.measure import Measure, ReferenceMeasure
from density.numerical import check_draws_nothing, evaluated_numerically
from density.own_precision import in_own_precision
from density.rebuildable import Rebuildable
from density.support import Support


class Density(Rebuildable, Initialisable, nn.Module, ABC):
    """A normalised density over vectors: a prior, a base, an encoder, a decoder; a flow is one.

    Attributes:
        features: event size D; points have shape ``[*batch, D]``.
        context_features: size C of the vector that the density is conditioned on; 0 for an unconditional one.
        measure: what the density is with respect to.

    >>> class Exponential(Density):
    ...     def __init__(self, features: int) -> None:
    ...         super().__init__()
    ...         self.features = features
    ...         self.log_rate = nn.Parameter(torch.zeros(features))
    ...
    ...     def _log_prob(self, x, context):
    ...         return (self.log_rate - self.log_rate.exp() * x).sum(-1)
    ...
    ...     def _sample(self, n, context, generator):
    ...         return torch.empty(n, self.features).exponential_(generator=generator) / self.log_rate.exp()
    >>> Exponential(2)(torch.tensor([0.5, 1.0])).item()
    -1.5
    """

    features: int
    context_features: int = 0
    measure: ReferenceMeasure = Measure.LEBESGUE

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """:meth:`log_prob`."""
        return self.log_prob(x, context)

    @in_own_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Exact log-density, nats, differentiable.

        To train with it in a loop of your own, call :meth:`initialise` first, as ``fit`` does.

        Args:
            x: shape ``[*batch, D]``.
            context: shape ``[*batch, C]``; batch shapes broadcast against each other.

        Returns:
            Shape ``[*batch]``.

        Raises:
            TypeError: x is not a floating-point tensor of the density's dtype.
            ValueError: a shape does not fit, or a context is missing or superfluous.
        """
        name, reference = type(self).__name__, self.reference
        check_points(x, self.features, name, reference=reference)
        check_context(context, self.context_features, name, reference=reference)
        check_batches(x, context, name)
        return self._log_prob(x, context)

    @in_own_precision
    def sample(self, n: int, *, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points for every context: shape ``[n, *context_batch, D]``, pathwise where reparametrised."""
        n = check_count(n, "n")
        self._check_context(context)
        return self._sample(n, context, generator)

    @in_own_precision
    def sample_with_log_prob(
        self, n: int, *, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws ``[n, *context_batch, D]`` and their log-densities ``[n, *context_batch]``, in one pass."""
        n = check_count(n, "n")
        self._check_context(context)
        return self._sample_with_log_prob(n, context, generator)

    @in_own_precision
    def expectation(self, context: Tensor | None = None) -> Tensor:
        """E[x|c] in closed form, differentiable: ``[*context_batch, D]`` at contexts ``[*context_batch, C]``.

        Raises:
            TypeError: there is no closed form; average draws instead.
            ValueError: a context is missing, superfluous or of another size.
        """
        self._check_context(context)
        return self._expectation(context)

    @property
    def support(self) -> Support | None:
        """Where the density is not 0; outside, ``log_prob`` is −∞. None for everywhere, and for masses on a few values,
        whose data is looked at where it enters (``check_support``) and nowhere else.
        """
        return None

    @property
    def alphabets(self) -> tuple[Alphabet, ...]:
        """The values of the columns that have finitely many, over which sums are exact; () where there are none."""
        return ()

    def check_support(self, x: Tensor) -> None:
        """Raise ValueError where x lies outside the support; called once where data enters. O(nD)."""
        if (support := self.support) is not None:
            support.check(x, type(self).__name__)

    @property
    def reference(self) -> Tensor:
        """A tensor of the density's dtype and device, which draws take theirs from."""
        return reference(self)

    @abstractmethod
    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor: ...

    def _log_prob_at_each(self, x: Tensor, context: Tensor) -> Tensor:
        """log p(xᵢ|c_k) of all pairs, ``[n, K]``, for points ``[n, D]`` and contexts ``[K, C]``.

        O(nKD) numbers at once. Families whose log p is linear in functions of x have one matrix product instead.
        """
        return self._log_prob(x.unsqueeze(1), context)

    @abstractmethod
    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor: ...

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        x = self._sample(n, context, generator)
        return x, self._log_prob(x, context)

    def _expectation(self, context: Tensor | None) -> Tensor:
        draws = "sample(n, context=context)" if self.context_features else "sample(n)"
        raise TypeError(f"{type(self).__name__} has no expectation in closed form; average draws, {draws}.mean(0)")

    def _check_context(self, context: Tensor | None) -> None:
        if self.context_features or context is not None:
            reference = None if context is None else self.reference
            check_context(context, self.context_features, type(self).__name__, reference=reference)


class Model(Rebuildable, Initialisable, nn.Module, ABC):
    """A distribution that is fitted to data and then asked how probable other data is.

    Attributes:
        features: event size D.
        measure: what log p(x) is with respect to.

    >>> from density import Gaussian, Model
    >>> model = Gaussian(2)
    >>> history = model.fit(torch.randn(100, 2))
    >>> isinstance(model, Model), model.sample(3).shape, model.log_density(torch.zeros(5, 2)).method
    (True, torch.Size([3, 2]), 'closed form')
    """

    features: int
    measure: ReferenceMeasure

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

        A claim depends on weights and points and on nothing else: it is computed in evaluation mode
        (:func:`~density.evaluating.evaluated`), and leaves the model as it was.

        Args:
            draws: latent draws per point where the claim is sampled; exact models ignore it.
        """


class ExactModel(Density, Model):
    """A model whose log p(x) is exact, up to the numerical method of its parts: its claim is its ``log_prob``.

    >>> from density import ExactModel, Gaussian
    >>> isinstance(Gaussian(2), ExactModel), Gaussian(2).log_density(torch.zeros(5, 2)).kind.value
    (True, 'exact')
    """

    @evaluated
    def log_density(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        draws: int = 1000,
        generator: Generator | None = None,
    ) -> LogDensity:
        """log p(x), or log p(x|c) of a conditional model at contexts ``[n, C]``, or one: exact, without gradients.

        In evaluation mode, and in blocks of rows whose memory does not grow with n. Where a part of the model computes
        by a numerical method, the claim states the error (:func:`~density.numerical.evaluated_numerically`) and is an
        estimate if that exceeds the tolerance, or if something is drawn, from the generator.
        """
        name, reference = type(self).__name__, self.reference
        check_data(x, self.features, name, reference=reference)
        self.check_support(x)
        check_context(context, self.context_features, name, reference=reference)
        if context is not None:
            check_data(torch.atleast_2d(context), self.context_features, f"{name}, as context,", reference=reference)
        with torch.no_grad():
            found = evaluated_numerically(self, lambda: in_blocks(self.log_prob, x, context), generator)
        return LogDensity(
            found.value, found.kind, f"{self.method}, {found.words}" if found.words else self.method,
            found.monte_carlo_error, found.numerical_error, measure=self.measure,
            points=Points.of(x.expand(len(found.value), -1)),
        )  # fmt: skip

    def _claim(self, x: Tensor, context: Tensor | None) -> LogDensity:
        """:meth:`log_density`, which a model of one's own may have without contexts."""
        return self.log_density(x) if context is None else self.log_density(x, context=context)

    @property
    @abstractmethod
    def method(self) -> str:
        """How log p(x) is computed, in words, as the claims print it."""


class Bound(Model):
    """A model whose log p(x) is bounded through a latent.

    Attributes:
        context_features: size C of the vector that it is conditioned on; 0 for an unconditional one, which is all that
            a subclass with the methods below can be. Conditional ones are :class:`~lvm.layered.LayeredModel`.

    >>> class Mine(Bound):  # x ~ N(z, 1), z ~ N(0, 1), q(z|x) = N(x/2, ½), which is the posterior
    ...     features, measure, fit, sample, log_density = 1, Measure.LEBESGUE, None, None, None
    ...
    ...     def log_weights(self, x, draws, *, generator=None):
    ...         normal = torch.distributions.Normal
    ...         q = normal(x / 2, 0.5**0.5)
    ...         z = q.sample((draws,))
    ...         return (normal(0, 1).log_prob(z) + normal(z, 1).log_prob(x) - q.log_prob(z)).sum(-1)
    >>> round(Mine().elbo(torch.zeros(1, 1)).item(), 4)  # log N(0; 0, 2)
    -1.2655
    """

    @no_type_check  # a model that is both a density and a bound answers as a density
    def forward(
        self, x: Tensor, context: Tensor | None = None, *, draws: int = 1, generator: Generator | None = None
    ) -> Tensor:
        """:meth:`elbo`."""
        if context is None:
            return self.elbo(x, draws=draws, generator=generator)
        return self.elbo(x, context=context, draws=draws, generator=generator)

    @abstractmethod
    def log_weights(self, x: Tensor, draws: int, *, generator: Generator | None = None) -> Tensor:
        """log p(z) + log p(x|z) − log q(z|x) at z ~ q(z|x): ``[draws, *batch]`` for x ``[*batch, D]``, nats.

        Pathwise differentiable where q is reparametrised.
        """

    def elbo(self, x: Tensor, *, draws: int = 1, generator: Generator | None = None) -> Tensor:
        """Unbiased estimate of the ELBO, the mean log-weight: ``[*batch]``, nats, differentiable.

        To train with it in a loop of your own, call :meth:`initialise` first, as ``fit`` does.
        """
        return self.log_weights(x, draws, generator=generator).mean(0)

    def check_input(self, x: Tensor) -> None:
        """Raise unless x is a data set ``[n, D]`` that this model can have produced. O(nD)."""
        check_data(x, self.features, type(self).__name__)

    def _check_asked(self, x: Tensor, context: Tensor | None) -> None:
        """Raise unless x is such a data set, and context what belongs to it: ``[n, C]``, one for all, or None.

        O(n(D + C)).
        """
        check_draws_nothing(self)
        self.check_input(x)
        check_contexts(context, self.context_features, x, type(self).__name__, shared=True)

    def _log_weights(self, rows: Tensor, draws: int, generator: Generator | None) -> Tensor:
        """:meth:`log_weights` of points with their contexts behind them, ``[*batch, D + C]``."""
        return self.log_weights(rows, draws, generator=generator)
