"""Maximum likelihood for PPCA: the closed form and EM (Tipping & Bishop 1999), in float64."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from density.contract import check_count
from density.history import History
from density.moments import Moments


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found, in float64: μ ``[D]``, W ``[D, q]``, σ², and how it went."""

    mean: Tensor
    weight: Tensor
    noise_variance: Tensor
    history: History


class Solver(ABC):
    """A way to the maximum-likelihood μ, W and σ²."""

    @abstractmethod
    def solve(self, x: Tensor, latent_features: int) -> Solution:
        """Solve for data ``[n, D]``, computing in float64.

        Raises:
            ValueError: the data varies along no more than q axes, so that σ² = 0 and the likelihood has no maximum.
        """


@dataclass(frozen=True)
class ClosedForm(Solver):
    r"""The global maximum, from the eigenvalues λ of the covariance (Tipping & Bishop 1999, equations 7 and 8).

    .. math:: \sigma^2 = \frac1{D-q} \sum_{i>q} \lambda_i, \qquad W = U_q (\Lambda_q - \sigma^2 I)^{1/2}

    For n ≥ D by the D × D covariance in O(nD² + D³); for n < D by a singular value decomposition of the centred rows in
    O(n²D). All D − q discarded eigenvalues count, also the D − n that vanish. Each axis has its largest entry positive.
    """

    def solve(self, x: Tensor, latent_features: int) -> Solution:
        started = time.perf_counter()
        if x.shape[0] >= x.shape[1]:
            spectrum = Spectrum.of_moments(Moments.of(x), x.dtype)
            # eigh resolves variances to D ε λ₁, the rows themselves to its square.
            if not spectrum.resolves(latent_features):
                spectrum = Spectrum.of_rows(x)
        else:
            spectrum = Spectrum.of_rows(x)
        return spectrum.maximum(latent_features, started)


