"""ELBO gradients: each estimator against the exact gradient of its own bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from density import kl
from lvm import PPCA, VAE, GaussianMixture
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradient_quality import GradientQuality, gradient_quality
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
from tests.lvm.vae.gradient_examples import (
    EVERY_ESTIMATOR,
    PATHWISE,
    SCALAR_X,
    EnumerableVAE,
    exact_gradient,
    flat,
    importance_weighted_bound,
    linear_vae,
    scalar_log_weights,
    scalar_vae,
)

Record = Callable[[str, float, float], None]

ELBO_ESTIMATORS = (
    ScoreFunction(2),
    LeaveOneOut(3),
    Reparametrised(2),
    AnalyticKL(2),
    StickingTheLanding(3),
)


def test_the_quadrature_oracle(record_measurement: Record) -> None:
    model, x = scalar_vae(), torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)
    parameters = list(model.parameters())
    one, closed = importance_weighted_bound(model, x, 1), model.elbo_closed_form(x)
    record_measurement("IWAE quadrature, K = 1: bound vs closed form", (one - closed).abs().max().item(), 1e-10)
    error = exact_gradient(one, parameters) - exact_gradient(closed, parameters)
    record_measurement("IWAE quadrature, K = 1: gradient vs closed form", error.abs().max().item(), 1e-10)
    nodes, masses = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(80))
    log_w = scalar_log_weights(model, x, nodes)
    pairs = torch.logaddexp(log_w[:, None], log_w) - math.log(2)
    two = torch.einsum("i,j,ijn->n", masses, masses, pairs) / (2 * math.pi)
    other = importance_weighted_bound(model, x, 2)
    record_measurement("IWAE quadrature, K = 2: vs Gauss-Hermite", (other - two).abs().max().item(), 1e-10)
    error = exact_gradient(other, parameters) - exact_gradient(two, parameters)
    record_measurement("IWAE quadrature, K = 2: gradient vs Gauss-Hermite", error.abs().max().item(), 1e-10)
    assert bool((one < two).all())


def require_unbiased(quality: GradientQuality, name: str, record: Record) -> None:
    record(f"gradient, {name}: standard errors from exact", quality.deviation.abs().max().item(), 4)


@pytest.mark.parametrize("estimator", ELBO_ESTIMATORS, ids=lambda e: type(e).__name__)
def test_unbiased_for_the_elbo(estimator: GradientEstimator, generator: Generator, record_measurement: Record) -> None:
    model = linear_vae(generator)
    x = model.sample(3, generator=generator).detach()
    bound = model.elbo_closed_form(x)
    reference = exact_gradient(bound, list(model.parameters()))
    quality = gradient_quality(estimator, model, x, repeats=40_000, reference=reference, generator=generator)
    assert quality.vectorised
    require_unbiased(quality, type(estimator).__name__, record_measurement)
    assert abs(quality.bound - bound.mean().item()) < 4 * quality.bound_error
    # the comparison could have failed: the largest entry is many standard errors from 0
    assert (reference.abs() / quality.standard_error).max() > 20


@pytest.mark.parametrize("draws", [1, 2, 8])
@pytest.mark.parametrize("kind", [ImportanceWeighted, DoublyReparametrised])
def test_unbiased_for_the_importance_weighted_bound(
    kind: type[ImportanceWeighted] | type[DoublyReparametrised],
    draws: int,
    generator: Generator,
    record_measurement: Record,
) -> None:
    model, x = scalar_vae(), torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    bound = importance_weighted_bound(model, x, draws)
    reference = exact_gradient(bound, list(model.parameters()))
    quality = gradient_quality(kind(draws), model, x, repeats=40_000, reference=reference, generator=generator)
    assert quality.vectorised
    require_unbiased(quality, kind.__name__, record_measurement)
    assert abs(quality.bound - bound.mean().item()) < 4 * quality.bound_error


def test_sticking_the_landing_is_biased_for_the_importance_weighted_bound(generator: Generator) -> None:
    model = scalar_vae()
    bound = importance_weighted_bound(model, SCALAR_X, 8)
    qualities = {
        part: gradient_quality(
            StickingTheLanding(8, importance_weighted=True),
            model,
            SCALAR_X,
            repeats=20_000,
            parameters=parameters,
            reference=flat(torch.autograd.grad(bound.mean(), parameters, retain_graph=True)),
            generator=generator,
        )
        for part, parameters in (("encoder", [*model.encoder.parameters()]), ("decoder", [*model.decoder.parameters()]))
    }
    assert qualities["encoder"].deviation.abs().max() > 5
    assert qualities["decoder"].deviation.abs().max() < 4
    assert abs(qualities["encoder"].bound - bound.mean().item()) < 4 * qualities["encoder"].bound_error


def test_the_wrong_gradient_is_biased_in_the_encoder_alone(generator: Generator) -> None:
    model = linear_vae(generator)
    x = model.sample(3, generator=generator).detach()
    bound = model.elbo_closed_form(x)
    for part, biased in ((model.encoder, True), (model.decoder, False)):
        parameters = list(part.parameters())
        reference = flat(torch.autograd.grad(bound.mean(), parameters, retain_graph=True))
        quality = gradient_quality(
            WrongGradient(),
            model,
            x,
            repeats=20_000,
            parameters=parameters,
            reference=reference,
            generator=generator,
        )
        assert abs(quality.bound - bound.mean().item()) < 4 * quality.bound_error
        if biased:
            # its encoder gradient is that of −KL, without noise: every standard error is 0
            divergence = kl(model.encoder, model.prior, context=x)
            assert divergence is not None
            torch.testing.assert_close(quality.mean, -exact_gradient(divergence, parameters), rtol=1e-12, atol=1e-14)
            assert (quality.deviation.abs() > 5).all()
            assert quality.bias.norm() > 0.5 * reference.norm()
        else:
            assert quality.deviation.abs().max() < 4


def test_the_wrong_gradient_with_a_sampled_kl_is_biased(generator: Generator) -> None:
    model = with_mixture_prior(generator)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    parameters = list(model.encoder.parameters())
    right = gradient_quality(StickingTheLanding(), model, x, repeats=4000, parameters=parameters, generator=generator)
    wrong = gradient_quality(WrongGradient(), model, x, repeats=4000, parameters=parameters, generator=generator)
    error = (right.standard_error.square() + wrong.standard_error.square()).sqrt()
    assert ((wrong.mean - right.mean) / error).abs().max() > 5


def test_single_gradients_are_their_formulas() -> None:
    """With the noise known, every gradient in the encoder's shift b and log-scale s follows by hand."""
    model, k = scalar_vae(), 5
    noise = torch.randn(k, 1, 1, generator=Generator().manual_seed(3), dtype=torch.float64).squeeze(-1)
    weight, sigma = model.decoder.weight.item(), model.decoder.log_std.exp().item()
    std = model.encoder.log_std.exp().item()
    mean = model.encoder.at(SCALAR_X)[0].item()
    z = mean + std * noise
    residual = SCALAR_X - model.decoder.mean.detach() - weight * z
    log_w = scalar_log_weights(model, SCALAR_X, noise.squeeze(-1)).detach()
    slope_in_z = -z + weight * residual / sigma**2 + (z - mean) / std**2
    normalised = log_w.softmax(0)
    # score: d log q/db = (z − m)/s², d log q/d log s = ε² − 1; path: dz/db = 1, dz/d log s = s ε
    score = torch.cat([noise / std, noise.square() - 1], -1)
    path = slope_in_z * torch.cat([torch.ones_like(noise), std * noise], -1)
    others = (log_w.sum(0) - log_w) / (k - 1)
    expected: list[tuple[GradientEstimator, Tensor]] = [
        (ScoreFunction(k), (log_w * score).mean(0)),
        (LeaveOneOut(k), ((log_w - others) * score).mean(0)),
        (Reparametrised(k), (path - score).mean(0)),
        (StickingTheLanding(k), path.mean(0)),
        (StickingTheLanding(k, importance_weighted=True), (normalised * path).sum(0)),
        (ImportanceWeighted(k), (normalised * (path - score)).sum(0)),
        (DoublyReparametrised(k), (normalised.square() * path).sum(0)),
        (WrongGradient(k), torch.tensor([-mean, 1 - std**2], dtype=torch.float64)),
    ]
    shift = -residual / sigma**2  # −d log p/dμ
    for estimator, gradient in expected:
        bound = estimator(model, SCALAR_X, Generator().manual_seed(3))
        weighted = isinstance(estimator, ImportanceWeighted | DoublyReparametrised) or gradient is expected[4][1]
        value = log_w.logsumexp(0) - math.log(k) if weighted else log_w.mean(0)
        if not isinstance(estimator, WrongGradient):  # whose KL term is in closed form
            torch.testing.assert_close(bound.detach(), value, rtol=1e-12, atol=0)
        parameters = [model.encoder.bias, model.encoder.log_std, model.decoder.mean]
        found = flat(torch.autograd.grad(bound.sum(), parameters))
        torch.testing.assert_close(found[:2], gradient, rtol=1e-11, atol=1e-13)
        by_hand = -((normalised if weighted else torch.full_like(normalised, 1 / k)) * shift).sum()
        torch.testing.assert_close(found[2], by_hand, rtol=1e-11, atol=1e-13)


