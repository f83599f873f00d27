"""EM for PPCA with missing entries: sufficient statistics of the observed ones, which add, and the M-step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

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

        def expect(parameters: PPCAParameters) -> RegressionStatistics:
            # About the columns' means, so that data far from the origin loses no digits.
            mean, log_std = parameters.mean - columns.mean, 0.5 * parameters.noise_variance.log()
            at = Coordinates.at(mean, parameters.weight, log_std)
            total = RegressionStatistics.none(columns, latent_features)
            for part in grouped():
                total = total.plus(at, part)
            return total.over_processes()

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
        floor: the variance that is lost in rounding.
        dtype: of the data.
    """

    count: Tensor
    mean: Tensor
    variances: Tensor
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
        return Columns(count, mean, variances, torch.maximum(rounding, resolution(mean, variances, dtype)), dtype)


@dataclass(frozen=True, eq=False)
class RegressionStatistics(Expectation):
    """Sums over rows i, with weights, of what the M-step needs; x is about the columns' means.

    Attributes:
        columns: of the data.
        count: rows that have feature j, ``[D]``.
        second: Σ E[z̃z̃ᵀ] over these rows, ``[D, (q + 1)²]``.
        first: Σ x_j E[z̃], ``[D, q + 1]``.
        whole: Σ E[z̃z̃ᵀ] over all rows, ``[q + 1, q + 1]``.
        square: Σ x_j² over everything observed.
        log_likelihood: Σ log p(x_o).
    """

    columns: Columns
    count: Tensor
    second: Tensor
    first: Tensor
    whole: Tensor
    square: Tensor
    log_likelihood: Tensor

    @staticmethod
    def none(columns: Columns, latent_features: int) -> RegressionStatistics:
        """Of no rows."""
        features, size, zeros = columns.mean.shape[0], latent_features + 1, columns.mean.new_zeros
        return RegressionStatistics(
            columns,
            zeros(features),
            zeros(features, size**2),
            zeros(features, size),
            zeros(size, size),
            zeros(()),
            zeros(()),
        )

    def plus(self, at: Coordinates, part: Part) -> RegressionStatistics:
        """With more rows, whose latents have the posterior at these coordinates. Matrix products only."""
        _, count, second, first, whole, square, log_likelihood = vars(self).values()
        for block in part.patterns.blocks:
            mask = block.mask.double()
            x = torch.where(block.mask.unsqueeze(1), block.rows(part.x) - self.columns.mean, 0.0)
            weights = block.weights(part.weights) * block.mask.any(-1, keepdim=True)
            posterior = at.posterior(block, x)
            spread = at.spread(posterior.root)
            z = torch.nn.functional.pad(posterior.mean, (0, 1), value=1.0)
            weighted = weights.unsqueeze(-1) * z
            rows = weights.sum(-1)
            products = weighted.mT @ z
            products[:, :-1, :-1] += rows[:, None, None] * (spread.mT @ spread)
            count = count + mask.mT @ rows
            second = second + mask.mT @ products.flatten(1)
            first = first + x.flatten(0, 1).mT @ weighted.flatten(0, 1)
            whole = whole + products.sum(0)
            square = square + (weights * x.square().sum(-1)).sum()
            log_likelihood = log_likelihood + (weights * posterior.log_prob).sum()
        return RegressionStatistics(self.columns, count, second, first, whole, square, log_likelihood)

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
        coefficients = self._regression(second, before)
        variance = before.fixed_noise
        if variance is None:
            left = self.square - (coefficients * self.first).sum()
            if before.fixed:  # not the best coefficients of all, which leave Σ c (first − second c) = 0
                left = left - (coefficients * (self.first - (second @ coefficients.unsqueeze(-1)).squeeze(-1))).sum()
            variance = left / self.count.sum()
            require_noise(variance, self.columns.floor, size - 1, self.columns.dtype)
        weight, offset = coefficients[:, :-1], coefficients[:, -1]
        if "weight" in before.fixed:
            return before.keeping(before.having(self.columns.mean + offset, weight, variance))
        latent = self.whole / self.whole[-1, -1]
        mean = latent[:-1, -1] if before.fixed_mean is None else torch.zeros_like(latent[:-1, -1])
        scale = torch.linalg.cholesky(latent[:-1, :-1] - torch.outer(mean, mean))
        found = before.having(self.columns.mean + offset + weight @ mean, weight @ scale, variance)
        return before.keeping(found)

    def _regression(self, second: Tensor, before: PPCAParameters) -> Tensor:
        """The best (w_j, μ_j − columns' mean) of every feature, given what stays: ``[D, q + 1]``."""
        offset = None if before.fixed_mean is None else (before.mean - self.columns.mean).unsqueeze(1)
        if "weight" in before.fixed:
            weight = before.weight
            if offset is None:
                offset = (self.first[:, -1:] - (second[:, -1, :-1] * weight).sum(1, keepdim=True)) / second[:, -1, -1:]
            return torch.cat([weight, offset], 1)
        if offset is None:
            return self._solved(second, self.first)
        weight = self._solved(second[:, :-1, :-1], self.first[:, :-1] - offset * second[:, :-1, -1])
        return torch.cat([weight, offset], 1)

    def _solved(self, second: Tensor, first: Tensor) -> Tensor:
        root, info = torch.linalg.cholesky_ex(second)
        if bool(info.any()):
            column = int(info.nonzero()[0])
            raise ValueError(
                f"PPCA: column {column}, with {self.count[column].item():g} entries, does not determine its row of W. "
                "Use fewer latent features, or drop the column"
            )
        return torch.cholesky_solve(first.unsqueeze(-1), root).squeeze(-1)