@dataclass(frozen=True)
class EMSolver(Solver):
    """Expectation maximisation (Tipping & Bishop 1999, equations 27 and 28): log p(x) never decreases.

    O(Dq · min(2n, D)) an iteration after one pass over the data. Its W is right up to a rotation of the latent.

    Where noise is small plain EM crawls: its rate is 1 − O(σ²/λ). Expanded, the M-step also fits the covariance of the
    latent and then absorbs it into W (PX-EM: Liu, Rubin & Wu 1998), which is monotone too and does not slow down.

    Args:
        max_iterations: at most so many.
        tolerance: stop when the mean log p(x) gains less than this in one iteration, nats per point.
        seed: of the random initial W.
        expanded: use the expanded M-step; False for the plain one of the paper.

    Raises:
        ValueError: a setting is out of range.
    """

    max_iterations: int = 2000
    tolerance: float = 1e-10
    seed: int = 0
    expanded: bool = True

    def __post_init__(self) -> None:
        check_count(self.max_iterations, "max_iterations")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0; got {self.tolerance}")

    def solve(self, x: Tensor, latent_features: int) -> Solution:
        started = time.perf_counter()
        covariance = Covariance.of(x)
        variance = covariance.trace / x.shape[1]
        require_noise(variance, covariance.floor, latent_features, x.dtype)
        generator = Generator().manual_seed(self.seed)
        noise = torch.randn(x.shape[1], latent_features, generator=generator, dtype=torch.float64).to(x.device)
        step = EStep.at(covariance, noise * (variance / (2 * latent_features)).sqrt(), variance / 2)
        history = History(stopped=f"{self.max_iterations} iterations done")
        for iteration in range(self.max_iterations):
            weight, variance = step.maximise(covariance, expanded=self.expanded)
            require_noise(variance, covariance.floor, latent_features, x.dtype)
            before, step = step, EStep.at(covariance, weight, variance)
            history.objective.append(step.objective.item())
            history.best = iteration
            if bool(step.objective - before.objective < self.tolerance):
                history.converged = True
                history.stopped = f"gain below {self.tolerance:g} nats"
                break
        history.seconds = time.perf_counter() - started
        return Solution(covariance.mean, step.weight, step.noise_variance, history)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Mean ``[D]``, eigenvalues of the covariance ``[k]`` descending, their axes ``[D, k]``, and the variance that is
    lost in rounding; eigenvalues beyond k ≤ D vanish. dtype is that of the data."""

    mean: Tensor
    variances: Tensor
    axes: Tensor
    floor: Tensor
    dtype: torch.dtype

    @staticmethod
    def of_moments(moments: Moments, dtype: torch.dtype) -> Spectrum:
        covariance = moments.covariance
        variances, axes = torch.linalg.eigh(covariance)
        floor = 10 * len(variances) * torch.finfo(variances.dtype).eps * variances[-1]
        floor = torch.maximum(floor, resolution(moments.mean, covariance.diagonal(), dtype))
        return Spectrum(moments.mean, variances.flip(0).clamp_min(0), axes.flip(1), floor, dtype)

    @staticmethod
    def of_rows(x: Tensor) -> Spectrum:
        mean, centred = centre(x)
        _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
        variances = singular.square() / x.shape[0]
        floor = (10 * max(x.shape) * torch.finfo(variances.dtype).eps) ** 2 * variances[0]
        floor = torch.maximum(floor, resolution(mean, centred.square().mean(0), x.dtype))
        return Spectrum(mean, variances, axes.mT, floor, x.dtype)

    def noise_variance(self, latent_features: int) -> Tensor:
        return self.variances[latent_features:].sum() / (self.mean.shape[0] - latent_features)

    def resolves(self, latent_features: int) -> bool:
        return bool(self.noise_variance(latent_features) > self.floor)

    def maximum(self, latent_features: int, started: float) -> Solution:
        features = self.mean.shape[0]
        noise_variance = self.noise_variance(latent_features)
        require_noise(noise_variance, self.floor, latent_features, self.dtype)
        kept = self.variances[:latent_features]
        weight = fix_signs(self.axes[:, :latent_features]) * (kept - noise_variance).clamp_min(0).sqrt()
        log_det = kept.log().sum() + (features - latent_features) * noise_variance.log()
        objective = -0.5 * (log_det + features * (1 + math.log(2 * math.pi))).item()
        seconds = time.perf_counter() - started
        history = History(objective=[objective], converged=True, seconds=seconds, stopped="closed form")
        return Solution(self.mean, weight, noise_variance, history)


@dataclass(frozen=True, eq=False)
class Covariance:
    """The covariance S of data as what it does to a matrix: by S ``[D, D]`` or, for n < D, by the rows themselves."""

    mean: Tensor
    matrix: Tensor | None
    rows: Tensor | None
    trace: Tensor
    floor: Tensor

    @staticmethod
    def of(x: Tensor) -> Covariance:
        if x.shape[0] >= x.shape[1]:
            moments = Moments.of(x)
            matrix, mean, rows = moments.covariance, moments.mean, None
            variances = matrix.diagonal()
        else:
            mean, centred = centre(x)
            matrix, rows = None, centred / math.sqrt(x.shape[0])
            variances = rows.square().sum(0)
        floor = torch.maximum(
            10 * torch.finfo(torch.float64).eps * variances.sum(), resolution(mean, variances, x.dtype)
        )
        return Covariance(mean, matrix, rows, variances.sum(), floor)

    def times(self, w: Tensor) -> Tensor:
        """S w for w ``[D, q]``."""
        if self.matrix is not None:
            return self.matrix @ w
        assert self.rows is not None
        return self.rows.mT @ (self.rows @ w)


@dataclass(frozen=True, eq=False)
class EStep:
    """The averages over data and posterior that an M-step needs, at one W and σ².

    With W = U diag(s) Vᵀ they are taken in the latent coordinates Vᵀz, where the posterior covariance is diagonal and
    small σ² is no trouble.

    Attributes:
        cross: E[(x − μ) zᵀ]V, ``[D, q]``.
        second: VᵀE[zzᵀ]V, ``[q, q]``.
        rotation: Vᵀ, ``[q, q]``.
        objective: the mean log p(x), which comes at no further cost.
    """

    weight: Tensor
    noise_variance: Tensor
    cross: Tensor
    second: Tensor
    rotation: Tensor
    objective: Tensor

    @staticmethod
    def at(covariance: Covariance, weight: Tensor, noise_variance: Tensor) -> EStep:
        features, latent_features = weight.shape
        axes, singular, rotation = torch.linalg.svd(weight, full_matrices=False)
        variances = singular.square() + noise_variance
        gain = singular / variances
        product = covariance.times(axes)
        projected = axes.mT @ product
        cross = product * gain
        second = torch.diag(noise_variance / variances) + gain.unsqueeze(1) * projected * gain
        inside = projected.diagonal()
        square = (inside / variances).sum() + (covariance.trace - inside.sum()) / noise_variance
        log_det = variances.log().sum() + (features - latent_features) * noise_variance.log()
        objective = -0.5 * (square + log_det + features * math.log(2 * math.pi))
        return EStep(weight, noise_variance, cross, second, rotation, objective)

    def maximise(self, covariance: Covariance, *, expanded: bool = False) -> tuple[Tensor, Tensor]:
        """The M-step: W̃ = E[(x − μ)zᵀ] E[zzᵀ]⁻¹ and σ̃² = tr(S − E[(x − μ)zᵀ]W̃ᵀ) / D; expanded: W̃ E[zzᵀ]^½."""
        root = torch.linalg.cholesky(0.5 * (self.second + self.second.mT))
        weight = torch.cholesky_solve(self.cross.mT, root).mT
        variance = (covariance.trace - (self.cross * weight).sum()) / weight.shape[0]
        return (weight @ root if expanded else weight) @ self.rotation, variance


def centre(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[D]`` and x − mean ``[n, D]`` in float64, by way of the first row: constant columns become exact zeros."""
    origin = x[0].double()
    rows = x.double() - origin
    shift = rows.mean(0)
    return origin + shift, rows - shift


def resolution(mean: Tensor, variances: Tensor, dtype: torch.dtype) -> Tensor:
    """The mean variance (ε|x|)² that rounding x to its dtype may put into each column; constant columns are exact."""
    square = torch.finfo(dtype).eps ** 2 * (mean.square() + variances)
    return torch.where(variances > 0, square, torch.zeros_like(square)).mean()


def require_noise(noise_variance: Tensor, floor: Tensor, latent_features: int, dtype: torch.dtype) -> None:
    """Raise unless σ² is above the floor, below which it is rounding."""
    if not bool(noise_variance > floor):
        precision = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"PPCA: the data varies along no more than {latent_features} axes (the variance left, "
            f"{noise_variance.item():.3g}, is zero to the precision of {precision}), so sigma^2 = 0 and the likelihood "
            "has no maximum. Use fewer latent features, more distinct rows, or dequantised data; centre data that is "
            "far from the origin"
        )


def fix_signs(axes: Tensor) -> Tensor:
    """Each column with its entry of largest magnitude positive."""
    largest = axes.detach().abs().argmax(0, keepdim=True)
    return axes * torch.where(axes.detach().gather(0, largest) < 0, -1.0, 1.0).to(axes.dtype)
