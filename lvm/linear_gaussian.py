"""The linear-Gaussian decoder, its exact marginal and its exact posterior: all of PPCA's probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count, check_points
from density.families.gaussian import GaussianFamily
from density.families.noise import normal_noise
from density.families.scale import DiagonalScale, Scale, TriangularScale

SCALARS_AT_ONCE = 2**17  # of x, in log_prob: a mebibyte, which stays in cache


class LinearGaussian(GaussianFamily):
    r"""A linear decoder, p(x|z) = N(Wz + μ, σ²I); under z ~ N(0, I) its marginal and posterior are Gaussian too.

    .. math:: p(x) = N(\mu, WW^\top + \sigma^2 I), \qquad
              p(z|x) = N(M^{-1}W^\top(x-\mu),\ \sigma^2 M^{-1}), \qquad M = W^\top W + \sigma^2 I

    (Tipping & Bishop 1999, equations 4 and 6.) No D × D matrix is formed. M is factored in units of σ, by a QR
    decomposition of W/σ stacked on I: forming WᵀW would square the condition number, which float32 does not survive.

    Args:
        features: D.
        latent_features: q.
        generator: of the initial W, whose entries are N(0, 1/D); μ = 0 and σ = 1.

    Attributes:
        weight: W ``[D, q]``.
        mean: μ ``[D]``.
        log_std: log σ, a scalar.

    >>> decoder = LinearGaussian(3, 1)
    >>> with torch.no_grad():
    ...     _ = decoder.weight.copy_(torch.tensor([[2.0], [0.0], [0.0]]))
    >>> decoder.marginal_log_prob(torch.zeros(3)).item()  # N(0, diag(5, 1, 1)) at 0
    -3.561534
    """

    factorises = True

    def __init__(self, features: int, latent_features: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        features = check_count(features, "features")
        latent_features = check_count(latent_features, "latent_features")
        self.features = features
        self.context_features = latent_features
        noise = normal_noise(features, latent_features, generator=generator)
        self.weight = nn.Parameter(noise / math.sqrt(features))
        self.mean = nn.Parameter(torch.zeros(features))
        self.log_std = nn.Parameter(torch.zeros(()))

    @property
    def noise_variance(self) -> Tensor:
        """σ², a scalar."""
        return (2 * self.log_std).exp()

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        assert context is not None
        return context @ self.weight.mT + self.mean, DiagonalScale(self.log_std.exp().expand(self.features))

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        square = self._residual(x, context).square().sum(-1)
        return -0.5 * square - self.features * (self.log_std + 0.5 * math.log(2 * math.pi))

    def _log_prob_by_feature(self, x: Tensor, context: Tensor | None) -> Tensor:
        return -0.5 * self._residual(x, context).square() - self.log_std - 0.5 * math.log(2 * math.pi)

    def _residual(self, x: Tensor, context: Tensor | None) -> Tensor:
        # (x − μ) − Wz rather than x − (Wz + μ): the same number far from the origin, where the sum would round.
        assert context is not None
        return ((x - self.mean) - context @ self.weight.mT) / self.log_std.exp()

    def marginal_log_prob(self, x: Tensor) -> Tensor:
        r"""log N(x; μ, WWᵀ + σ²I), nats: ``[*batch]`` for x ``[*batch, D]``, exact, differentiable, O(nDq + Dq²).

        By the Woodbury identity, with r = (x − μ)/σ, A = W/σ and m = E[z|x],

        .. math:: (x-\mu)^\top (WW^\top + \sigma^2 I)^{-1} (x-\mu) = \lVert r - Am\rVert^2 + \lVert m\rVert^2
                  = \min_z \lVert r - Az\rVert^2 + \lVert z\rVert^2 .

        Being a sum of squares at a minimum, it does not cancel, as ‖r‖² − rᵀAm does when σ is small, and it feels
        rounding in m only to second order. What is left of r is small beside r when σ is small beside W, so that it is
        computed in float64.
        """
        check_points(x, self.features, type(self).__name__, reference=self.weight)
        std, origin = self.log_std.double().exp(), self.mean.double()
        factor = LatentFactor.of(self.weight.double() / std)
        project, back = (factor.projection / std).mT.contiguous(), (factor.projection * std).mT
        squares = []
        for part in x.reshape(-1, self.features).split(max(1, SCALARS_AT_ONCE // self.features)):
            centred = part - origin
            projected = project @ centred.mT  # (AL)ᵀr; this way round the product is the faster by a third
            left = torch.addmm(centred, projected.mT, back, alpha=-1)
            mean = factor.lower @ projected
            squares.append(left.square().sum(-1) / std.square() + mean.square().sum(0))
        square = torch.cat(squares).reshape(x.shape[:-1])
        log_det = self.features * std.log() + 0.5 * factor.log_det_precision()
        return (-0.5 * square - log_det - 0.5 * self.features * math.log(2 * math.pi)).to(x.dtype)

    def whiten(self, x: Tensor) -> Tensor:
        """(x − μ)/σ."""
        return (x - self.mean) / self.log_std.exp()

    def latent_factor(self) -> LatentFactor:
        """The factored posterior precision M/σ² = I + AᵀA, A = W/σ. O(Dq²)."""
        return LatentFactor.of(self.weight / self.log_std.exp())


@dataclass(frozen=True)
class LatentFactor:
    """The posterior of a linear-Gaussian model in units of its noise.

    Attributes:
        scaled: A = W/σ, ``[D, q]``.
        projection: AL, ``[D, q]``, with singular values below 1.
        lower: L ``[q, q]``, lower triangular with positive diagonal: LLᵀ = (I + AᵀA)⁻¹ is the posterior covariance.
    """

    scaled: Tensor
    projection: Tensor
    lower: Tensor

    @staticmethod
    def of(scaled: Tensor) -> LatentFactor:
        """The factor for A ``[D, q]``. O(Dq²)."""
        # AJ = QR with J the reversal of the columns gives (I + AᵀA)⁻¹ = LLᵀ with L = J R⁻¹ J lower triangular.
        identity = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
        q, r = torch.linalg.qr(torch.cat([scaled.flip(-1), identity]))
        diagonal = r.detach().diagonal()
        sign = torch.ones_like(diagonal).copysign(diagonal)
        lower = torch.linalg.solve_triangular(r * sign.unsqueeze(-1), identity, upper=True).flip((-2, -1))
        return LatentFactor(scaled, (q[: scaled.shape[0]] * sign).flip(-1), lower)

    def mean(self, whitened: Tensor) -> Tensor:
        """E[z|x] ``[*batch, q]`` from (x − μ)/σ ``[*batch, D]``. O(Dq) a point."""
        return (whitened @ self.projection) @ self.lower.mT

    def log_det_precision(self) -> Tensor:
        """log det(I + AᵀA), a scalar."""
        return -2 * self.lower.diagonal().log().sum()


class LinearGaussianPosterior(GaussianFamily):
    """The exact posterior p(z|x) = N(M⁻¹Wᵀ(x − μ), σ²M⁻¹) of a :class:`LinearGaussian` under z ~ N(0, I); context x.

    A view: it computes with the decoder's own parameters and has none itself. O(Dq) a point, O(Dq²) once.

    Args:
        decoder: whose posterior it is.

    >>> posterior = LinearGaussianPosterior(LinearGaussian(5, 2))
    >>> posterior.sample(7, context=torch.zeros(3, 5)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(self, decoder: LinearGaussian) -> None:
        super().__init__()
        self.features = decoder.context_features
        self.context_features = decoder.features
        self.decoder = decoder

    @property
    def reference(self) -> Tensor:
        return self.decoder.reference

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        assert context is not None
        factor = self.decoder.latent_factor()
        return factor.mean(self.decoder.whiten(context)), TriangularScale(factor.lower)
