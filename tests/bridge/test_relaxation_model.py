"""A relaxed flow is a genuine latent-variable model: its laws, its densities, its gradients, its refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from bridge import DiagonalJacobianEncoder, FlowVAE, GaussianRelaxation
from bridge.conversions.nflows_transforms import FromNflows
from density import Kind, StandardNormal, Training, kl
from flows import (
    Chain,
    Flow,
    Logit,
    LULinear,
    QRLinear,
    Sigmoid,
    Transform,
    glow,
    iaf,
    linear_flow,
    maf,
    random_rotation,
    real_nvp,
)
from lvm import LayeredModel
from lvm.evidence import gap
from tests.bridge.comparison import Record, normal
from tests.bridge.relaxed import FLOWS, blurred, gaussian_of
from tests.laws.bounds import BoundCase, bound_laws
from tests.laws.transforms import randomise


def blurred_gaussian(model: LayeredModel, x: Tensor) -> Tensor:
    assert isinstance(model, GaussianRelaxation)
    flow = Flow(model.prior, model.decoder.transform)
    gaussian = gaussian_of(flow)
    covariance = gaussian.covariance.detach() + model.sigma**2 * torch.eye(model.features).double()
    density = stats.multivariate_normal(gaussian.mean.detach().numpy(), covariance.numpy())
    return torch.as_tensor(density.logpdf(x.numpy()), dtype=x.dtype)


def blurred_flow(model: LayeredModel, x: Tensor) -> Tensor:
    assert isinstance(model, GaussianRelaxation)
    with torch.no_grad():
        return blurred(Flow(model.prior, model.decoder.transform), x, model.sigma, 61)


CASES = {
    "linear": BoundCase(
        lambda g: GaussianRelaxation(randomise(linear_flow(3), g, 0.1), 0.4),
        blurred_gaussian,
    ),
    "linear, diagonal": BoundCase(
        lambda g: GaussianRelaxation(randomise(linear_flow(3, QRLinear), g, 0.1), 0.5, DiagonalJacobianEncoder),
        blurred_gaussian,
    ),
    "coupling": BoundCase(
        lambda g: GaussianRelaxation(randomise(real_nvp(2, 2, (6,), base=StandardNormal), g, 0.2), 0.3),
        blurred_flow,
    ),
    "autoregressive": BoundCase(
        lambda g: GaussianRelaxation(randomise(maf(2, 2, (6,), linear=None, base=StandardNormal), g, 0.2), 0.3),
        blurred_flow,
    ),
}


@pytest.mark.parametrize("law", bound_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", CASES)
def test_bound_law(name: str, law: Callable[[BoundCase, Generator], None], generator: Generator) -> None:
    law(CASES[name], generator)


@pytest.mark.parametrize(
    "make",
    [FLOWS["coupling"], FLOWS["autoregressive"], lambda g, d: randomise(iaf(d, 2, (8,), base=StandardNormal), g, 0.3)],
)
def test_the_encoder_is_the_linearised_image_of_noise(make: Callable[..., Flow], generator: Generator) -> None:
    flow = make(generator, 2)
    model = GaussianRelaxation(flow, 0.05)
    x = normal(generator, 2, 4, 2)
    mean, scale = model.encoder.at(x)
    torch.testing.assert_close(mean, flow.transform(x)[0])
    covariance = scale.dense() @ scale.dense().mT
    for index in np.ndindex(2, 4):
        jacobian = torch.autograd.functional.jacobian(lambda row: flow.transform(row)[0], x[index])
        torch.testing.assert_close(covariance[index], 0.05**2 * jacobian @ jacobian.mT, rtol=1e-10, atol=1e-14)
    # KL to the prior, of the full covariance, against torch's own.
    q = torch.distributions.MultivariateNormal(mean, scale_tril=scale.dense())
    prior = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    divergence = kl(model.encoder, model.prior, context=x)
    assert divergence is not None
    torch.testing.assert_close(divergence, torch.distributions.kl_divergence(q, prior))
    z = model.encoder.sample(20_000, context=x[0, 0], generator=generator).detach()
    size = covariance[0, 0].diagonal().sqrt()
    # The standard error of an entry is at most size_i size_j √(2/20,000), 1 %.
    assert ((z.T.cov() - covariance[0, 0]) / torch.outer(size, size)).abs().max() < 0.05
    y = model.decoder.sample(20_000, context=z[0], generator=generator)
    assert y.std(0).tolist() == pytest.approx([0.05, 0.05], rel=0.05)


def test_weights_at_given_noise_are_the_weights(generator: Generator) -> None:
    model = GaussianRelaxation(FLOWS["coupling"](generator, 2), 0.2)
    x = normal(generator, 5, 2)
    drawn = model.log_weights(x, 7, generator=Generator().manual_seed(3))
    noise = torch.randn(7, 5, 2, generator=Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(model.log_weights_at(x, noise), drawn, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.log_weights_at(x[0], noise[:, 0]), drawn[:, 0], rtol=1e-10, atol=1e-10)
    one = model.log_weights_at(x, noise[:, :1])
    torch.testing.assert_close(one[:, 0], drawn[:, 0], rtol=1e-10, atol=1e-10)
    assert one.shape == (7, 5)


def test_gradients_tend_to_the_likelihoods(generator: Generator, record_measurement: Record) -> None:
    """Through Jacobian, QR decomposition and inverse: the gradient of the ELBO is that of log p, up to O(σ²)."""
    flow = Flow(StandardNormal(3), Chain(real_nvp(3, 2, (8,)).transform, QRLinear(3), maf(3, 2, (8,)).transform))
    flow = randomise(flow, generator, 0.15)
    x = flow.sample(16, generator=generator).detach()
    parameters = list(flow.parameters())
    noise = normal(generator, 32, 16, 3)
    expected = torch.autograd.grad(flow.log_prob(x).mean(), parameters)
    errors = []
    for sigma in (1e-2, 1e-3):
        elbo = GaussianRelaxation(flow, sigma).log_weights_at(x, torch.cat([noise, -noise])).mean()
        gradients = torch.autograd.grad(elbo, parameters)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(gradients, expected, strict=True)))
    assert max(float(g.abs().max()) for g in expected) > 0.1
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)
    record_measurement("gradient of ELBO(1e-3) − gradient of log p", errors[1], 1e-4)


class Spy(Transform):
    """z = sinh x; counts its calls."""

    features = 3

    def __init__(self) -> None:
        super().__init__()
        self.forwards: list[torch.Size] = []
        self.inverses: list[torch.Size] = []

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.forwards.append(x.shape)
        return x.sinh(), x.cosh().log().sum(-1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        self.inverses.append(z.shape)
        return z.asinh(), -z.asinh().cosh().log().sum(-1)


def test_all_points_and_draws_go_together(generator: Generator) -> None:
    spy = Spy()
    model = GaussianRelaxation(Flow(StandardNormal(3).double(), spy), 0.1)
    model.log_weights(normal(generator, 7, 3), 50, generator=generator)
    assert spy.forwards == [(7, 3)]
    assert spy.inverses == [(50, 7, 3)]


def test_parameters_are_the_flows_and_kept_once(generator: Generator) -> None:
    flow = FLOWS["coupling"](generator, 2)
    model = GaussianRelaxation(flow, 0.5)
    assert {id(p) for p in model.parameters()} == {id(p) for p in flow.parameters()}
    state = model.state_dict()
    assert len(state) == len(flow.state_dict()) + 1
    other = GaussianRelaxation(FLOWS["coupling"](generator, 2), 0.1)
    other.load_state_dict(state)
    assert other.sigma == 0.5
    x = normal(generator, 4, 2)
    noise = normal(generator, 3, 4, 2)
    assert other.log_weights_at(x, noise).equal(model.log_weights_at(x, noise))
    assert deepcopy(model).log_weights_at(x, noise).equal(model.log_weights_at(x, noise))


def test_it_is_the_blurred_flow_and_says_so(generator: Generator) -> None:
    flow = FLOWS["coupling"](generator, 2)
    model = GaussianRelaxation(flow, 0.2)
    x = normal(generator, 50, 2)
    claim = model.log_density(x, draws=200, generator=generator)
    assert claim.kind is Kind.LOWER
    report = gap(model, x, draws=200, generator=generator)
    assert report.difference.kind is Kind.LOWER
    assert not isinstance(model, FlowVAE)
    assert not hasattr(model, "log_prob")
    draws = model.sample(20_000, generator=Generator().manual_seed(4))
    sharp = flow.transform.inverse(model.prior.sample(20_000, generator=Generator().manual_seed(4)))[0]
    blur = (draws - sharp).detach()
    assert (blur.T.cov() / 0.04 - torch.eye(2).double()).abs().max() < 0.05
    assert (blur[:, :1] * sharp).mean(0).abs().max() < 0.05


def test_fit_maximises_the_elbo(generator: Generator) -> None:
    """For a linear flow the mean ELBO is log det J − ½ tr JᵀJ(S + σ²I) for data of covariance S: JᵀJ = (S + σ²I)⁻¹."""
    model = GaussianRelaxation(linear_flow(2), 0.8)
    root = torch.tensor([[1.5, 0.0], [0.8, 1.2]], dtype=torch.float64)
    x = 3 + normal(generator, 2000, 2) @ root.mT
    history = model.fit(x, Training(epochs=60, batch_size=250, learning_rate=3e-2), generator=generator)
    assert model.decoder.std.dtype == torch.float64
    assert history.objective[-1] > history.objective[0]
    flow = Flow(model.prior, model.decoder.transform)
    gaussian = gaussian_of(flow)
    assert (gaussian.mean - 3).abs().max() < 0.2
    expected = x.T.cov() + 0.64 * torch.eye(2).double()
    assert (gaussian.covariance - expected).abs().max() < 0.3  # where Adam is after 480 steps


def test_fit_starts_from_the_data_and_moves_to_it(generator: Generator) -> None:
    model = GaussianRelaxation(real_nvp(3, 2, (4,)), 0.1)
    x = 50 + normal(generator, 100, 3)
    model.fit(x, Training(epochs=1), generator=generator)
    assert model.prior.reference.dtype == torch.float64
    assert (model.encoder.at(x)[0].mean(0)).abs().max() < 1


def test_borrowed_splines_and_float32(generator: Generator) -> None:
    from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform

    spline = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        3, 8, num_bins=5, tails="linear", tail_bound=4.0, num_blocks=1
    )
    flow = randomise(Flow(StandardNormal(3), Chain(FromNflows(spline, 3), LULinear(3))), generator, 0.2)
    x = normal(generator, 10, 3)
    noise = normal(generator, 20, 10, 3)
    error = GaussianRelaxation(flow, 1e-4).log_weights_at(x, torch.cat([noise, -noise])).mean(0) - flow.log_prob(x)
    assert error.abs().max() < 1e-3  # a spline's second derivative jumps at its knots
    flow = randomise(glow(3, 2, (8,), linear=random_rotation(generator)), generator, 0.1)
    model = GaussianRelaxation(flow.float(), 0.05)
    log_weights = model.log_weights(x.float(), 4, generator=generator)
    double = deepcopy(model).double()
    reference = double.log_weights_at(x, normal(generator, 4, 10, 3))
    assert log_weights.dtype == torch.float32
    assert (log_weights.double().mean() - reference.mean()).abs() < 1


def test_a_transform_without_parameters(generator: Generator) -> None:
    """σ and the base give dtype and device."""
    model = GaussianRelaxation(Flow(StandardNormal(2).double(), Sigmoid()), 1e-4)
    x = normal(generator, 5, 2)
    noise = 0.5 * normal(generator, 10, 5, 2)
    log_weights = model.log_weights_at(x, torch.cat([noise, -noise]))
    error = log_weights.mean(0) - Flow(StandardNormal(2).double(), Sigmoid()).log_prob(x)
    assert error.abs().max() < 1e-5


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_sigma_is_positive(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"positive finite sigma; got .*The limit sigma = 0 is FlowVAE"):
        GaussianRelaxation(linear_flow(2), sigma)


def test_misuse_is_one_clear_error(generator: Generator) -> None:
    with pytest.raises(TypeError, match="takes a Flow; got LULinear"):
        GaussianRelaxation(LULinear(3), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a context of 2 features"):
        GaussianRelaxation(glow(3, 2, (4,), context_features=2), 0.1)
    with pytest.raises(TypeError, match="sigma to be a number; got str"):
        GaussianRelaxation(linear_flow(2), "0.1")  # type: ignore[arg-type]
    model = GaussianRelaxation(FLOWS["coupling"](generator, 2), 0.1)
    x = normal(generator, 4, 2)
    with pytest.raises(ValueError, match=r"as noise, expects x of shape \[\*batch, 2\]; got \[3, 4, 5\]"):
        model.log_weights_at(x, normal(generator, 3, 4, 5))
    with pytest.raises(TypeError, match=r"as noise, computes in torch\.float64"):
        model.log_weights_at(x, normal(generator, 3, 4, 2).float())
    with pytest.raises(ValueError, match=r"expects x of shape \[\*batch, 2\]"):
        model.limiting_gap(normal(generator, 4, 3))


def test_a_point_that_the_flow_does_not_take_is_refused_where_it_enters() -> None:
    model = GaussianRelaxation(Flow(StandardNormal(2).double(), Logit()), 1e-3)
    x = torch.tensor([[0.2, 0.3], [1.5, 0.5]], dtype=torch.float64)
    assert (model.log_weights(x, 2)[:, 1] == -torch.inf).all()
    with pytest.raises(ValueError, match=r"Logit expects values in \(0, 1\); the value at \[1, 0\] is 1\.5"):
        model.log_density(x)
