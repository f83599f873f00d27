"""What all densities have in common whose log p(x) is somebody else's word."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor

from bridge.adapters.calls import seeded
from density.checks import check_count
from density.contract import ExactModel
from density.fitting.fit_data import FitRows, HeldOut, prepare
from density.fitting.training import Training
from density.history import History
from density.measure import Measure, ReferenceMeasure


class Adapted(ExactModel):
    """A density from outside. Its code sees points as rows, ``[m, D]`` beside contexts ``[m, C]``, and draws as it does
    everywhere, from torch's global random state, which is seeded and put back where a generator is given.

    That log p(x) is normalised, and that draws follow it, is what its author says; ``check_exact`` tries it.
    """

    anchor: Tensor

    def __init__(self, features: int, context_features: int, measure: ReferenceMeasure, like: Tensor | None) -> None:
        super().__init__()
        if not isinstance(measure, Measure):
            raise TypeError(f"the measure must be a density.Measure, such as Measure.LEBESGUE; got {measure!r}")
        self.features = check_count(features, "features")
        self.context_features = check_count(context_features, "context_features", least=0)
        self.measure = measure
        # What is adapted may hold no tensor of its own, and some dtype there must be.
        anchor = torch.zeros(()) if like is None else torch.zeros((), dtype=like.dtype, device=like.device)
        self.register_buffer("anchor", anchor, persistent=False)

    @abstractmethod
    def _rows_log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        """``[m]`` of points ``[m, D]``, one at least, at contexts ``[m, C]``."""

    @abstractmethod
    def _draws(self, n: int, context: Tensor | None) -> Tensor:
        """n points ``[n, D]``; of each of m contexts ``[m, C]``, ``[n, m, D]``."""

    def fit(
        self,
        x: FitRows,
        training: Training = Training(),
        *,
        context: Tensor | None = None,
        weights: Tensor | None = None,
        validation: HeldOut | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximum likelihood by gradient, on points ``[n, D]`` given contexts ``[n, C]``.

        The arguments are those of :meth:`flows.flow.Flow.fit`.

        Raises:
            TypeError: nothing here can be trained: no module was given, or one without free parameters.
            ValueError, NonFiniteObjective: as for :meth:`flows.flow.Flow.fit`.

        Warns:
            TiedColumns: columns of integers, ties or copies, on which the likelihood has no maximum.
        """
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise TypeError(
                f"{type(self).__name__} has no parameters to fit: it was made of a distribution or a function without "
                "modules. Fit it where it comes from, or give the module that makes it"
            )
        given = prepare(self, x, training, self.check_support, context=context, weights=weights, validation=validation)
        return given.maximise(self, lambda batch, _: self.log_prob(*batch), training, generator)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        batch = x.shape[:-1]
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
            context = context.expand(*batch, -1).reshape(-1, self.context_features)
        rows = x.expand(*batch, -1).reshape(-1, self.features)
        if not len(rows):
            return x.new_zeros(batch)
        value = self._rows_log_prob(rows, context)
        if not isinstance(value, Tensor) or value.shape != (len(rows),):
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"{type(self).__name__} expects a log-density of shape [n] for n = {len(rows)} points; got {got}. Sum "
                "over features, and drop axes of size 1"
            )
        return value.to(x.dtype).reshape(batch)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        shape = (n, self.features) if context is None else (n, *context.shape[:-1], self.features)
        rows = None if context is None else context.reshape(-1, self.context_features)
        if rows is not None and not len(rows):
            return self.anchor.new_zeros(shape)
        with seeded(generator, self.reference.device):
            draws = self._draws(n, rows)
        if not isinstance(draws, Tensor) or draws.numel() != n * self.features * (1 if rows is None else len(rows)):
            got = list(draws.shape) if isinstance(draws, Tensor) else type(draws).__name__
            raise ValueError(f"{type(self).__name__} expects draws of shape {list(shape)}; got {got}")
        return draws.to(self.reference.dtype).reshape(shape)


def author(cls: type) -> str:
    """Whose word the log-density of a class is: the library that the class comes from.

    >>> author(torch.distributions.Normal)
    'torch'
    """
    return cls.__module__.partition(".")[0].strip("_")
