"""Maximum likelihood for PPCA by random vectors, with a bound of what that costs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Generator, Tensor

from density.checks import settle_counts
from density.data.rows import Rows
from density.history import History
from density.linalg.krylov import EXTRA, bracketed
from density.linalg.moments import resolution
from density.parallel import processes
from lvm.em import check_tolerance
from lvm.ppca.parameters import PPCAParameters
from lvm.ppca.solvers import ClosedForm, Solver
from lvm.ppca.spectrum import Spectrum, scaled

SCALARS_AT_ONCE = 2**16  # few enough to stay in cache


@dataclass(frozen=True)
class Randomised(Solver):
    r"""The closed form from approximate eigenvalues, between bounds, of a covariance that is never formed. O(nDq).

    The axes are those of the largest variances within a space that random vectors find (Halko, Martinsson & Tropp 2011;
    block Krylov: Musco & Musco 2015), and σ² is the mean variance left. What log p(x) may so be below its maximum
    follows from bounds of the eigenvalues (:mod:`density.linalg.krylov`), since the likelihood grows with each of them.
    The space grows until that is no more than the tolerance, or has so many blocks; either way the history says how
    much it is, and with what chance it is more, some 10⁻¹⁰. All that is about this data, not other data.

    It pays where q is a small part of both n and D. Of fewer than 3 (q + 10) rows or features, of data in chunks, on
    several processes, and where σ² is lost in rounding, the fit is that of :class:`~lvm.ppca.solvers.ClosedForm`.

    Args:
        tolerance: how far log p(x) may be below its maximum, nats per point.
        blocks: of q + 10 axes, at most. Each costs two products of the rows with q + 10 vectors.
        generator: of the random vectors, on the device of the data; None for torch's own.

    Raises:
        ValueError: a setting is out of range.

    >>> from lvm import PPCA, Randomised
    >>> z, noise = torch.randn(2, 500, 2, generator=torch.manual_seed(0)), torch.randn(500, 100)
    >>> x = (torch.cat([3 * z[0], z[1]], 1) @ torch.randn(4, 100) + 0.1 * noise).double()
    >>> exact, quick = PPCA(100, 4).fit(x), PPCA(100, 4).fit(x, Randomised(generator=torch.manual_seed(1)))
    >>> 0 <= exact.objective[0] - quick.objective[0] < 1e-4, quick.converged
    (True, True)
    """

    tolerance: float = 1e-4
    blocks: int = 12
    generator: Generator | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance)
        settle_counts(self, "blocks", least=2)

    def solve(self, rows: Rows, present: PPCAParameters) -> tuple[PPCAParameters, History]:
        started = time.perf_counter()
        features, latent_features = present.weight.shape
        x, noise = rows.whole, present.fixed_noise
        blocks = 0 if x is None else min(self.blocks, min(x.shape) // (latent_features + EXTRA) - 1)
        if x is None or blocks < 2 or "weight" in present.fixed or processes.world() > 1:
            return ClosedForm().solve(rows, present)
        mean, own = scaled(x, rows.weights, present.fixed_mean)
        variances = sum(
            (part.square().sum(0) for part in own.split(max(1, SCALARS_AT_ONCE // features))), torch.zeros_like(mean)
        )
        total, rounding = variances.sum(), resolution(mean, variances, x.dtype)
        nowhere = own.new_empty(features, 0)

        def spectrum(values: Tensor, axes: Tensor = nowhere) -> Spectrum:
            floor = torch.maximum(10 * features * torch.finfo(values.dtype).eps * values[0], rounding)
            return Spectrum(mean, values, axes, (total - values.sum()).clamp_min(0), floor, x.dtype)

        def best(values: Tensor) -> Tensor:
            at = spectrum(values)
            left = at.noise_variance(latent_features) if noise is None else noise
            return at.objective(latent_features, left, free=noise is None)

        def loss(lower: Tensor, upper: Tensor) -> float:
            value = (best(upper) - best(lower)).item()
            return value if math.isfinite(value) else math.inf

        def enough(lower: Tensor, upper: Tensor) -> bool:
            return loss(lower, upper) <= self.tolerance

        found = bracketed(own, total, latent_features, enough, blocks, self.generator)
        at = spectrum(found.lower, found.axes)
        if noise is None and not bool(at.noise_variance(latent_features) > at.floor):
            return ClosedForm().solve(rows, present)
        parameters, history = at.maximum(latent_features, started, noise)
        lost = max(0.0, loss(found.lower, found.upper))
        error = ((found.upper - found.lower) / found.lower).clamp_min(0).max().item()
        words = (
            f"random vectors: log p(x) is at most {lost:.1e} nats below its maximum, and variances along axes at most "
            f"{error:.1e} of themselves, up to rounding"
        )
        words += f" and but for a chance of {found.chance:.0e}" if found.chance else ""
        return parameters, replace(history, converged=lost <= self.tolerance, stopped=words)
