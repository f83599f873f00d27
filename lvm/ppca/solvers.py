"""Maximum likelihood for PPCA: the closed form and EM (Tipping & Bishop 1999), in float64."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from density.data.rows import Rows
from density.history import History
from density.renamed import renamed
from lvm.ppca.climb import PPCAClimb
from lvm.ppca.covariance import Covariance
from lvm.ppca.parameters import Expectation, PPCAParameters
from lvm.ppca.spectrum import Spectrum


class Solver(ABC):
    """A way to the maximum-likelihood μ, W and σ².

    >>> [isinstance(solver, Solver) for solver in (ClosedForm(), EMSolver())]
    [True, True]
    """

    @abstractmethod
    def solve(self, rows: Rows, present: PPCAParameters) -> tuple[PPCAParameters, History]:
        """Solve for data ``[n, D]``, computing in float64.

        Args:
            rows: the data.
            present: the model's parameters as they are.

        Raises:
            ValueError: the data varies along no more than q axes, so that σ² = 0 and the likelihood has no maximum.
        """


@dataclass(frozen=True)
class ClosedForm(Solver):
    r"""The global maximum, from the eigenvalues λ of the covariance (Tipping & Bishop 1999, equations 7 and 8).

    .. math:: \sigma^2 = \frac1{D-q} \sum_{i>q} \lambda_i, \qquad W = U_q (\Lambda_q - \sigma^2 I)^{1/2}

    For n ≥ D by the D × D covariance, O(nD²), for n < D by the n × n inner products of the centred rows, O(n²D); of
    either only the q largest eigenvalues where these stand out, in O(D²q) (:func:`~density.linalg.leading.leading`),
    else all in O(D³). Where the noise is too faint for these products, by a singular value decomposition of the rows.
    All D − q discarded eigenvalues count, also the D − n that vanish. Each axis has its largest entry positive. Data in
    chunks is read once, for the covariance, which resolves variances down to 10 D ε times the largest.

    Where μ stays what it is, S is about this μ; where σ² does, W is as above with this σ², and 0 along axes whose
    variance is no larger. Where W stays there is no closed form.

    >>> import torch
    >>> from lvm import PPCA, ClosedForm
    >>> model, x = PPCA(4, 1), torch.randn(50, 4, generator=torch.manual_seed(0)).double()
    >>> history = model.fit(x, ClosedForm())
    >>> eigenvalues = torch.linalg.eigvalsh(x.mT.cov(correction=0))
    >>> round((eigenvalues[:3].mean() / model.noise_variance).item(), 6)
    1.0
    """

    def solve(self, rows: Rows, present: PPCAParameters) -> tuple[PPCAParameters, History]:
        started = time.perf_counter()
        if "weight" in present.fixed:
            raise ValueError("PPCA has no closed form where W stays what it is; use solver=lvm.ppca.EMSolver()")
        features, latent_features = present.weight.shape
        x, mean, noise = rows.whole, present.fixed_mean, present.fixed_noise
        if x is not None and x.shape[0] < features:
            spectrum = Spectrum.of_gram(x, min(latent_features, x.shape[0]), rows.weights, mean)
        else:
            spectrum = Spectrum.of_moments(rows.moments().about(mean), rows.like.dtype, latent_features)
        finer = None if x is None else partial(Spectrum.of_rows, x, rows.weights, mean)
        return spectrum.maximum(latent_features, started, noise, finer)


@renamed(seed="start=RandomWeight(seed)", warm_start="start=Present()")
@dataclass(frozen=True)
class EMSolver(PPCAClimb, Solver):
    """Expectation maximisation (Tipping & Bishop 1999, equations 27 and 28): log p(x) never decreases.

    O(Dq · min(2n, D)) an iteration after one pass over the data. Its W is right up to a rotation of the latent.

    Where noise is small plain EM crawls: its rate is 1 − O(σ²/λ). Expanded, the M-step also fits the covariance of the
    latent and then absorbs it into W (PX-EM: Liu, Rubin & Wu 1998), which is monotone too and does not slow down.

    Args:
        max_iterations, tolerance, start, restarts, progress, checkpoint: see :class:`~lvm.ppca.climb.PPCAClimb`.
        expanded: use the expanded M-step; False for the plain one of the paper.

    Raises:
        ValueError: a setting is out of range.

    >>> import torch
    >>> from lvm import PPCA, EMSolver
    >>> x = torch.randn(50, 4, generator=torch.manual_seed(0)).double()
    >>> exact, by_em = PPCA(4, 1).fit(x), PPCA(4, 1).fit(x, EMSolver(progress=False))
    >>> abs(exact.objective[-1] - by_em.objective[-1]) < 1e-6
    True
    """

    expanded: bool = True

    def solve(self, rows: Rows, present: PPCAParameters) -> tuple[PPCAParameters, History]:
        covariance = Covariance.of(rows, present.fixed_mean)
        features, latent_features = present.weight.shape
        if present.fixed_noise is None:
            covariance.require(covariance.trace / features, latent_features)

        def expect(parameters: PPCAParameters) -> tuple[float, EStep]:
            found = EStep.at(covariance, parameters, expanded=self.expanded)
            return found.objective.item(), found

        def ways_up(at: PPCAParameters) -> list[PPCAParameters]:
            return [] if "weight" in at.fixed else [at.keeping(covariance.improved(at.weight, at.fixed_noise))]

        return self.climb(rows, replace(present, mean=covariance.mean), covariance, expect, ways_up)


@dataclass(frozen=True, eq=False)
class EStep(Expectation):
    """The averages over data and posterior that an M-step needs, at one W and σ².

    With W = U diag(s) Vᵀ they are taken in the latent coordinates Vᵀz, where the posterior covariance is diagonal and
    small σ² is no trouble.

    Attributes:
        cross: E[(x − μ) zᵀ]V, ``[D, q]``.
        second: VᵀE[zzᵀ]V, ``[q, q]``.
        rotation: Vᵀ, ``[q, q]``.
        objective: the mean log p(x), which comes at no further cost.
    """

    covariance: Covariance
    cross: Tensor
    second: Tensor
    rotation: Tensor
    objective: Tensor
    expanded: bool

    @staticmethod
    def at(covariance: Covariance, parameters: PPCAParameters, *, expanded: bool) -> EStep:
        weight, noise_variance = parameters.weight, parameters.noise_variance
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
        return EStep(covariance, cross, second, rotation, objective, expanded)

    def maximise(self, before: PPCAParameters) -> PPCAParameters:
        """The M-step: W̃ = E[(x − μ)zᵀ] E[zzᵀ]⁻¹ and σ̃² = tr(S − E[(x − μ)zᵀ]W̃ᵀ) / D; expanded: W̃ E[zzᵀ]^½.

        Of a W that stays, σ̃² = tr(S − 2 E[(x − μ)zᵀ]Wᵀ + W E[zzᵀ] Wᵀ) / D. W̃ is the same whatever σ² is.
        """
        trace = self.covariance.trace
        if "weight" in before.fixed:
            weight = before.weight
            turned = weight @ self.rotation.mT
            left = trace - 2 * (self.cross * turned).sum() + ((turned @ self.second) * turned).sum()
        else:
            root = torch.linalg.cholesky(0.5 * (self.second + self.second.mT))
            weight = torch.cholesky_solve(self.cross.mT, root).mT
            left = trace - (self.cross * weight).sum()
            weight = (weight @ root if self.expanded else weight) @ self.rotation
        variance = before.fixed_noise
        if variance is None:
            variance = left / weight.shape[0]
            self.covariance.require(variance, weight.shape[1])
        return before.having(self.covariance.mean, weight, variance)
