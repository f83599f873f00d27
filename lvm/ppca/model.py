"""Probabilistic principal component analysis (Tipping & Bishop 1999)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor

from density.checks import check_columns, check_count, check_data, check_points, check_settings
from density.data.chunks import Source
from density.data.rows import Rows
from density.families.gaussian import Gaussian, StandardNormal
from density.history import History
from density.linalg.moments import Moments
from lvm.em_parameters import frozen
from lvm.latent import CountedModel
from lvm.linear_gaussian import LinearGaussian, LinearGaussianPosterior
from lvm.missing.columns import given_row
from lvm.ppca.climb import RandomWeight
from lvm.ppca.covariance import Covariance
from lvm.ppca.observed import ObservedPPCA
from lvm.ppca.observed_em import MissingEM
from lvm.ppca.parameters import PPCAParameters
from lvm.ppca.solvers import ClosedForm, EMSolver, EStep, Solver
from lvm.ppca.spectrum import Spectrum, fix_signs

__all__ = ["PPCA", "ClosedForm", "EMSolver", "MissingEM", "Posterior", "PrincipalAxes", "RandomWeight", "Solver"]

CLOSED_FORM = ClosedForm()


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """Orthonormal axes ``[D, q]`` and the model's variances along them ``[q]``, descending.

    >>> found = PPCA(3, latent_features=2).principal_axes
    >>> found.axes.shape, found.variances.shape
    (torch.Size([3, 2]), torch.Size([2]))
    """

    axes: Tensor
    variances: Tensor


@dataclass(frozen=True, eq=False)
class Posterior:
    """p(z|x): means ``[*batch, q]`` and the covariance ``[q, q]``, which is the same for every x.

    >>> posterior = PPCA(3, latent_features=2).posterior(torch.zeros(5, 3))
    >>> posterior.mean.shape, posterior.covariance.shape
    (torch.Size([5, 2]), torch.Size([2, 2]))
    """

    mean: Tensor
    covariance: Tensor


class PPCA(CountedModel):
    r"""x = Wz + μ + σε with z and ε standard normal: the latent-variable model whose ELBO is log p(x).

    The encoder is the exact posterior, so every log-weight equals log p(x) and the gap is 0. ``log_prob`` is
    log N(x; μ, WWᵀ + σ²I) by the Woodbury identity: O(nDq), no D × D matrix.

    Args:
        features: D, at least 2.
        latent_features: q, 1 ≤ q < D.

    Raises:
        ValueError: q is out of range.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(500, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1.0, 1.0])
    >>> model = PPCA(features=3, latent_features=1)
    >>> history = model.fit(x)
    >>> model.log_density(x)
    log p(x) = -5.3019 ± 0.056 (data) nats, exact (Woodbury), Lebesgue measure, 500 points
    >>> model.noise_variance.item()
    0.961219
    """

    method = "Woodbury"

    def __init__(self, features: int, latent_features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        latent_features = check_count(latent_features, "latent_features")
        if latent_features >= features:
            raise ValueError(
                f"PPCA needs fewer latent features than features; got {latent_features} and {features}. "
                "With as many it is a Gaussian with full covariance: use density.Gaussian"
            )
        self.features = features
        self.latent_features = latent_features
        self.prior = StandardNormal(latent_features)
        self.decoder: LinearGaussian = LinearGaussian(features, latent_features)

    @property
    def encoder(self) -> LinearGaussianPosterior:  # type: ignore[override]  # computed, not stored: no second set of parameters
        """The exact posterior p(z|x)."""
        return LinearGaussianPosterior(self.decoder)

    @property
    def noise_variance(self) -> Tensor:
        """σ², a scalar."""
        return self.decoder.noise_variance

    @property
    def parameter_count(self) -> int:
        """Free parameters, Dq − q(q − 1)/2 + D + 1: W counts up to a rotation of the latent."""
        d, q = self.features, self.latent_features
        return d * q - q * (q - 1) // 2 + d + 1

    @property
    def principal_axes(self) -> PrincipalAxes:
        """The axes of W with the rotation of the latent removed, by a singular value decomposition. O(Dq²)."""
        axes, singular, _ = torch.linalg.svd(self.decoder.weight, full_matrices=False)
        return PrincipalAxes(fix_signs(axes), singular.square() + self.noise_variance)

    def marginal(self, columns: Iterable[SupportsIndex]) -> Gaussian:
        """N(μ_o, W_o W_oᵀ + σ² I), the density of some features alone, in the order of the columns given. O(|o|³).

        Raises:
            ValueError: the columns are none, or not different ones of 0 … D − 1.
        """
        chosen, at = check_columns(columns, self.features, "marginal"), self.parameters_on(self.reference.device)
        weight = at.weight[chosen]
        return self._gaussian(at.mean[chosen], weight @ weight.mT)

    def conditional(self, columns: Iterable[SupportsIndex], values: Tensor) -> Gaussian:
        r"""p(x_m|x_o), the density of the other features, in their order, where some have given values.

        .. math:: N(W_m E[z|x_o] + \mu_m,\ W_m \operatorname{Cov}(z|x_o) W_m^\top + \sigma^2 I)

        Args:
            columns: o, not all.
            values: x_o ``[|o|]``, in the order of the columns.

        Raises:
            TypeError, ValueError: the columns are none, all or not different ones of 0 … D − 1, or the values are not
                finite, or not of that shape and the model's dtype.

        O(Dq² + |m|³).
        """
        row = given_row(columns, values, self.features, "conditional", self.reference)
        hidden = row.isnan()
        at, of_latent = self.parameters_on(row.device), self.observed.posterior(row)
        weight, mean, spread = at.weight[hidden], of_latent.mean.double(), of_latent.covariance.double()
        return self._gaussian(at.mean[hidden] + weight @ mean, weight @ spread @ weight.mT)

    @torch.no_grad()
    def _gaussian(self, mean: Tensor, covariance: Tensor) -> Gaussian:
        """N(μ, C + σ² I) with this σ², in the model's dtype."""
        noise = (2 * self.decoder.log_std.double()).exp() * torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        return Gaussian.from_moments(mean.to(self.reference), covariance + noise)

    @property
    def observed(self) -> ObservedPPCA:
        """What the model says of rows with missing entries, and how it is fitted to them."""
        return ObservedPPCA(self)

    def fit(self, x: Source, solver: Solver = CLOSED_FORM, *, weights: Tensor | None = None) -> History:
        """Maximum likelihood for x ``[n, D]``; statistics are float64 whatever the dtype of x.

        On several processes each is given the same data, works on its share, and ends with the same parameters.

        Parameters without ``requires_grad`` stay what they are: ``decoder.mean``, ``decoder.weight``,
        ``decoder.log_std``, and the likelihood is maximised over the others. ``EMSolver`` does so whichever they are.

        Args:
            x: a tensor, or data in chunks: whatever :class:`~density.data.chunks.Chunks` reads.
            solver: :class:`ClosedForm`, :class:`~lvm.ppca.randomised.Randomised` or :class:`EMSolver`.
            weights: of the rows, ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.

        Returns:
            History whose objective is the mean log p(x), nats per point: one value, or one before
            every M-step and after the last.

        Raises:
            TypeError, ValueError: x is not finite floating-point data ``[n, D]``, or the weights do not fit it. Rows
                with missing entries are for ``model.observed.fit``.
            TypeError: the solver is none, such as the settings of the same name for mixtures, ``lvm.mixture.em.EM``.
            ValueError: x varies along no more than q axes (as with n ≤ q + 1), so that the likelihood has no maximum.
                The model is then left as it was.
            ValueError: W stays, and the solver is the closed form; or nothing is left to fit.
        """
        check_settings(solver, Solver, "solver", "lvm.ClosedForm() or lvm.EMSolver()", "PPCA.fit")
        rows = Rows(x, self.features, "PPCA", weights)
        present = self.parameters_on(rows.like.device)
        present.require_free("PPCA")
        parameters, history = solver.solve(rows, present)
        self.take(parameters, rows.like)
        return history

    def fit_moments(self, moments: Moments) -> History:
        """Maximum likelihood in closed form from moments, which add: data in chunks, or larger than memory. O(D³).

        The model keeps its dtype and device.

        Raises:
            ValueError: the moments are of another number of features, of no rows or not finite, or as in :meth:`fit`.

        >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> model = PPCA(4, 2)
        >>> history = model.fit_moments(Moments.of(x[:50]) + Moments.of(x[50:]))
        """
        if moments.mean.shape != (self.features,):
            raise ValueError(f"PPCA expects moments of {self.features} features; got {list(moments.mean.shape)}")
        if not bool(moments.count > 0) or not bool(moments.scatter.isfinite().all() & moments.mean.isfinite().all()):
            raise ValueError("PPCA expects finite moments of at least one row; remove or impute what is not finite")
        present = self.parameters_on(moments.mean.device)
        if "weight" in present.fixed:
            raise ValueError("PPCA has no closed form where W stays what it is; fit the rows by EMSolver()")
        moments = moments.about(present.fixed_mean)
        spectrum = Spectrum.of_moments(moments, self.decoder.mean.dtype, self.latent_features)
        parameters, history = spectrum.maximum(self.latent_features, time.perf_counter(), present.fixed_noise)
        self.set_parameters(parameters)
        return history

    def em_step(self, x: Tensor) -> None:
        """One iteration of EM from the present parameters; μ, if free, becomes the mean of x. O(nD · min(n, D) + nDq).

        Never decreases the mean log p(x), up to the rounding of the model's dtype.
        """
        check_data(x, self.features, "PPCA", reference=self.reference)
        present = self.parameters_on(x.device)
        covariance = Covariance.of(Rows(x, self.features, "PPCA"), present.fixed_mean)
        self.set_parameters(EStep.at(covariance, present, expanded=False).maximise(present))

    def posterior(self, x: Tensor) -> Posterior:
        """p(z|x) = N(M⁻¹Wᵀ(x − μ), σ²M⁻¹) for x ``[*batch, D]``."""
        check_points(x, self.features, "PPCA", reference=self.reference)
        mean, scale = self.encoder.at(x)
        return Posterior(mean, scale.dense() @ scale.dense().mT)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.decoder.marginal_log_prob(x)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.decoder.mean

    def parameters_on(self, device: torch.device) -> PPCAParameters:
        """μ, W and σ² in float64 on a device, detached: where EM starts warm."""
        decoder = self.decoder
        own = [p.detach().flatten().double() for p in (decoder.mean, decoder.weight, decoder.log_std)]
        mean, weight, log_std = torch.cat(own).to(device).split([len(tensor) for tensor in own])  # in one copy
        fixed = frozen(mean=decoder.mean, weight=decoder.weight, noise_variance=decoder.log_std)
        return PPCAParameters(mean, weight.view(decoder.weight.shape), (2 * log_std).exp().squeeze(0), fixed)

    def take(self, parameters: PPCAParameters, like: Tensor) -> None:
        """Move to the dtype and device of the data, and take over the parameters."""
        self.to(like)
        self.set_parameters(parameters)

    @torch.no_grad()
    def set_parameters(self, parameters: PPCAParameters) -> None:
        """Take over μ, W and σ², as far as they are not frozen, rounded to the model's dtype."""
        decoder = self.decoder
        found = (parameters.mean, parameters.weight, 0.5 * parameters.noise_variance.log())
        for own, new in zip((decoder.mean, decoder.weight, decoder.log_std), found, strict=True):
            if own.requires_grad:
                own.copy_(new)
