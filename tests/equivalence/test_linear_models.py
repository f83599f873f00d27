"""Linear flows, PPCA, linear VAE and the Gaussian: one family, seen from four sides."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from density import Gaussian, StandardNormal
from flows import Flow, GaussianAutoregressive, LULinear, QRLinear, linear_flow
from flows.layers.linear_maps.linear import Linear
from flows.networks.masked import MaskedLinear, MaskedMLP
from lvm import PPCA, LinearVAE
from tests.equivalence.examples import random_gaussian, random_matrix, randomise

Record = Callable[[str, float, float], None]


def correlated(generator: Generator, n: int, d: int) -> Tensor:
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return noise @ random_matrix(generator, d).mT + torch.randn(d, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("linear", [LULinear, QRLinear])
def test_linear_flow_at_its_optimum_is_the_maximum_likelihood_gaussian(
    linear: type[Linear], generator: Generator, record_measurement: Record
) -> None:
    x, new = correlated(generator, 400, 4), correlated(generator, 100, 4)
    gaussian = Gaussian(4)
    gaussian.fit(x)
    flow = linear_flow(4, linear).double()
    randomise(flow, generator, 0.3)
    optimiser = torch.optim.LBFGS(
        flow.parameters(),
        max_iter=500,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-13,
        tolerance_change=0.0,
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -flow.log_prob(x).mean()
        value.backward()
        return value

    for _ in range(4):
        optimiser.step(loss)
    # At gradient norm g the density is off by O(g): L-BFGS ends at about 1e-9 in double precision.
    error = (flow.log_prob(new) - gaussian.log_prob(new)).detach().abs().max()
    record_measurement(f"5  trained {linear.__name__} flow = ML Gaussian", float(error), 1e-6)

    # And at the analytic optimum, W = L⁻¹ with Σ = L Lᵀ, the gradient vanishes.
    factor = torch.linalg.cholesky(gaussian.covariance.detach())
    weight = torch.linalg.inv(factor)
    optimum = Flow(StandardNormal(4).double(), linear.from_matrix(weight, -weight @ gaussian.mean.detach()))
    gradients = torch.autograd.grad(optimum.log_prob(x).mean(), list(optimum.parameters()))
    largest = max(float(g.abs().max()) for g in gradients)
    record_measurement(f"5b gradient of {linear.__name__} at the optimum", largest, 1e-12)
    difference = (optimum.log_prob(new) - gaussian.log_prob(new)).detach().abs().max()
    record_measurement(f"5c {linear.__name__} from Σ = Gaussian", float(difference), 1e-11)


def test_linear_vae_at_its_optimum_is_ppca(generator: Generator, record_measurement: Record) -> None:
    """Lucas et al. (2019): with W's columns orthogonal and the best diagonal encoder, no gap is left."""
    x, new = correlated(generator, 300, 6), correlated(generator, 100, 6)
    ppca = PPCA(6, 2)
    ppca.fit(x)
    vae = LinearVAE(6, 2).double()
    vae.decoder.load_state_dict(ppca.decoder.state_dict())
    vae.set_optimal_encoder()
    elbo = vae.elbo_closed_form(new)
    record_measurement(
        "6  optimal linear VAE's ELBO = PPCA's log p", float((elbo - ppca.log_prob(new)).detach().abs().max()), 1e-11
    )
    gradients = torch.autograd.grad(vae.elbo_closed_form(x).mean(), list(vae.parameters()))
    largest = max(float(g.abs().max()) for g in gradients)
    record_measurement("6b gradient of the linear VAE's ELBO there", largest, 1e-11)


