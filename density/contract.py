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


def reference(module: nn.Module) -> Tensor:
    """The first floating-point parameter of a module, or else buffer: the dtype and device that it computes in.

    Raises:
        ValueError: there is none.
    """
    found = find_reference(module)
    if found is None:
        raise ValueError(
            f"{type(module).__name__} holds no floating-point tensor to take a dtype from; register a buffer"
        )
    return found


def find_reference(module: nn.Module) -> Tensor | None:
    """As :func:`reference`, but None for a module that holds no floating-point tensor and takes any dtype."""
    found = _first_floating(module, "_parameters")  # asked at every call, and ten times as fast as by parameters()
    return _first_floating(module, "_buffers") if found is None else found


def _first_floating(module: nn.Module, kind: str) -> Tensor | None:
    tensors: dict[str, Tensor | None] = getattr(module, kind)
    for tensor in tensors.values():
        if tensor is not None and tensor.is_floating_point():
            return tensor
    for child in module._modules.values():
        found = None if child is None else _first_floating(child, kind)
        if found is not None:
            return found
    return None


def check_points(x: Tensor, features: int | None, owner: str, *, reference: Tensor | None = None) -> None:
    """Raise unless x is a floating-point tensor ``[*batch, features]`` in the dtype of the reference. O(1)."""
    _check_floating(x, "x", owner, reference)
    if x.ndim < 1 or (features is not None and x.shape[-1] != features):
        expected = "[*batch, features]" if features is None else f"[*batch, {features}]"
        raise ValueError(f"{owner} expects x of shape {expected}; got {list(x.shape)}")


def check_context(context: Tensor | None, features: int, owner: str, *, reference: Tensor | None = None) -> None:
    """Raise unless the context is what an object with that many context features takes. O(1)."""
    if features == 0:
        if context is not None:
            raise ValueError(
                f"{owner} takes no context; got one. Build it with context features, or leave the context out"
            )
        return
    if context is None:
        raise ValueError(f"{owner} needs a context of shape [*batch, {features}]; got none")
    _check_floating(context, "context", owner, reference)
    if context.ndim < 1 or context.shape[-1] != features:
        raise ValueError(f"{owner} expects a context of shape [*batch, {features}]; got {list(context.shape)}")


def check_batches(x: Tensor, context: Tensor | None, owner: str) -> None:
    """Raise unless the batch shapes of x ``[*batch, D]`` and the context ``[*batch, C]`` broadcast. O(1)."""
    if context is None or x.shape[:-1] == context.shape[:-1]:
        return
    try:
        torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    except RuntimeError as error:
        raise ValueError(
            f"{owner} expects batch shapes that broadcast; got x {list(x.shape)} and context {list(context.shape)}"
        ) from error


def check_data(x: Tensor, features: int, owner: str, *, reference: Tensor | None = None) -> None:
    """Raise unless x is a data set: finite, floating point, ``[n, features]`` with n ≥ 1. O(nD).

    >>> import torch
    >>> check_data(torch.tensor([[0.0, 1.0], [2.0, torch.nan]]), 2, "PPCA")
    Traceback (most recent call last):
        ...
    ValueError: PPCA expects finite data; row 1, column 1 is nan (1 of 4 values are not finite). Remove or impute them
    """
    check_points(x, features, owner, reference=reference)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{owner} expects data in float32 or float64; got {x.dtype}. Convert with x.float()")
    if x.ndim != 2:
        raise ValueError(f"{owner} expects data of shape [n, {features}]; got {list(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{owner} expects at least one row of data; got none")
    if bool(x.detach().sum(dtype=torch.float64).isfinite()):
        return  # as no sum with an infinite or undefined term is; one pass instead of four
    finite = x.isfinite()
    if not finite.all():
        row, column = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"{owner} expects finite data; row {row}, column {column} is {x[row, column].item()} "
            f"({int((~finite).sum())} of {x.numel()} values are not finite). Remove or impute them"
        )


def check_count(n: int, name: str) -> None:
    """Raise unless n is a positive int."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"{name} must be a positive int; got {n!r}")


def _check_floating(x: Tensor, name: str, owner: str, reference: Tensor | None) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{owner} expects {name} to be a torch.Tensor; got {type(x).__name__}. Convert with torch.as_tensor"
        )
    if not x.is_floating_point():
        raise TypeError(f"{owner} expects {name} to be floating point; got {x.dtype}. Convert with {name}.double()")
    if reference is not None and (x.dtype != reference.dtype or x.device != reference.device):
        raise TypeError(
            f"{owner} computes in {reference.dtype} on {reference.device}; {name} is {x.dtype} on {x.device}. "
            f"Move one of them, e.g. model.to({name})"
        )
