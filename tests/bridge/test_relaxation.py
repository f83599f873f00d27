"""A flow with Gaussian encoder and decoder tends to the flow as σ², unless it has kinks or its encoder is diagonal."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor, nn

from bridge import DiagonalJacobianEncoder, GaussianRelaxation, JacobianEncoder
from density import StandardNormal, mlp
from flows import AffineCoupling, Chain, Flow, LULinear, Permutation, QRLinear
from flows.layers.linear_maps.linear import Linear
from lvm.evidence import importance
from tests.bridge.comparison import Record, normal
from tests.bridge.relaxed import FLOWS, blurred, gaussian_of, linear, nodes
from tests.laws.transforms import randomise

SIGMAS = torch.logspace(-5, -2, 7, dtype=torch.float64).tolist()


def rate(sigmas: list[float], errors: Tensor) -> float:
    """Slope of log error against log σ, by least squares."""
    return float(np.polyfit(np.log(sigmas), errors.log().numpy(), 1)[0])


# ---------------------------------------------------------------------------------------------------------------------
# The rate
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [2, 8, 32])
@pytest.mark.parametrize("name", FLOWS)
def test_the_elbo_tends_to_the_flow_as_sigma_squared(
    name: str, features: int, generator: Generator, record_measurement: Record
) -> None:
    flow = FLOWS[name](generator, features)
    with torch.no_grad():
        x = flow.sample(32, generator=generator)
        noise = normal(generator, 64, 32, features)
        antithetic = torch.cat([noise, -noise])
        log_p = flow.log_prob(x)
        errors = torch.stack(
            [(GaussianRelaxation(flow, sigma).log_weights_at(x, antithetic).mean(0) - log_p).abs() for sigma in SIGMAS]
        )
        singular = torch.linalg.svdvals(GaussianRelaxation(flow, 1.0).encoder.linearise(x)[1])
    condition = (singular[:, 0] / singular[:, -1]).max()
    assert 1.2 < condition < 100.001
    record_measurement(f"slope of |ELBO(σ) − log p|, {name}: |slope − 2|", abs(rate(SIGMAS, errors.mean(1)) - 2), 0.05)
    # The error is σ²/2 ‖J‖² and what curvature adds: 1e-10 times at most some tens for singular values up to 5.
    record_measurement("|ELBO(1e-5) − log p|, nats, condition ≤ 100", float(errors[0].max()), 1e-8)


@pytest.mark.parametrize(
    ("name", "features"), [("LU", 1), ("QR", 1), ("autoregressive", 1), *((name, 2) for name in FLOWS)]
)
def test_the_evidence_tends_to_the_flow_as_sigma_squared(
    name: str, features: int, generator: Generator, record_measurement: Record
) -> None:
    """p_σ by quadrature of its own weights over the latent, and ELBO too: no draws at all."""
    flow = FLOWS[name](generator, features)
    with torch.no_grad():
        x = flow.sample(64, generator=generator)
        log_p = flow.log_prob(x)
        grid, log_node = nodes(features, 21 if features == 1 else 11)
        evidence, elbo, convolution = [], [], []
        for sigma in SIGMAS:
            log_weights = GaussianRelaxation(flow, sigma).log_weights_at(x, grid.unsqueeze(1))
            evidence.append((log_weights + log_node.unsqueeze(1)).logsumexp(0) - log_p)
            elbo.append((log_weights * log_node.exp().unsqueeze(1)).sum(0) - log_p)
            convolution.append(blurred(flow, x, sigma, 11) - log_p)
    for what, errors in (("log p_σ", evidence), ("ELBO by quadrature", elbo), ("log p_σ as a blur", convolution)):
        slope = rate(SIGMAS, torch.stack(errors).abs().mean(1))
        record_measurement(f"slope of |{what} − log p|, 1-2 D: |slope − 2|", abs(slope - 2), 0.05)
    # Two integrals of one density, over z and over x'. Rounding of g, 1e-15 or so, is divided by σ.
    for sigma, one, other in zip(SIGMAS, evidence, convolution, strict=True):
        assert (one - other).abs().max() < 1e-14 / sigma + 1e-3 * other.abs().max()
    assert all((bound <= value + 1e-10).all() for bound, value in zip(elbo, evidence, strict=True))


def test_plain_sampling_shows_its_noise(generator: Generator) -> None:
    """Without the antithetic half, the term odd in σ remains: slope 1. With the KL in closed form, slope 0."""
    flow = FLOWS["coupling"](generator, 8)
    x = flow.sample(64, generator=generator).detach()
    log_p = flow.log_prob(x)
    plain, closed = [], []
    with torch.no_grad():
        for sigma in SIGMAS:
            model = GaussianRelaxation(flow, sigma)
            plain.append((model.elbo(x, draws=16, generator=generator) - log_p).abs().mean())
            terms = model.elbo_terms(x, draws=16, generator=generator)
            closed.append((terms.elbo - log_p).abs().mean())
    assert rate(SIGMAS, torch.stack(plain)) == pytest.approx(1, abs=0.1)
    assert rate(SIGMAS, torch.stack(closed)) == pytest.approx(0, abs=0.1)


def kinked(generator: Generator, activation: Callable[[], nn.Module]) -> Flow:
    """Scales within e^±1, so that no point is stretched out of all proportion."""
    couplings = [
        AffineCoupling(mask, (), log_scale_bound=1.0, conditioner=mlp(1, 2, (32,), activation))
        for mask in ([True, False], [False, True])
    ]
    return randomise(Flow(StandardNormal(2), Chain(*couplings)), generator, 0.3)


def test_kinks_are_seen_at_every_sigma(generator: Generator, record_measurement: Record) -> None:
    """Within σ of a kink, J is wrong by O(1), and points are there with probability O(σ): slope 1, not 2."""
    slopes = {}
    sigmas = torch.logspace(-4, -2, 5, dtype=torch.float64).tolist()
    noise = normal(generator, 8, 1, 2)
    antithetic = torch.cat([noise, -noise])
    for activation in (nn.ReLU, nn.SiLU):
        flow = kinked(Generator().manual_seed(1), activation)
        with torch.no_grad():
            x = flow.sample(20_000, generator=generator)
            log_p = flow.log_prob(x)
            errors = [
                (GaussianRelaxation(flow, s).log_weights_at(x, antithetic).mean(0) - log_p).abs().mean() for s in sigmas
            ]
        slopes[activation] = rate(sigmas, torch.stack(errors))
    record_measurement("slope for the ReLU flow (counter-example): |slope − 1|", abs(slopes[nn.ReLU] - 1), 0.2)
    record_measurement("slope for its SiLU twin: |slope − 2|", abs(slopes[nn.SiLU] - 2), 0.05)


@pytest.mark.parametrize("kind", [LULinear, QRLinear])
@pytest.mark.parametrize("sigma", [1e-3, 0.3])
def test_a_linear_flow_is_known_in_closed_form(kind: type[Linear], sigma: float, generator: Generator) -> None:
    """ELBO = log p(x) − σ²/2 ‖J‖², p_σ = N(μ, Σ + σ²I), and the posterior N(·, (I + Σ/σ²)⁻¹)."""
    flow = linear(kind, generator, 4)
    model = GaussianRelaxation(flow, sigma)
    x = normal(generator, 6, 4)
    gaussian = gaussian_of(flow)
    jacobian = flow.transform.matrix().detach()  # type: ignore[union-attr]
    log_p = gaussian.log_prob(x)
    with torch.no_grad():
        grid, log_node = nodes(4, 5)  # exact for the quadratics that these log-weights are
        log_weights = model.log_weights_at(x, grid.unsqueeze(1))
        elbo = (log_weights * log_node.exp().unsqueeze(1)).sum(0)
    torch.testing.assert_close(elbo, log_p - 0.5 * sigma**2 * jacobian.square().sum(), rtol=1e-9, atol=1e-9)
    covariance = gaussian.covariance.detach() + sigma**2 * torch.eye(4).double()
    exact = torch.from_numpy(stats.multivariate_normal(gaussian.mean.detach().numpy(), covariance).logpdf(x.numpy()))
    # q's variance exceeds the posterior's by no more than σ²‖J‖², so the importance weights are bounded.
    estimate = importance(model, x, draws=20_000, generator=generator)
    assert estimate.monte_carlo_error is not None
    assert ((estimate.value - exact).abs() <= 4.5 * estimate.monte_carlo_error + 1e-7).all()
    # q itself: KL(q ‖ p(z|x)) is the gap.
    inverse = torch.linalg.inv(jacobian)
    posterior = torch.linalg.inv(torch.eye(4).double() + inverse.mT @ inverse / sigma**2)
    mean = (x - gaussian.mean.detach()) @ inverse / sigma**2 @ posterior
    root = model.encoder.scale(jacobian, model.decoder.std).dense()
    q = [torch.distributions.MultivariateNormal(flow.transform(row)[0].detach(), scale_tril=root) for row in x]
    p = [torch.distributions.MultivariateNormal(row, posterior) for row in mean]
    divergence = torch.stack([torch.distributions.kl_divergence(a, b) for a, b in zip(q, p, strict=True)])
    torch.testing.assert_close(exact - elbo, divergence, rtol=1e-6, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------------------
# The diagonal encoder
# ---------------------------------------------------------------------------------------------------------------------


def jacobian_of_the_inverse(flow: Flow, z: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda z: flow.transform.inverse(z)[0], z)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("features", [2, 8])
def test_the_best_diagonal_encoder_leaves_the_stated_gap(
    name: str, features: int, generator: Generator, record_measurement: Record
) -> None:
    flow = FLOWS[name](generator, features)
    x = flow.sample(8, generator=generator).detach()
    with torch.no_grad():
        noise = normal(generator, 4000, 1, features)
        log_p = flow.log_prob(x)
        model = GaussianRelaxation(flow, 1e-5, DiagonalJacobianEncoder)
        claimed = model.limiting_gap(x)
        log_weights = model.log_weights_at(x, torch.cat([noise, -noise]))
    metric = torch.stack(
        [g.mT @ g for g in (jacobian_of_the_inverse(flow, flow.transform(row)[0].detach()) for row in x)]
    )
    expected = 0.5 * (metric.diagonal(dim1=-2, dim2=-1).log().sum(-1) - torch.linalg.slogdet(metric).logabsdet)
    record_measurement("diagonal encoder's limiting gap = its formula", float((claimed - expected).abs().max()), 1e-9)
    assert expected.max() > 0.01
    error = log_weights.std(0) / math.sqrt(len(log_weights))
    assert ((log_p - log_weights.mean(0) - expected).abs() <= 4.5 * error + 1e-7).all()
    # The spread of log-weights stays, too: that of the quadratic form ½ εᵀ(I − B)ε, B = SᵀAS/σ².
    scale = model.encoder.at(x)[1].dense() / 1e-5
    form = scale.mT @ metric @ scale
    trace = form.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(trace, torch.full_like(trace, float(features)), rtol=1e-9, atol=1e-9)
    spread = (0.5 * (form - torch.eye(features).double()).square().sum((-2, -1))).sqrt()
    torch.testing.assert_close(log_weights.std(0), spread, rtol=0.2, atol=1e-2)


def test_no_other_diagonal_is_better(generator: Generator) -> None:
    flow = linear(LULinear, generator, 4)
    model = GaussianRelaxation(flow, 1e-4, DiagonalJacobianEncoder)
    x = normal(generator, 1, 4)
    g = jacobian_of_the_inverse(flow, flow.transform(x[0])[0].detach())
    metric = g.mT @ g
    best = model.encoder.at(x)[1].dense()[0].diagonal().detach() / 1e-4

    def divergence(std: Tensor) -> Tensor:
        variances = std.square()
        return 0.5 * ((metric.diagonal() * variances).sum() - 4 - variances.log().sum() - torch.logdet(metric))

    assert divergence(best) == pytest.approx(model.limiting_gap(x).item(), abs=1e-10)
    for _ in range(50):
        other = best * (0.3 * normal(generator, 4)).exp()
        assert divergence(other) > divergence(best)


@pytest.mark.parametrize("encoder", [JacobianEncoder, DiagonalJacobianEncoder])
def test_a_rotation_is_tight(encoder: type[JacobianEncoder], generator: Generator) -> None:
    """Also with a scale for each latent: A = J_gᵀJ_g is diagonal whenever g turns last."""
    rotation = torch.linalg.qr(normal(generator, 5, 5))[0]
    noise = normal(generator, 50, 1, 5)
    x = normal(generator, 3, 5)
    for stretch in (torch.ones(5).double(), torch.linspace(0.5, 3, 5).double()):
        flow = Flow(StandardNormal(5).double(), QRLinear.from_matrix(stretch.diag() @ rotation))
        model = GaussianRelaxation(flow, 1e-5, encoder)
        assert model.limiting_gap(x).abs().max() < 1e-12
        log_weights = model.log_weights_at(x, torch.cat([noise, -noise]))
        assert (log_weights.mean(0) - flow.log_prob(x)).abs().max() < 1e-8
        assert log_weights.std(0).max() < 1e-3
    # Turning first is another matter: A = Rᵀ diag⁻² R.
    flow = Flow(StandardNormal(5).double(), LULinear.from_matrix(rotation @ stretch.diag()))
    limit = GaussianRelaxation(flow, 1e-5, encoder).limiting_gap(x)
    assert (limit == 0).all() if encoder is JacobianEncoder else (limit > 0.1).all()


def test_a_permutation_changes_nothing(generator: Generator) -> None:
    flow = Flow(StandardNormal(3).double(), Permutation([2, 0, 1]))
    model = GaussianRelaxation(flow, 1e-3, DiagonalJacobianEncoder)
    assert model.limiting_gap(normal(generator, 4, 3)).abs().max() == 0
