"""The linear VAE (Lucas et al. 2019): a VAE of which everything is known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from density.checks import check_count, check_points
from density.data.reader import Reader
from density.families.gaussian import GaussianFamily, StandardNormal
from density.families.noise import normal_noise
from density.families.scale import DiagonalScale, Scale
from density.fitting.ascent import maximise
from density.fitting.optimisers import constant, lbfgs
from density.fitting.training import Training, check_training
from density.history import History
from density.linalg.moments import resolution
from density.renamed import renamed
from lvm.em import Present
from lvm.latent import ExactLatentVariableModel
from lvm.linear_gaussian import LinearGaussian
from lvm.ppca.covariance import Covariance
from lvm.ppca.spectrum import centre

FULL_BATCH = Training(
    epochs=100,
    batch_size=None,
    learning_rate=1.0,
    optimiser=lbfgs,
    schedule=constant,
    clip=None,
    validation=0.0,
    patience=None,
)

ROUNDS = 8  # of subspace iteration, by which the start's sketch is refined


class LinearEncoder(GaussianFamily):
    """q(z|x) = N(V(x − c) + b, diag d), with d the same for every x. O(Dq) a point.

    Attributes:
        weight: V ``[q, D]``.
        bias: b ``[q]``.
        log_std: ½ log d, ``[q]``.
        centre: c ``[D]``, a buffer: the mean of the data, so that Vx does not round far from the origin.

    Args:
        features: q.
        context_features: D.
        generator: of the initial V, whose entries are N(0, 1/D).

    >>> encoder = LinearEncoder(2, 3)
    >>> encoder.expectation(torch.zeros(5, 3)).shape, encoder.weight.shape
    (torch.Size([5, 2]), torch.Size([2, 3]))
    """

    centre: Tensor

    def __init__(self, features: int, context_features: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        features = check_count(features, "features")
        context_features = check_count(context_features, "context_features")
        self.features = features
        self.context_features = context_features
        noise = normal_noise(features, context_features, generator=generator)
        self.weight = nn.Parameter(noise / math.sqrt(context_features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.log_std = nn.Parameter(torch.zeros(features))
        self.register_buffer("centre", torch.zeros(context_features))

    def at(self, context: Tensor | None) -> tuple[Tensor, Scale]:
        assert context is not None
        return (context - self.centre) @ self.weight.mT + self.bias, DiagonalScale(self.log_std.exp())


class LinearVAE(ExactLatentVariableModel):
    r"""A VAE with linear encoder and decoder: p(x|z) = N(Wz + μ, σ²I), q(z|x) = N(V(x − c) + b, diag d), z ~ N(0, I).

    Two quantities, kept apart: ``log_prob`` is the exact Gaussian marginal log N(x; μ, WWᵀ + σ²I), O(nDq) by the
    Woodbury identity; ``elbo`` is the bound that the encoder gives, by sampling, and :meth:`elbo_closed_form` the same
    bound without sampling. At the maximum of the ELBO they meet and the model is PPCA, with the columns of W along the
    principal axes (Lucas et al. 2019).

    Args:
        features: D.
        latent_features: q.
        generator: of the initial weights.

    >>> model = LinearVAE(3, 1, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    >>> bool((model.elbo_closed_form(x) <= model.log_prob(x)).all())
    True
    >>> model.set_optimal_encoder()  # with one latent, the diagonal is no restriction
    >>> torch.allclose(model.elbo_closed_form(x), model.log_prob(x), atol=1e-5)
    True
    """

    method = "Woodbury"

    def __init__(self, features: int, latent_features: int, *, generator: Generator | None = None) -> None:
        super().__init__()
        features = check_count(features, "features")
        latent_features = check_count(latent_features, "latent_features")
        self.decoder: LinearGaussian = LinearGaussian(features, latent_features, generator=generator)
        self.encoder: LinearEncoder = LinearEncoder(latent_features, features, generator=generator)
        self.prior = StandardNormal(latent_features)
        self.features = features
        self.latent_features = latent_features

    def elbo_closed_form(self, x: Tensor) -> Tensor:
        r"""The ELBO ``[*batch]`` for x ``[*batch, D]``, exactly, nats: a lower bound on log p(x). O(Dq) a point.

        With m = V(x − c) + b and wᵢ the columns of W,

        .. math:: \mathcal L(x) = -\tfrac D2\log 2\pi\sigma^2
                  - \tfrac1{2\sigma^2}\Big(\lVert x-\mu-Wm\rVert^2 + \sum_i d_i\lVert w_i\rVert^2\Big)
                  - \tfrac12\sum_i\big(d_i + m_i^2 - 1 - \log d_i\big).
        """
        check_points(x, self.features, "LinearVAE", reference=self.reference)
        mean, _ = self.encoder.at(x)
        variances = (2 * self.encoder.log_std).exp()
        scaled = self.decoder.weight / self.decoder.log_std.exp()
        square = (self.decoder.whiten(x) - mean @ scaled.mT).square().sum(-1)
        spread = (variances * scaled.square().sum(0)).sum()
        reconstruction = -0.5 * (square + spread) - self.features * (self.decoder.log_std + 0.5 * math.log(2 * math.pi))
        divergence = 0.5 * (mean.square() + variances - 1).sum(-1) - self.encoder.log_std.sum()
        return reconstruction - divergence

    def closed_form_gap(self) -> Tensor:
        r"""log p(x) − ELBO under the best diagonal encoder for the present decoder, the same for every x, nats.

        .. math:: \tfrac12\Big(\sum_i \log M_{ii} - \log\det M\Big), \qquad M = W^\top W + \sigma^2 I

        It is 0 exactly when the columns of W are orthogonal. This is the approximation gap; :meth:`set_optimal_encoder`
        makes it the whole gap. A scalar, differentiable, O(Dq²).
        """
        factor = self.decoder.latent_factor()
        return 0.5 * (factor.scaled.square().sum(0).log1p().sum() - factor.log_det_precision())

    @torch.no_grad()
    def set_optimal_encoder(self) -> None:
        """Make the encoder the best one for the present decoder: V = M⁻¹Wᵀ, c = μ, b = 0, dᵢ = σ²/Mᵢᵢ. O(Dq²)."""
        factor = self.decoder.latent_factor()
        self.encoder.weight.copy_(factor.lower @ factor.projection.mT / self.decoder.log_std.exp())
        self.encoder.bias.zero_()
        self.encoder.centre.copy_(self.decoder.mean)
        self.encoder.log_std.copy_(-0.5 * factor.scaled.square().sum(0).log1p())

    @renamed(warm_start="start=Present()")
    def fit(
        self,
        x: Tensor,
        training: Training = FULL_BATCH,
        *,
        start: Present | None = None,
        weights: Tensor | None = None,
        generator: Generator | None = None,
    ) -> History:
        """Maximise the ELBO of x ``[n, D]`` by gradient steps, all parameters together.

        The objective is :meth:`elbo_closed_form`, so there is no sampling noise, and the default is full-batch L-BFGS.
        Steps are taken in units of the mean and the overall standard deviation of the data, which makes the fit
        equivariant to shifts and scalings of x.

        Args:
            training: settings of the fit.
            start: ``Present()`` to go on from the present parameters; None for W and σ from a random sketch of the
                covariance (see :class:`~lvm.ppca.climb.RandomWeight`) and the best encoder for them.
            weights: of the rows, ``[n]``, not negative: 3 is the row three times, 0 a row that is not there.
            generator: of the sketch and the order of the rows, on the device of x.

        Returns:
            History whose objective is the mean ELBO, nats per point.

        Raises:
            TypeError, ValueError: x is not finite floating-point data ``[n, D]``, or the weights do not fit it.
            ValueError: x varies along too few axes, so that σ falls to 0 and the ELBO has no maximum.
            NonFiniteObjective: see :func:`~density.fitting.ascent.maximise`.
        """
        check_training(training, "LinearVAE.fit")
        x, *own = Reader("LinearVAE", self.features).read(x, weights=weights)
        mean, rows = centre(x, *own)
        spread = rows * (own[0] / own[0].mean()).sqrt().unsqueeze(1) if own else rows
        variances = spread.square().mean(0)
        std = variances.mean().sqrt()
        _require_rank(spread, self.latent_features, resolution(mean, variances, x.dtype).sqrt())
        self.to(x)
        standardised = (rows / std).to(x.dtype)
        origin = torch.zeros_like(mean)
        if isinstance(start, Present):
            self._move(mean, origin, 1 / std)
        else:
            self._start((spread / std).to(x.dtype), generator)
        offset = self.features * std.log().item()

        def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            return self.elbo_closed_form(batch[0]) - offset

        try:
            history = maximise(
                self, objective, (standardised,), training, weights=own[0] if own else None, generator=generator
            )
        finally:
            self._move(origin, mean, std)
        return history

    @torch.no_grad()
    def _start(self, rows: Tensor, generator: Generator | None) -> None:
        """From a sketch of the covariance of centred rows: a W of independent entries would start all latents alike.

        Those of small variance then die while σ² is still large, and gradients hardly revive them.
        """
        weight = self.decoder.weight
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device=weight.device)
        covariance = Covariance.by_rows(rows)
        found = covariance.sketched(noise.double())
        for _ in range(ROUNDS):
            found = covariance.sketched(found.weight)
        weight.copy_(found.weight)
        self.decoder.mean.zero_()
        self.decoder.log_std.copy_(0.5 * found.noise_variance.log())
        self.set_optimal_encoder()

    @torch.no_grad()
    def _move(self, origin: Tensor, target: Tensor, scale: Tensor) -> None:
        """The same model of target + scale · (x − origin) instead of x, exactly; computed in float64."""
        self.decoder.weight.copy_(self.decoder.weight.double() * scale)
        self.decoder.mean.copy_(target + (self.decoder.mean.double() - origin) * scale)
        self.decoder.log_std.copy_(self.decoder.log_std.double() + scale.log())
        self.encoder.weight.copy_(self.encoder.weight.double() / scale)
        self.encoder.centre.copy_(target + (self.encoder.centre.double() - origin) * scale)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.decoder.marginal_log_prob(x)

    def _expectation(self, context: Tensor | None) -> Tensor:
        return self.decoder.mean


def _require_rank(rows: Tensor, latent_features: int, resolution: Tensor) -> None:
    """Raise unless centred rows ``[n, D]`` vary along more than q axes. O(nDq), no D × D matrix.

    A random projection to q + 1 dimensions keeps the rank up to q + 1, with probability one.
    """
    n, features = rows.shape
    size = min(latent_features + 1, features)
    basis = torch.randn(features, size, generator=Generator().manual_seed(0), dtype=rows.dtype).to(rows.device)
    singular = torch.linalg.svdvals(rows @ basis) / math.sqrt(n * features)
    floor = 10 * torch.maximum(resolution, max(n, features) * torch.finfo(rows.dtype).eps * singular[0])
    if n < size or not bool(singular[-1] > floor):
        raise ValueError(
            f"LinearVAE: the {n} rows vary along no more axes than {latent_features} latents can follow, so sigma "
            "falls to 0 and the ELBO has no maximum. Use fewer latent features, more distinct rows, or dequantised "
            "data; centre data that is far from the origin"
        )
