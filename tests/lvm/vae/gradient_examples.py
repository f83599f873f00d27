"""Models whose bounds have exact gradients: in closed form, by quadrature, or as a sum over a discrete latent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from density import (
    Bernoulli,
    ConditionalBernoulli,
    ConditionalGaussian,
    FixedScale,
    mlp,
)
from lvm import VAE, LinearVAE
from lvm.vae.gradients import (
    AnalyticKL,
    DoublyReparametrised,
    ImportanceWeighted,
    LeaveOneOut,
    Reparametrised,
    ScoreFunction,
    StickingTheLanding,
    WrongGradient,
)

PATHWISE = (
    Reparametrised(),
    AnalyticKL(),
    StickingTheLanding(),
    ImportanceWeighted(4),
    DoublyReparametrised(4),
    WrongGradient(),
)


EVERY_ESTIMATOR = (ScoreFunction(), LeaveOneOut(4), *PATHWISE)


SCALAR_X = torch.tensor([[0.5]], dtype=torch.float64)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def exact_gradient(bound: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    return flat(torch.autograd.grad(bound.mean(), parameters))


def linear_vae(generator: Generator, features: int = 4, latent_features: int = 2) -> LinearVAE:
    """Random, away from the identity; the encoder is off its optimum, but close enough for weights with a variance."""
    model = LinearVAE(features, latent_features, generator=generator).double()
    with torch.no_grad():
        for tensor in model.decoder.parameters():
            tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        model.set_optimal_encoder()
        for tensor in model.encoder.parameters():
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return model


def scalar_vae() -> LinearVAE:
    """One latent, one feature; the encoder is off its optimum in every parameter, and wider than the posterior."""
    model = LinearVAE(1, 1).double()
    with torch.no_grad():
        model.decoder.weight.fill_(1.2)
        model.decoder.mean.fill_(0.3)
        model.decoder.log_std.fill_(-0.1)
        model.set_optimal_encoder()
        model.encoder.weight.add_(0.15)
        model.encoder.bias.sub_(0.3)
        model.encoder.log_std.add_(0.2)
    return model


def scalar_log_weights(model: LinearVAE, x: Tensor, noise: Tensor) -> Tensor:
    """log w ``[len(noise), n]`` at z = m + s · noise, written out without the estimators' code."""
    mean = (x - model.encoder.centre) @ model.encoder.weight.mT + model.encoder.bias
    z = mean + model.encoder.log_std.exp() * noise[:, None, None]
    residual = (x - model.decoder.mean - z @ model.decoder.weight.mT) / model.decoder.log_std.exp()
    log_prior = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    log_likelihood = -0.5 * residual.square() - model.decoder.log_std - 0.5 * math.log(2 * math.pi)
    log_q = -0.5 * noise.square()[:, None, None] - model.encoder.log_std - 0.5 * math.log(2 * math.pi)
    return (log_prior + log_likelihood - log_q).squeeze(-1)


def importance_weighted_bound(model: LinearVAE, x: Tensor, draws: int) -> Tensor:
    r"""E log (1/K) Σ w ``[n]`` for any K by two one-dimensional integrals, differentiable.

    log S = ∫ (e⁻ᵗ − e⁻ᵗˢ) dt/t, so E log Σ w = ∫ (e⁻ᵗ − φ(t)ᴷ) dt/t with φ(t) = E e⁻ᵗʷ; with t = eᵘ both integrands are
    analytic and vanish at the ends, where the trapezoidal rule converges exponentially.
    """
    noise = torch.linspace(-12, 12, 801, dtype=torch.float64)
    u = torch.arange(-40, 120, 0.125, dtype=torch.float64)[:, None]
    mass = torch.exp(-0.5 * noise.square()) / math.sqrt(2 * math.pi) * (noise[1] - noise[0])
    level = model.log_prob(x).detach()
    log_w = scalar_log_weights(model, x, noise) - level
    rest = torch.stack(
        [(mass * -torch.expm1(-torch.exp((u + log_w[:, point]).clamp(max=30)))).sum(-1) for point in range(x.shape[0])],
        -1,
    )
    integrand = torch.exp(-torch.exp(u.clamp(max=30))) - torch.exp(draws * torch.log1p(-rest))
    return integrand.sum(0) * 0.125 + level - math.log(draws)


class EnumerableVAE(VAE):
    """Three bits as latent, so that the ELBO is a sum of eight terms."""

    def __init__(self) -> None:
        super().__init__(
            Bernoulli(3),
            ConditionalBernoulli(mlp(2, 3, (4,)), 3, 2),
            ConditionalGaussian(mlp(3, 2, (4,)), 2, 3, FixedScale(0.7)),
        )

    def exact_elbo(self, x: Tensor) -> Tensor:
        z = torch.tensor([*itertools.product([0.0, 1.0], repeat=3)], dtype=x.dtype)[:, None]
        log_q = self.encoder.log_prob(z, x)
        return (log_q.exp() * (self.log_joint(x, z) - log_q)).sum(0)
