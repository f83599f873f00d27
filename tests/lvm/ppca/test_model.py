"""PPCA as a density: against scipy, brute-force Bayes and its own log-weights."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator, Tensor

from density import Kind, Moments, kl
from lvm.evidence import gap
from lvm.linear_gaussian import LinearGaussian, LinearGaussianPosterior
from lvm.ppca.model import PPCA
from tests.lvm.vae.linear_examples import covariance_of, data, random_ppca

Record = Callable[[str, float, float], None]


@pytest.mark.parametrize(("features", "latent_features"), [(2, 1), (5, 2), (30, 29), (40, 3)])
def test_log_prob_is_scipys_multivariate_normal(
    features: int, latent_features: int, generator: Generator, record_measurement: Record
) -> None:
    model = random_ppca(features, latent_features, generator)
    x = 3 * torch.randn(20, features, generator=generator, dtype=torch.float64)
    expected = multivariate_normal(model.decoder.mean.detach().numpy(), covariance_of(model).numpy()).logpdf(x.numpy())
    error = np.abs(model.log_prob(x).detach().numpy() / expected - 1).max()
    # scipy's eigendecomposition of a covariance of condition ~1e3 loses 1e3 ε ~ 2e-13 of the quadratic form.
    record_measurement("PPCA log p(x) vs scipy, relative", error, 1e-10)


def test_log_prob_broadcasts_over_any_batch_shape(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    x = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    together = model.log_prob(x)
    assert together.shape == (3, 5)
    torch.testing.assert_close(together[1, 2], model.log_prob(x[1, 2]), rtol=1e-13, atol=0)


@pytest.mark.parametrize("std", [1e-2, 1e-3, 1e-4])
def test_log_prob_in_float32_survives_a_small_noise(std: float, generator: Generator) -> None:
    model = random_ppca(20, 3, generator, std=std, offset=0.0)
    x = model.sample(200, generator=generator).float()
    single = copy.deepcopy(model).float()
    double = copy.deepcopy(single).double()
    error = (single.log_prob(x).double() - double.log_prob(x.double())).abs().max().item()
    # One coordinate of the whitened residual is near 1 and carries a rounding of ε |x|/σ, |x| ~ 5; 20 of them add up to
    # 2 · √20 · 5ε/σ ~ 45 ε/σ. Forming |r|² − rᵀAm instead would cost ε (|x|/σ)², 200 nats at σ = 1e-4.
    assert error < 100 * torch.finfo(torch.float32).eps / std


def test_log_prob_far_from_the_origin_loses_only_the_rounding_of_x(generator: Generator) -> None:
    near = random_ppca(6, 2, generator, offset=0.0)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64).mul(2**20).round() / 2**20
    far = copy.deepcopy(near)
    with torch.no_grad():
        near.decoder.mean.zero_()
        far.decoder.mean.fill_(1e8)
    moved = x + 1e8  # rounds to multiples of 2⁻²⁶, which the dyadic x already are
    torch.testing.assert_close(far.log_prob(moved), near.log_prob(moved - 1e8), rtol=0, atol=1e-12)
    z = near.encoder.sample(1, context=x, generator=generator).squeeze(0)
    torch.testing.assert_close(far.decoder.log_prob(moved, z), near.decoder.log_prob(x, z), rtol=0, atol=1e-12)


def test_decoder_log_prob_is_scipys(generator: Generator) -> None:
    model = random_ppca(5, 2, generator)
    z = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    means = (z @ model.decoder.weight.mT + model.decoder.mean).detach().numpy()
    expected = [multivariate_normal(m, 0.7**2 * np.eye(5)).logpdf(r) for m, r in zip(means, x.numpy(), strict=True)]
    np.testing.assert_allclose(model.decoder.log_prob(x, z).detach().numpy(), expected, rtol=1e-12)
    mean, scale = model.decoder.at(z)
    np.testing.assert_allclose(mean.detach().numpy(), means, rtol=1e-13)
    np.testing.assert_allclose(scale.dense().detach().numpy(), 0.7 * np.eye(5), rtol=1e-13)


def test_posterior_is_the_conditional_of_the_joint_gaussian(generator: Generator) -> None:
    model = random_ppca(6, 3, generator)
    x = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    weight, mean = model.decoder.weight.detach(), model.decoder.mean.detach()
    # Condition the (3 + 6)-dimensional joint of (z, x) on x by Schur complements, in the space of x.
    gain = weight.mT @ torch.linalg.inv(covariance_of(model))
    posterior = model.posterior(x)
    torch.testing.assert_close(posterior.mean, (x - mean) @ gain.mT, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        posterior.covariance, torch.eye(3, dtype=torch.float64) - gain @ weight, rtol=1e-11, atol=1e-12
    )
    torch.testing.assert_close(model.encode(x), posterior.mean)
    torch.testing.assert_close(model.reconstruct(x), posterior.mean @ weight.mT + mean)
    z = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    bayes = model.log_joint(x, z) - model.log_prob(x)
    torch.testing.assert_close(model.encoder.log_prob(z, context=x), bayes, rtol=1e-11, atol=0)


def test_posterior_factor_is_lower_triangular_with_positive_diagonal(generator: Generator) -> None:
    factor = random_ppca(6, 3, generator).decoder.latent_factor()
    assert torch.equal(factor.lower, factor.lower.tril())
    assert bool((factor.lower.diagonal() > 0).all())
    torch.testing.assert_close(factor.projection, factor.scaled @ factor.lower, rtol=1e-12, atol=1e-13)


def test_log_weights_are_log_p_at_every_draw(generator: Generator, record_measurement: Record) -> None:
    model = random_ppca(8, 3, generator)
    x = model.sample(20, generator=generator).detach()
    log_weights = model.log_weights(x, 50, generator=generator)
    assert log_weights.shape == (50, 20)
    error = (log_weights / model.log_prob(x) - 1).abs().max().item()
    record_measurement("PPCA log w vs log p(x), relative", error, 1e-12)  # sums of ~20 terms of order 10
    result = gap(model, x, draws=10, generator=generator)
    assert result.log_density.kind is Kind.EXACT
    assert abs(result.difference.mean) < 1e-12 * abs(result.log_density.mean)


def test_elbo_with_the_closed_form_kl_averages_to_log_p(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    x = model.sample(3, generator=generator).detach()
    draws = 20_000
    terms = model.elbo_terms(x, draws=draws, generator=generator)
    divergence = kl(model.encoder, model.prior, context=x)
    assert divergence is not None
    torch.testing.assert_close(terms.kl, divergence)
    z = model.encoder.sample(draws, context=x, generator=generator)
    error = model.decoder.log_prob(x, z).std(0) / math.sqrt(draws)
    assert bool(((terms.elbo - model.log_prob(x)).abs() < 4 * error).all())


def test_log_p_is_elbo_plus_divergence_for_any_posterior(generator: Generator) -> None:
    # The identity log p(x) = E_q log p(x, z) − E_q log q + KL(q ‖ p(z|x)), with q another model's posterior and
    # E_q of the quadratic log p(x|z) in closed form.
    model, other = random_ppca(5, 2, generator), random_ppca(5, 2, generator)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    to_prior, to_posterior = kl(other.encoder, model.prior, context=x), kl(other.encoder, model.encoder, context=x)
    assert to_prior is not None
    assert to_posterior is not None
    q = other.posterior(x)
    spread = (model.decoder.weight @ q.covariance @ model.decoder.weight.mT).trace() / (2 * model.noise_variance)
    elbo = model.decoder.log_prob(x, q.mean) - spread - to_prior
    torch.testing.assert_close(elbo + to_posterior, model.log_prob(x), rtol=1e-12, atol=0)


def test_samples_have_the_models_moments(generator: Generator) -> None:
    model = random_ppca(3, 1, generator)
    n = 100_000
    with torch.no_grad():
        x, log_prob = model.sample_with_log_prob(n, generator=generator)
    torch.testing.assert_close(log_prob, model.log_prob(x).detach())
    covariance = covariance_of(model)
    moments = Moments.of(x)
    deviation = (moments.mean - model.decoder.mean.detach()) / (covariance.diagonal() / n).sqrt()
    assert deviation.abs().max() < 4.5
    # var of a sample covariance entry: (Σᵢᵢ Σⱼⱼ + Σᵢⱼ²) / n
    error = ((torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance.square()) / n).sqrt()
    assert ((moments.covariance - covariance) / error).abs().max() < 4.5


def test_sampling_is_seeded_and_needs_no_encoder(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_ppca(4, 2, generator)
    before = model.sample(5, generator=Generator().manual_seed(1))
    monkeypatch.delattr(PPCA, "encoder")
    assert torch.equal(model.sample(5, generator=Generator().manual_seed(1)), before)


def test_rotating_the_latent_changes_nothing_but_the_latent(generator: Generator) -> None:
    model = random_ppca(6, 3, generator)
    rotated = copy.deepcopy(model)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        rotated.decoder.weight.copy_(model.decoder.weight @ rotation)
    x = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(rotated.log_prob(x), model.log_prob(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(rotated.encode(x), model.encode(x) @ rotation, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(rotated.principal_axes.axes, model.principal_axes.axes, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(rotated.principal_axes.variances, model.principal_axes.variances, rtol=1e-12, atol=0)


def test_bic_and_aic_count_parameters_up_to_rotation(generator: Generator) -> None:
    x = data(100, 5, 2, generator)
    model = PPCA(5, 2)
    model.fit(x)
    # A covariance of rank-2 structure in 5-D: 2 variances, 4 + 3 angles of the two axes, 1 noise; and 5 means.
    assert model.parameter_count == 2 + 7 + 1 + 5
    total = (
        multivariate_normal(model.decoder.mean.detach().numpy(), covariance_of(model).numpy()).logpdf(x.numpy()).sum()
    )
    assert model.bic(x) == pytest.approx(-2 * total + 15 * math.log(100), rel=1e-12)
    assert model.aic(x) == pytest.approx(-2 * total + 30, rel=1e-12)


def test_state_holds_each_tensor_once_and_travels(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    assert set(model.state_dict()) == {"decoder.weight", "decoder.mean", "decoder.log_std"}
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    loaded = PPCA(4, 2).double()
    loaded.load_state_dict(model.state_dict())
    buffer = io.BytesIO(pickle.dumps(model))
    for other in (loaded, copy.deepcopy(model), pickle.load(buffer)):
        assert torch.equal(other.log_prob(x), model.log_prob(x))
        assert torch.equal(other.encoder.log_prob(x[:, :2], context=x), model.encoder.log_prob(x[:, :2], context=x))


def test_a_copys_posterior_is_the_copys(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.decoder.weight.mul_(2)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    assert isinstance(other.encoder, LinearGaussianPosterior)
    assert other.encoder.decoder is other.decoder
    torch.testing.assert_close(other.log_weights(x, 2, generator=generator)[1], other.log_prob(x), rtol=1e-12, atol=0)


def test_gradients_of_marginal_and_posterior(generator: Generator) -> None:
    model = random_ppca(3, 2, generator)
    x = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    parameters = tuple(p.detach().requires_grad_() for p in model.parameters())
    names = [name for name, _ in model.decoder.named_parameters()]

    def evaluate(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        state = dict(zip(names, parameters, strict=True))

        class Both(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.decoder = LinearGaussian(3, 2).double()

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                posterior = LinearGaussianPosterior(self.decoder)
                return self.decoder.marginal_log_prob(x), posterior.log_prob(z, context=x)

        return torch.func.functional_call(Both(), {f"decoder.{k}": v for k, v in state.items()}, (x,))

    assert torch.autograd.gradcheck(evaluate, (x, *parameters))


def test_curvature_is_minus_the_precision_even_at_the_mean(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    for x in (model.decoder.mean.detach().clone(), torch.randn(4, generator=generator, dtype=torch.float64)):
        curvature = torch.autograd.functional.hessian(model.log_prob, x)
        torch.testing.assert_close(curvature, -torch.linalg.inv(covariance_of(model)), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("noise", [1.0, 1e-3, 1e-6])
def test_float32_keeps_log_prob_where_the_noise_is_small(noise: float, generator: Generator) -> None:
    """The same parameters and points in float64: only the value is rounded, to 2⁻²⁴ of some hundreds of nats."""
    model = random_ppca(20, 3, generator)
    with torch.no_grad():
        model.decoder.log_std.fill_(math.log(noise))
    single = copy.deepcopy(model).float()
    model = copy.deepcopy(single).double()
    x = single.sample(50, generator=Generator().manual_seed(0)).detach()
    expected = model.log_prob(x.double())
    torch.testing.assert_close(single.log_prob(x).double(), expected, rtol=2**-23, atol=2e-7)
    by_patterns = single.observed.log_prob(x)
    torch.testing.assert_close(single.log_prob(x), by_patterns, rtol=2**-22, atol=5e-7)