def test_trained_linear_vae_reaches_ppca(generator: Generator, record_measurement: Record) -> None:
    x = correlated(generator, 300, 6)
    ppca = PPCA(6, 2)
    history = ppca.fit(x)
    vae = LinearVAE(6, 2).double()
    randomise(vae, generator, 0.3)
    optimiser = torch.optim.LBFGS(
        vae.parameters(),
        max_iter=3000,
        history_size=100,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=0.0,
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -vae.elbo_closed_form(x).mean()
        value.backward()
        return value

    optimiser.step(loss)
    elbo = float(vae.elbo_closed_form(x).detach().mean())
    # The bound cannot exceed PPCA's maximum; it comes as near as the optimiser does.
    assert elbo <= history.objective[-1] + 1e-9
    record_measurement("6c trained linear VAE's ELBO = PPCA's log p", abs(history.objective[-1] - elbo), 1e-6)


@pytest.mark.parametrize(("d", "q"), [(3, 1), (6, 3), (20, 7)])
def test_gap_of_the_linear_vae_away_from_the_optimum(
    d: int, q: int, generator: Generator, record_measurement: Record
) -> None:
    """log p − ELBO = ½(Σ log M_ii − log det M), M = WᵀW + σ²I, at every x and any W."""
    vae = LinearVAE(d, q).double()
    randomise(vae, generator, 0.7)
    vae.set_optimal_encoder()
    x = 3 * torch.randn(50, d, generator=generator, dtype=torch.float64)
    weight, std = vae.decoder.weight, vae.decoder.log_std.exp()
    m = weight.mT @ weight + std**2 * torch.eye(q, dtype=torch.float64)
    expected = 0.5 * (m.diagonal().log().sum() - torch.linalg.slogdet(m).logabsdet)
    assert q == 1 or expected > 0.01
    measured = vae.log_prob(x) - vae.elbo_closed_form(x)
    scale = vae.log_prob(x).detach().abs().max().clamp_min(1)
    record_measurement(
        "6d linear VAE's gap = its closed form", float((measured - expected).detach().abs().max() / scale), 1e-12
    )


def test_ppca_is_a_linear_flow(generator: Generator, record_measurement: Record) -> None:
    ppca = PPCA(6, 2).double()
    randomise(ppca, generator, 0.7)
    weight, mean, std = ppca.decoder.weight, ppca.decoder.mean, ppca.decoder.log_std.exp()
    covariance = (weight @ weight.mT + std**2 * torch.eye(6, dtype=torch.float64)).detach()
    inverse_root = torch.linalg.inv(torch.linalg.cholesky(covariance))
    x = 2 * torch.randn(50, 6, generator=generator, dtype=torch.float64)
    for linear in (LULinear, QRLinear):
        transform = linear.from_matrix(inverse_root, -inverse_root @ mean.detach())
        flow = Flow(StandardNormal(6).double(), transform)
        log_p = ppca.log_prob(x)
        error = ((flow.log_prob(x) - log_p).abs() / log_p.abs()).detach().max()
        record_measurement(f"10 PPCA's marginal = {linear.__name__} flow", float(error), 1e-12)


def test_autoregressive_factors_of_a_gaussian_are_its_cholesky_factor(
    generator: Generator, record_measurement: Record
) -> None:
    """p(x) = Π p(x_j | x_<j) with x = m + L z: σ_j = L_jj, and z = L⁻¹(x − m) feature by feature."""
    gaussian = random_gaussian(generator)
    d = gaussian.features
    factor = torch.linalg.cholesky(gaussian.covariance.detach())
    inverse, mean, std = torch.linalg.inv(factor), gaussian.mean.detach(), factor.diagonal()
    net = MaskedMLP(range(d), hidden=()).double()
    layer = GaussianAutoregressive(d, conditioner=net).double()
    (affine,) = [part for part in net.layers if isinstance(part, MaskedLinear)]
    regression = -std[:, None] * inverse.tril(-1)
    bound = layer.log_scale_bound
    with torch.no_grad():
        affine.weight[:d] = regression
        affine.bias[:d] = mean - regression @ mean
        affine.bias[d:] = bound * torch.atanh(std.log() / bound)
    flow = Flow(StandardNormal(d).double(), layer)
    x = 2 * torch.randn(50, d, generator=generator, dtype=torch.float64)
    error = (flow.log_prob(x) - gaussian.log_prob(x)).detach().abs().max()
    record_measurement("10b autoregressive Gaussian = its Cholesky factor", float(error), 1e-11)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: layer(row)[0]))(x[:3])
    assert math.isclose(float((jacobian - inverse).detach().abs().max()), 0, abs_tol=1e-12)
