"""Gaussians: standard, diagonal, full, and the family that every other one belongs to."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count, check_data, check_points, in_words
from density.contract import Density, ExactModel
from density.data.chunks import Source
from density.data.rows import Rows
from density.families.scale import DiagonalScale, Scale, TriangularScale
from density.history import History
from density.linalg.cholesky import cholesky, is_symmetric, pack_triangular, unpack_triangular
from density.linalg.moments import centre, is_constant


class GaussianFamily(Density, ABC):
    r"""A Gaussian N(μ(c), Σ(c)), Σ = S Sᵀ: all that a subclass says is μ and S at a context.

    .. math:: \log p(x|c) = -\tfrac12 \lVert S^{-1}(x-\mu)\rVert^2 - \log\det S - \tfrac D2 \log 2\pi

    Draws are pathwise, x = μ + S ε. O(D) a point for a diagonal S, O(D²) for a triangular one.

    >>> gaussian = DiagonalGaussian(2)
    >>> mean, scale = gaussian.at(None)
    >>> isinstance(gaussian, GaussianFamily), mean.tolist(), gaussian.given(None).sample(4).shape
    (True, [0.0, 0.0], torch.Size([4, 2]))
    """

    @abstractmethod
    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        """Mean ``[*context_batch, D]`` and scale of the same batch shape, at a context ``[*context_batch, C]``."""

    def given(self, context: Tensor | None) -> GivenGaussian:
        """The Gaussians at these contexts, unconditional from here on: a network that computes them runs only once."""
        self._check_context(context)
        return GivenGaussian(*self.at(context))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        mean, scale = self.at(context)
        square = scale.whiten(x - mean).square().sum(-1)
        return -0.5 * self.features * math.log(2 * math.pi) - torch.add(scale.log_det(), square, alpha=0.5)

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        mean, scale = self.at(context)
        return -0.5 * scale.whiten(x - mean).square() - scale.log_std() - 0.5 * math.log(2 * math.pi)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        mean, scale = self.at(context)
        return _drawn(mean, scale, _noise(n, mean, generator))

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        mean, scale = self.at(context)
        noise = _noise(n, mean, generator)
        square = torch.add(scale.log_det(), noise.square().sum(-1), alpha=0.5)
        return _drawn(mean, scale, noise), -0.5 * self.features * math.log(2 * math.pi) - square

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.at(context)[0]

    def _kl_from(self, mean: Tensor, scale: Scale, context: Tensor | None) -> Tensor:
        """KL(N(mean, S Sᵀ) ‖ this), ``[*batch]``, in closed form."""
        own_mean, own = self.at(context)
        distance = own.whiten(mean - own_mean).square().sum(-1)
        return 0.5 * (own.whitened_square(scale) + distance - self.features) + own.log_det() - scale.log_det()


class GivenGaussian(GaussianFamily):
    """N(μ, S Sᵀ) with mean ``[*batch, D]`` and scale as given, one Gaussian for each place in the batch."""

    mean: Tensor

    def __init__(self, mean: Tensor, scale: Scale) -> None:
        super().__init__()
        self.features = mean.shape[-1]
        self.factorises = isinstance(scale, DiagonalScale)
        self.register_buffer("mean", mean, persistent=False)
        self.scale = scale

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        return self.mean, self.scale


class StandardNormal(GaussianFamily):
    """N(0, I) over D features: the usual prior and base.

    >>> StandardNormal(2).log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    zero: Tensor
    factorises = True

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = features
        self.register_buffer("zero", torch.zeros(features), persistent=False)

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        return self.zero, DiagonalScale(torch.ones_like(self.zero))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return -0.5 * x.square().sum(-1) - 0.5 * self.features * math.log(2 * math.pi)

    def _sample(self, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        return _noise(n, self.zero, generator)

    def _sample_with_log_prob(
        self, n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        noise = _noise(n, self.zero, generator)
        return noise, self._log_prob(noise, context)

    def _kl_from(self, mean: Tensor, scale: Scale, context: Tensor | None) -> Tensor:
        return 0.5 * ((mean.square() + scale.variance()).sum(-1) - self.features) - scale.log_det()


class DiagonalGaussian(GaussianFamily, ExactModel):
    """N(μ, diag σ²) with learnable mean and log standard deviation; ``fit`` is the closed form.

    >>> x = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    >>> model = DiagonalGaussian(2)
    >>> _ = model.fit(x)
    >>> model.mean, model.log_std.exp()
    (Parameter containing:
    tensor([ 1., 20.], requires_grad=True), tensor([ 1., 10.], grad_fn=<ExpBackward0>))
    """

    method = "closed form"
    factorises = True

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = features
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_std = nn.Parameter(torch.zeros(features))

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        return self.mean, DiagonalScale(self.log_std.exp(), self.log_std)

    def fit(self, x: Tensor, settings: None = None) -> History:
        """Maximum likelihood in closed form, O(nD), which takes no settings.

        Raises:
            TypeError: settings, of another model's fit.
            ValueError: a column is constant, so that the likelihood has no maximum.
        """
        started = time.perf_counter()
        _require_none(settings, "DiagonalGaussian")
        check_data(x, self.features, "DiagonalGaussian")
        mean, centred = centre(x.detach().double())
        variance = centred.square().mean(0)
        constant = is_constant(mean, variance, x.dtype)
        if bool(constant.any()):
            column = int(constant.nonzero()[0])
            raise ValueError(
                f"DiagonalGaussian: column {column} is constant, so the likelihood has no maximum; drop it"
            )
        self.to(x)
        with torch.no_grad():
            self.mean.copy_(mean)
            self.log_std.copy_(0.5 * variance.log())
        return _closed_form(self.log_density(x).mean, started)


class Gaussian(GaussianFamily, ExactModel):
    """N(μ, Σ) with full covariance Σ = L Lᵀ; L's strict lower part and log-diagonal are learnable. O(D²) a point.

    ``fit`` is the closed form. scipy's ``multivariate_normal`` is the oracle in the tests.

    >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    >>> model = Gaussian(3)
    >>> history = model.fit(x)
    >>> model.log_density(x)
    log p(x) = -4.3299 ± 0.062 (data) nats, exact (closed form), Lebesgue measure, 500 points
    """

    method = "closed form"

    def __init__(self, features: int) -> None:
        super().__init__()
        features = check_count(features, "features")
        self.features = features
        self.mean = nn.Parameter(torch.zeros(features))
        self.factor = nn.Parameter(torch.zeros(features, features))

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        return self.mean, TriangularScale(unpack_triangular(self.factor))

    @property
    def covariance(self) -> Tensor:
        """Σ = L Lᵀ, shape ``[D, D]``."""
        factor = unpack_triangular(self.factor)
        return factor @ factor.mT

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """The Gaussian with a given mean ``[D]`` and covariance ``[D, D]``, in their dtype.

        Raises:
            TypeError: the mean is not floating point.
            ValueError: the shapes do not fit, a mean is not finite, or the covariance is not symmetric or not positive
                definite.
        """
        check_points(mean, None, "Gaussian")
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"Gaussian expects a mean [D] and a covariance [D, D]; got {list(mean.shape)} and "
                f"{list(covariance.shape)}"
            )
        if not bool(mean.isfinite().all()):
            raise ValueError(f"Gaussian expects a finite mean; got {mean.tolist()}")
        if not is_symmetric(covariance):
            raise ValueError("Gaussian expects a symmetric covariance; symmetrise it, (S + S.mT) / 2")
        model = cls(mean.shape[-1]).to(mean)
        model._set(mean, cholesky(covariance, "Gaussian"))
        return model

    def fit(self, x: Source, settings: None = None, *, weights: Tensor | None = None) -> History:
        """Maximum likelihood in closed form, which takes no settings: the mean and the covariance that divides by n.

        O(nD² + D³). On several processes each works on its share of the rows; all end with the same parameters.

        Args:
            x: a tensor ``[n, D]``, or data in chunks: whatever :class:`~density.data.chunks.Chunks` reads.
            weights: of the rows, ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.

        Raises:
            TypeError: settings, of another model's fit; or x is no data.
            ValueError: unusable data or weights; or the covariance is singular, as with n ≤ D or constant columns.
        """
        started = time.perf_counter()
        _require_none(settings, "Gaussian")
        rows = Rows(x, self.features, "Gaussian", weights)
        moments = rows.moments()
        covariance = moments.covariance
        constant = is_constant(moments.mean, covariance.diagonal(), rows.like.dtype)
        factor = cholesky(covariance.masked_fill(constant, 0.0), "Gaussian")  # what rounding left of them is no spread
        self.to(rows.like)
        self._set(moments.mean, factor)
        log_det = 2 * factor.diagonal().log().sum().item()
        objective = -0.5 * (self.features * (1 + math.log(2 * math.pi)) + log_det)  # the mean log p of its own moments
        return _closed_form(objective, started)

    def _set(self, mean: Tensor, factor: Tensor) -> None:
        with torch.no_grad():
            self.mean.copy_(mean)
            self.factor.copy_(pack_triangular(factor))


def _noise(n: int, mean: Tensor, generator: Generator | None) -> Tensor:
    return torch.randn(n, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)


def _drawn(mean: Tensor, scale: Scale, noise: Tensor) -> Tensor:
    """μ + S ε for ε ``[n, *batch, D]``; of one draw without the dimension over which its gradients would be summed."""
    if len(noise) == 1:
        return (mean + scale.color(noise.squeeze(0))).unsqueeze(0)
    return mean + scale.color(noise)


def _require_none(settings: object, owner: str) -> None:
    if settings is not None:
        raise TypeError(f"{owner}.fit is in closed form and takes no settings; got {in_words(settings)}")


def _closed_form(objective: float, started: float) -> History:
    seconds = time.perf_counter() - started
    return History(objective=[objective], converged=True, seconds=seconds, stopped="closed form")
