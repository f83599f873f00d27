"""The spectrum of a covariance, and what of it PPCA's likelihood needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from density.history import History
from density.linalg.gram import gram
from density.linalg.leading import leading
from density.linalg.moments import Moments, resolution, shares
from lvm.ppca.parameters import PPCAParameters


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of a covariance: what PPCA's likelihood needs.

    Attributes:
        mean: of the data, ``[D]``.
        variances: eigenvalues, descending, ``[k]``, at least the q largest.
        axes: theirs, ``[D, k]``.
        rest: the sum of all other eigenvalues.
        floor: the variance that is lost in rounding.
        dtype: of the data.
    """

    mean: Tensor
    variances: Tensor
    axes: Tensor
    rest: Tensor
    floor: Tensor
    dtype: torch.dtype

    @staticmethod
    def of_moments(moments: Moments, dtype: torch.dtype, latent_features: int) -> Spectrum:
        """By the covariance, which resolves variances down to 10 D ε times the largest. O(D²q) to O(D³)."""
        covariance = moments.covariance
        variances, axes = leading(covariance, latent_features)
        floor = 10 * len(covariance) * torch.finfo(variances.dtype).eps * variances[0]
        floor = torch.maximum(floor, resolution(moments.mean, covariance.diagonal(), dtype))
        return Spectrum(moments.mean, variances, axes, _rest(covariance, variances), floor, dtype)

    @staticmethod
    def of_gram(x: Tensor, latent_features: int, weights: Tensor | None = None, mean: Tensor | None = None) -> Spectrum:
        """By the n × n inner products of the centred rows, to 10 n ε times the largest. O(n²D) and O(n²q) to O(n³)."""
        mean, rows = scaled(x, weights, mean)
        products = gram(rows.mT)
        variances, vectors = leading(products, latent_features)
        floor = 10 * len(products) * torch.finfo(variances.dtype).eps * variances[0]
        floor = torch.maximum(floor, resolution(mean, rows.square().sum(0), x.dtype))
        # rowsᵀV has orthogonal columns up to ε λ₁/λ; the covariance within their span sets them right.
        span = torch.linalg.qr(rows.mT @ vectors[:, :latent_features]).Q
        _, singular, rotation = torch.linalg.svd(rows @ span, full_matrices=False)
        rest = (products.diagonal().sum() - singular.square().sum()).clamp_min(0)
        return Spectrum(mean, singular.square(), span @ rotation.mT, rest, floor, x.dtype)

    @staticmethod
    def of_rows(x: Tensor, weights: Tensor | None = None, mean: Tensor | None = None) -> Spectrum:
        """By the centred rows themselves, to the square of their precision. O(nD min(n, D))."""
        mean, rows = scaled(x, weights, mean)
        _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
        variances = singular.square()
        floor = (10 * max(x.shape) * torch.finfo(variances.dtype).eps) ** 2 * variances[0]
        floor = torch.maximum(floor, resolution(mean, rows.square().sum(0), x.dtype))
        return Spectrum(mean, variances, axes.mT, variances.new_zeros(()), floor, x.dtype)

    def noise_variance(self, latent_features: int) -> Tensor:
        discarded = self.variances[latent_features:].sum() + self.rest
        return discarded / (self.mean.shape[0] - latent_features)

    def objective(self, latent_features: int, noise_variance: Tensor, *, free: bool) -> Tensor:
        """The mean log p(x) of the best parameters at a σ², which is the best one if it is free."""
        features, kept = self.mean.shape[0], self.variances[:latent_features]
        square: Tensor | int = features
        if not free:
            rest = self.variances[latent_features:].sum() + self.rest
            square = (kept / kept.clamp_min(noise_variance)).sum() + rest / noise_variance
            kept = kept.clamp_min(noise_variance)
        log_det = kept.log().sum() + (features - len(kept)) * noise_variance.log()
        return -0.5 * (log_det + square + features * math.log(2 * math.pi))

    def maximum(
        self,
        latent_features: int,
        started: float,
        noise_variance: Tensor | None = None,
        finer: Callable[[], Spectrum] | None = None,
    ) -> tuple[PPCAParameters, History]:
        """The best parameters, at a σ² if one is given: W then has the axes of larger variances.

        Args:
            finer: the spectrum to be taken instead where σ² is lost in rounding.
        """
        free = noise_variance is None
        noise_variance = self.noise_variance(latent_features) if noise_variance is None else noise_variance
        objective = self.objective(latent_features, noise_variance, free=free)
        left, floor, value = torch.stack([noise_variance, self.floor, objective]).tolist()  # the one look
        if free and not left > floor:
            if finer is not None:
                return finer().maximum(latent_features, started)
            require_noise(noise_variance, self.floor, latent_features, self.dtype)
        kept = self.variances[:latent_features]
        weight = fix_signs(self.axes[:, : len(kept)]) * (kept - noise_variance).clamp_min(0).sqrt()
        weight = torch.nn.functional.pad(weight, (0, latent_features - len(kept)))  # of fewer rows than latents
        seconds = time.perf_counter() - started
        history = History(objective=[value], converged=True, seconds=seconds, stopped="closed form")
        return PPCAParameters(self.mean, weight, noise_variance), history


def centre(x: Tensor, weights: Tensor | None = None, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean ``[D]``, weighted if weights are given, or another one, and x − mean ``[n, D]``, in float64.

    By way of the first row: constant columns become exact zeros.
    """
    if mean is not None:
        return mean, x.double() - mean
    origin = x[0].double()
    rows = x.double() - origin
    shift = rows.mean(0) if weights is None else shares(rows, weights) @ rows
    return origin + shift, rows.sub_(shift)


def scaled(x: Tensor, weights: Tensor | None, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean, and rows √(wᵢ/Σw) (xᵢ − mean), whose scatter is the covariance."""
    mean, rows = centre(x, weights, mean)
    return mean, rows.mul_(shares(x, weights).sqrt_().unsqueeze(1))


def _rest(covariance: Tensor, variances: Tensor) -> Tensor:
    if len(variances) == len(covariance):
        return variances.new_zeros(())
    return (covariance.diagonal().sum() - variances.sum()).clamp_min(0)


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
