"""Data with missing entries: what a model says of the part of a row that was observed.

Entries are taken to be missing at random (Rubin 1976): whether one is missing may depend on what was observed, not on
the value that was not. Then log p(x_o), the marginal of the observed entries, is the likelihood, and the mechanism
drops out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.checks import check_count, check_incomplete, check_points
from density.data.points import Points
from density.log_density import Kind, LogDensity
from density.measure import Measure, ReferenceMeasure


@dataclass(frozen=True, eq=False)
class Imputation:
    """E[x|x_o] and Var[x|x_o], each ``[*batch, D]``: where an entry is observed, the entry itself, and 0."""

    mean: Tensor
    variance: Tensor


class Observed(ABC):
    """The face that a model shows to rows with missing entries: here, and nowhere else, nan means missing.

    A view: it computes with the model's own parameters and has none itself. Everything is computed in float64 and
    returned in the model's dtype. Rows are grouped by pattern; there is no loop over them.
    """

    features: int
    measure: ReferenceMeasure = Measure.LEBESGUE

    @property
    @abstractmethod
    def reference(self) -> Tensor:
        """A tensor of the model's dtype and device."""

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x_o) of the observed entries of every row, nats: ``[*batch]`` for x ``[*batch, D]``, differentiable.

        It is a density over as many dimensions as the row has entries, and 0 for a row that has none.

        Raises:
            TypeError, ValueError: x is no floating-point tensor of the model's dtype and of the shape ``[*batch, D]``.
        """
        rows = self._rows(x)
        return self._log_prob(rows).to(x.dtype).reshape(x.shape[:-1])

    def log_density(self, x: Tensor) -> LogDensity:
        """The claim that :meth:`log_prob` makes for data ``[n, D]``: exact, without gradients.

        Each value is a density over the entries that its row has. Models are comparable by their difference on the same
        rows with the same entries missing; a mean over rows depends on how many entries there are.

        Raises:
            TypeError, ValueError: as :meth:`log_prob`, and where x is infinite.
        """
        check_incomplete(x, self.features, type(self).__name__, reference=self.reference)
        with torch.no_grad():
            value = self.log_prob(x)
        return LogDensity(
            value, Kind.EXACT, "marginal of the observed entries", measure=self.measure, points=Points.of(x)
        )

    def impute(self, x: Tensor) -> Imputation:
        """Mean and variance of the missing entries given the observed ones, for x ``[*batch, D]``, differentiable."""
        rows = self._rows(x)
        mean, variance = self._impute(rows)
        mean = torch.where(rows.isnan(), mean.to(x.dtype), rows)  # observed entries as they are, to the last bit
        return Imputation(mean.reshape(x.shape), variance.to(x.dtype).reshape(x.shape))

    @torch.no_grad()
    def draw(self, x: Tensor, n: int, *, generator: Generator | None = None) -> Tensor:
        """n draws from p(x|x_o), ``[n, *batch, D]``: multiple imputation. Observed entries are as they are in x."""
        n = check_count(n, "n")
        rows = self._rows(x)
        drawn = self._draw(rows, n, generator).to(x.dtype)
        return torch.where(rows.isnan(), drawn, rows).reshape(n, *x.shape)

    def _rows(self, x: Tensor) -> Tensor:
        check_points(x, self.features, type(self).__name__, reference=self.reference)
        return x.reshape(-1, self.features)

    @abstractmethod
    def _log_prob(self, rows: Tensor) -> Tensor: ...

    @abstractmethod
    def _impute(self, rows: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _draw(self, rows: Tensor, n: int, generator: Generator | None) -> Tensor: ...