def test_analytic_kl_is_the_reparametrised_elbo_terms(generator: Generator) -> None:
    model = linear_vae(generator)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    terms = model.elbo_terms(x, draws=3, generator=Generator().manual_seed(1))
    for beta in (1.0, 0.3):
        bound = AnalyticKL(3, kl_weight=beta)(model, x, Generator().manual_seed(1))
        torch.testing.assert_close(bound, terms.reconstruction - beta * terms.kl, rtol=1e-14, atol=0)
        parameters = list(model.parameters())
        expected = torch.autograd.grad((terms.reconstruction - beta * terms.kl).sum(), parameters, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(bound.sum(), parameters), expected, rtol=1e-12, atol=1e-13)


def with_mixture_prior(generator: Generator) -> VAE:
    prior = GaussianMixture(2, 3).double()
    with torch.no_grad():
        prior.decoder.means.copy_(torch.randn(3, 2, generator=generator, dtype=torch.float64))
    model = VAE.gaussian(4, 2, hidden=(5,), prior=prior, standardise=False).double()
    assert kl(model.encoder, prior, context=torch.zeros(1, 4, dtype=torch.float64)) is None
    return model


def test_without_a_closed_form_the_kl_is_sampled(generator: Generator) -> None:
    model = with_mixture_prior(generator)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    parameters = list(model.parameters())
    analytic, sampled = (e(model, x, Generator().manual_seed(1)) for e in (AnalyticKL(3), Reparametrised(3)))
    torch.testing.assert_close(analytic, sampled, rtol=1e-13, atol=0)
    first, second = (torch.autograd.grad(bound.sum(), parameters) for bound in (analytic, sampled))
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", [e for e in EVERY_ESTIMATOR if not isinstance(e, WrongGradient)], ids=repr)
def test_an_encoder_that_shares_the_decoders_parameters(estimator: GradientEstimator, generator: Generator) -> None:
    """PPCA's encoder is a view of its decoder, and every bound is log p(x): all are unbiased for its gradient."""
    model = PPCA(4, 2).double()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(0.7 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reference = exact_gradient(model.log_prob(x), list(model.parameters()))
    quality = gradient_quality(estimator, model, x, repeats=5000, reference=reference, generator=generator)
    if isinstance(estimator, Reparametrised | ImportanceWeighted):  # log w = log p(x) for all parameters: no noise
        torch.testing.assert_close(quality.mean, reference, rtol=1e-10, atol=1e-10)
    else:
        assert quality.deviation.abs().max() < 4
    if not isinstance(estimator, AnalyticKL):
        assert quality.bound == pytest.approx(model.log_prob(x).mean().item(), rel=1e-12)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("estimator", [ScoreFunction(), LeaveOneOut(3)], ids=repr)
def test_score_functions_take_discrete_latents(
    estimator: GradientEstimator, generator: Generator, record_measurement: Record
) -> None:
    model = EnumerableVAE().double()
    with torch.no_grad():
        model.prior.logits.copy_(torch.randn(3, generator=generator, dtype=torch.float64))
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    bound = model.exact_elbo(x)
    reference = exact_gradient(bound, list(model.parameters()))
    quality = gradient_quality(estimator, model, x, repeats=20_000, reference=reference, generator=generator)
    require_unbiased(quality, f"{type(estimator).__name__}, discrete latent", record_measurement)
    assert abs(quality.bound - bound.mean().item()) < 4 * quality.bound_error


@pytest.mark.parametrize("estimator", PATHWISE, ids=repr)
def test_pathwise_estimators_refuse_draws_without_a_path(estimator: GradientEstimator, generator: Generator) -> None:
    x = torch.zeros(3, 2, dtype=torch.float64)
    mixture = GaussianMixture(2, 3).double()
    for model in (EnumerableVAE().double(), mixture):
        with pytest.raises(TypeError, match="do not depend on its parameters by a differentiable path"):
            estimator(model, x, generator)
        with pytest.raises(TypeError, match="Use ScoreFunction"):
            gradient_quality(estimator, model, x, repeats=2, generator=generator)
    with torch.no_grad():  # the value needs no path
        assert estimator(mixture, x, generator).shape == (3,)


@pytest.mark.parametrize("estimator", EVERY_ESTIMATOR, ids=repr)
def test_single_precision(estimator: GradientEstimator, generator: Generator) -> None:
    model = linear_vae(generator)
    x = torch.randn(2, 3, 4, generator=generator)
    bound = estimator(model.float(), x, generator)
    assert bound.dtype == torch.float32
    assert bound.shape == (2, 3)
    bound.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("kind", [ScoreFunction, Reparametrised, ImportanceWeighted, DoublyReparametrised, AnalyticKL])
@pytest.mark.parametrize("draws", [0, -1, 2.0, True])
def test_bad_draws(kind: type[ScoreFunction], draws: int) -> None:
    with pytest.raises(ValueError, match="draws must be a positive int"):
        kind(draws)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="at least 2 draws"):
        LeaveOneOut(1)
    for weight in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="kl_weight must be finite"):
            AnalyticKL(kl_weight=weight)


def test_bad_arguments(generator: Generator) -> None:
    model = linear_vae(generator)
    x = torch.zeros(3, 4, dtype=torch.float64)
    with pytest.raises(TypeError, match="needs a LatentVariableModel"):
        Reparametrised()(nn.Linear(2, 2), x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[\*batch, 4\]; got \[3, 2\]"):
        Reparametrised()(model, x[:, :2])
    with pytest.raises(TypeError, match="float32"):
        Reparametrised()(model, x.float())
