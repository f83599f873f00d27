"""EM for PPCA with missing entries: sufficient statistics of the observed ones, which add, and the M-step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from operator import add

import torch
from torch import Tensor

from density.checks import free_to_look
from density.data.rows import Rows
from density.history import History
from density.linalg.moments import resolution
from density.parallel import processes
from density.renamed import renamed
from lvm.missing.columns import means, sums
from lvm.ppca.climb import PPCAClimb
from lvm.ppca.observed_curvature import Filled, Part, ways_up
from lvm.ppca.observed_posterior import Coordinates
from lvm.ppca.parameters import Expectation, PPCAParameters
from lvm.ppca.spectrum import require_noise


@renamed(seed="start=RandomWeight(seed)", warm_start="start=Present()")
@dataclass(frozen=True)
class MissingEM(PPCAClimb):
    r"""EM for PPCA with missing entries: log p(x_o) of the observed ones never decreases.

    Only z is completed, not the missing entries, so that the M-step is one regression for every feature, of x_j on
    (z, 1), over the rows i that have it (Ilin & Raiko 2010, who take μ and W one after the other):

    .. math:: (w_j, \mu_j) = \Big(\sum_{i \ni j} E[\tilde z_i \tilde z_i^\top]\Big)^{-1}
              \sum_{i \ni j} x_{ij} E[\tilde z_i], \qquad \tilde z = (z, 1),

    and σ² the mean expected square of what is left. It also fits mean and covariance of the latent, which μ and W then
    absorb (parameter expansion: Liu, Rubin & Wu 1998), so that it does not crawl where noise is small. On complete data
    its iterations are those of :class:`~lvm.ppca.solvers.EMSolver`.

    Rows without any entry say nothing and are left out. Where entries are missing the likelihood can have several
    maxima: try several starts. With about as many entries in a row as latents, or fewer, a fit may also follow noise
    with σ² → 0; fewer latents are the remedy.

    Parameters that stay what they are (see :meth:`lvm.ppca.model.PPCA.fit`) are given in the regression, which then is
    the maximum over the others. Such a fit does not look for a way up from a saddle.

    O(nDq) an iteration, and O(Dq² + q³) for every different pattern of missing entries.

    Args:
        max_iterations, tolerance, start, restarts, progress, checkpoint: see
            :class:`~lvm.ppca.climb.PPCAClimb`.

    Raises:
        ValueError: a setting is out of range.

    >>> import torch
    >>> from lvm import PPCA
    >>> from lvm.ppca import MissingEM
    >>> x = torch.randn(60, 3, generator=torch.manual_seed(0)).double()
    >>> x[::4, 1] = torch.nan
    >>> history = PPCA(3, 1).observed.fit(x, MissingEM(max_iterations=20, progress=False))
    >>> history.objective[-1] >= history.objective[0]
    True
    """

    def solve(self, rows: Rows, present: PPCAParameters) -> tuple[PPCAParameters, History]:
        """μ, W and σ² for data with missing entries, computed in float64, and how it went."""
        latent_features = present.weight.shape[1]
        columns = Columns.of(rows)
        if present.fixed_noise is None:
            require_noise(columns.variances.mean(), columns.floor, latent_features, columns.dtype)

        def parts() -> Iterator[Part]:
            for x, weights in rows:
                yield Part(x, weights, Coordinates.patterns(~x.isnan(), latent_features))

        kept = None if rows.whole is None else list(parts())

        def grouped() -> Iterable[Part]:
            return parts() if kept is None else kept

        def expect(parameters: PPCAParameters) -> tuple[float, RegressionStatistics]:
            # About the columns' means, so that data far from the origin loses no digits.
            mean, log_std = parameters.mean - columns.mean, 0.5 * parameters.noise_variance.log()
            at = Coordinates.at(mean, parameters.weight, log_std)

            def total(*, careful: bool) -> RegressionStatistics:
                found = (
                    RegressionStatistics.of(columns, at, part, number, careful=careful)
                    for part in grouped()
                    for number in range(len(part.patterns.blocks))
                )
                first = next(found, None)
                own = RegressionStatistics.none(columns, latent_features) if first is None else sum(found, first)
                return own.over_processes()

            if not free_to_look(mean):
                found = total(careful=False)
                value = found.objective.item()
                if math.isfinite(value):
                    return value, found
            parameters.require_regular()
            found = total(careful=True)
            return found.objective.item(), found

        most = columns.count.max()
        filled = Filled(rows, columns.mean, (columns.variances * columns.count).sum() / most, columns.floor, most)
        return self.climb(
            rows,
            present,
            filled,
            expect,
            lambda at: () if at.fixed else ways_up(at, columns.mean, grouped, most),
        )


@dataclass(frozen=True, eq=False)
class Columns:
    """Count, mean and variance of the entries that every column has, each ``[D]``, over all processes.

    Attributes:
        entries: how many there are in all columns.
        square: Σ x_j² over all of them, about the means.
        floor: the variance that is lost in rounding.
        dtype: of the data.
    """

    count: Tensor
    mean: Tensor
    variances: Tensor
    entries: Tensor
    square: Tensor
    floor: Tensor
    dtype: torch.dtype

    @staticmethod
    def of(rows: Rows) -> Columns:
        """Three passes over the data: a first entry, the mean, the variance about it.

        Raises:
            ValueError: a column has no entry.
        """
        mean = means(rows, "PPCA")
        count, linear, square = sums(rows, mean)
        variances = (square / count - (linear / count).square()).clamp_min(0)
        rounding = 10 * torch.finfo(torch.float64).eps * variances.sum()
        dtype = rows.like.dtype
        floor = torch.maximum(rounding, resolution(mean, variances, dtype))
        return Columns(count, mean, variances, count.sum(), square.sum(), floor, dtype)


@dataclass(frozen=True, eq=False)
class RegressionStatistics(Expectation):
    """Sums over rows i, with weights, of what the M-step needs; x is about the columns' means.

    Attributes:
        columns: of the data.
        second: Σ E[z̃z̃ᵀ] over the rows that have feature j, ``[D, (q + 1)²]``.
        first: Σ x_j E[z̃], ``[D, q + 1]``.
        whole: Σ E[z̃z̃ᵀ] over all rows, ``[q + 1, q + 1]``.
        log_likelihood: Σ log p(x_o).
    """

    columns: Columns
    second: Tensor
    first: Tensor
    whole: Tensor
    log_likelihood: Tensor

    @staticmethod
    def none(columns: Columns, latent_features: int) -> RegressionStatistics:
        """Of no rows."""
        features, size, zeros = columns.mean.shape[0], latent_features + 1, columns.mean.new_zeros
        sums = zeros(features, size**2), zeros(features, size), zeros(size, size), zeros(())
        return RegressionStatistics(columns, *sums)

    @staticmethod
    def of(columns: Columns, at: Coordinates, part: Part, number: int, *, careful: bool) -> RegressionStatistics:
        """Of a part's block of this number, whose latents have the posterior at these coordinates."""
        block, weights = part.patterns.blocks[number], part.weights_of_blocks[number]
        x = block.rows(part.x, columns.mean)
        posterior = at.posterior(block, x, careful=careful)
        spread = at.spread(posterior.root)
        z = torch.nn.functional.pad(posterior.mean, (0, 1), value=1.0)
        weighted = weights.unsqueeze(-1) * z
        products = weighted.mT @ z
        products[:, :-1, :-1].addcmul_(weights.sum(-1)[:, None, None], spread.mT @ spread)
        return RegressionStatistics(
            columns,
            block.seen.mT @ products.flatten(1),
            x.flatten(0, 1).mT @ weighted.flatten(0, 1),
            products.sum(0),
            weights.flatten() @ posterior.log_prob.flatten(),
        )

    def __add__(self, other: RegressionStatistics) -> RegressionStatistics:
        (columns, *own), (_, *others) = vars(self).values(), vars(other).values()
        return RegressionStatistics(columns, *map(add, own, others))

    def over_processes(self) -> RegressionStatistics:
        """The sum over processes."""
        columns, *sums = vars(self).values()
        return RegressionStatistics(columns, *map(processes.total, sums))

    @property
    def objective(self) -> Tensor:  # type: ignore[override]  # computed, not stored
        """Mean log p(x_o), nats per row that has an entry."""
        return self.log_likelihood / self.whole[-1, -1]

    def maximise(self, before: PPCAParameters) -> PPCAParameters:
        size = self.whole.shape[0]
        second = self.second.unflatten(1, (size, size))
        coefficients, singular = self._regression(second, before)
        weight, offset = coefficients[:, :-1], coefficients[:, -1]
        latent = self.whole / self.whole[-1, -1]
        mean = latent[:-1, -1] if before.fixed_mean is None else torch.zeros_like(latent[:-1, -1])
        spread = latent[:-1, :-1] - torch.outer(mean, mean)
        if "weight" in before.fixed:
            failed, level = singular.any(), self.columns.mean + offset
        else:
            scale, info = torch.linalg.cholesky_ex(spread)
            failed = torch.cat([singular, info.reshape(1)]).any()
            level, weight = torch.addmv(self.columns.mean + offset, weight, mean), weight @ scale
        variance = before.noise_variance
        if before.fixed_noise is None:
            left = self.columns.square - (coefficients * self.first).sum()
            if before.fixed:  # not the best coefficients of all, which leave Σ c (first − second c) = 0
                left = left - (coefficients * (self.first - (second @ coefficients.unsqueeze(-1)).squeeze(-1))).sum()
            variance = left / self.columns.entries
            failed = failed | ~(variance > self.columns.floor)
        check = partial(self._require_maximum, failed, singular, variance, spread, before)
        marked = weight.masked_fill(failed, torch.nan), variance.masked_fill(failed, torch.nan)
        return replace(before.keeping(before.having(level, *marked)), check=check)

    def _require_maximum(
        self, failed: Tensor, singular: Tensor, variance: Tensor, spread: Tensor, before: PPCAParameters
    ) -> None:
        """Raise if an M-step that found these has failed: it has no maximum."""
        if not bool(failed):
            return
        if bool(singular.any()):
            column = int(singular.nonzero()[0])
            raise ValueError(
                f"PPCA: column {column}, with {self.columns.count[column].item():g} entries, does not determine its "
                "row of W. Use fewer latent features, or drop the column"
            )
        if before.fixed_noise is None:
            require_noise(variance, self.columns.floor, len(spread), self.columns.dtype)
        torch.linalg.cholesky(spread)

    def _regression(self, second: Tensor, before: PPCAParameters) -> tuple[Tensor, Tensor]:
        """Best (w_j, μ_j − columns' mean) of each feature given what stays ``[D, q + 1]``, and 0, or what failed."""
        offset = None if before.fixed_mean is None else (before.mean - self.columns.mean).unsqueeze(1)
        if "weight" in before.fixed:
            weight = before.weight
            if offset is None:
                offset = (self.first[:, -1:] - (second[:, -1, :-1] * weight).sum(1, keepdim=True)) / second[:, -1, -1:]
            return torch.cat([weight, offset], 1), second.new_zeros(len(second), dtype=torch.int32)
        if offset is None:
            return _solved(second, self.first)
        weight, singular = _solved(second[:, :-1, :-1], self.first[:, :-1] - offset * second[:, :-1, -1])
        return torch.cat([weight, offset], 1), singular


def _solved(second: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Solutions of systems, one for each feature, and integers that are 0 where there is one."""
    root, info = torch.linalg.cholesky_ex(second)
    return torch.cholesky_solve(first.unsqueeze(-1), root).squeeze(-1), info
