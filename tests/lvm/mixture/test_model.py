"""GaussianMixture as a density and as a latent-variable model."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Generator

from lvm.evidence import gap
from lvm.mixture.covariance import Covariance, Full, Tied
from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture
from tests.lvm.mixture.mixtures import STRUCTURES, dense, random_mixture

pytestmark = pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)


def test_log_prob_is_scipys(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    x = 3 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    components = zip(model.weights.tolist(), model.means.detach().numpy(), dense(model).numpy(), strict=True)
    joint = [np.log(weight) + multivariate_normal(mean, sigma).logpdf(x.numpy()) for weight, mean, sigma in components]
    # 3 features, condition numbers below 1e3: 1e-10 leaves room for scipy's eigendecomposition
    np.testing.assert_allclose(model.log_prob(x).detach().numpy(), logsumexp(joint, axis=0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        model.posterior(x).detach().numpy(), np.exp(joint - logsumexp(joint, axis=0)).T, rtol=1e-8, atol=1e-12
    )


def test_a_large_batch_is_evaluated_in_chunks_of_the_same_value(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator, features=2, components=64)
    x = torch.randn(3, 4096, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x)[1, 17:19], model.log_prob(x[1, 17:19]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("features", [1, 2])
def test_mass_is_one(covariance: Covariance, features: int, generator: Generator) -> None:
    model = random_mixture(covariance, generator, features=features, components=3, spread=1.0)
    reach = model.means.abs().max().item() + 9 * dense(model).diagonal(dim1=1, dim2=2).max().sqrt().item()
    axis = torch.linspace(-reach, reach, 20_001 if features == 1 else 1_201, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * features).reshape(-1, features)
    with torch.no_grad():
        mass = model.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** features
    # The trapezoid rule converges exponentially for Gaussians; 9 standard deviations leave 1e-18 outside.
    assert mass.item() == pytest.approx(1, abs=1e-8)


def test_samples_have_the_moments_of_the_mixture(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    n = 40_000
    x, log_prob = model.sample_with_log_prob(n, generator=generator)
    torch.testing.assert_close(log_prob, model.log_prob(x))
    x, weights, means = x.detach(), model.weights.detach(), model.means.detach()
    mean = weights @ means
    centred = means - mean
    covariance_of_x = torch.einsum("k,kij->ij", weights, dense(model) + centred.unsqueeze(2) * centred.unsqueeze(1))
    product = (x - mean).unsqueeze(2) * (x - mean).unsqueeze(1)
    assert ((x.mean(0) - mean).abs() <= 5 * x.std(0) / n**0.5).all()
    assert ((product.mean(0) - covariance_of_x).abs() <= 5 * product.std(0) / n**0.5).all()


def test_the_decoder_draws_from_the_component_that_it_is_told(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    z = model.prior.enumerate()[torch.tensor([2, 0, 2, 3])]
    n = 20_000
    x, log_prob = model.decoder.sample_with_log_prob(n, context=z, generator=generator)
    assert x.shape == (n, 4, 3)
    torch.testing.assert_close(log_prob, model.decoder.log_prob(x, z))
    x, sigma = x.detach(), dense(model)[[2, 0, 2, 3]]
    assert ((x.mean(0) - model.means.detach()[[2, 0, 2, 3]]).abs() <= 5 * x.std(0) / n**0.5).all()
    # not the variance, as in pomegranate 1.1: the standard deviation's own error is sd/√(2n)
    std = sigma.diagonal(dim1=1, dim2=2).sqrt()
    assert ((x.std(0) - std).abs() <= 5 * std / (2 * n) ** 0.5).all()
    sample_sigma = torch.einsum("nki,nkj->kij", x - x.mean(0), x - x.mean(0)) / n
    scale = std.unsqueeze(2) * std.unsqueeze(1)
    assert ((sample_sigma - sigma).abs() <= 5 * scale * (2 / n) ** 0.5).all()


def test_log_weights_do_not_depend_on_the_latent_and_are_log_p(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator, spread=0.5)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    log_p = model.log_prob(x)
    z = model.prior.enumerate()
    every = model.log_joint(x.unsqueeze(1), z) - model.encoder.log_prob(z, x.unsqueeze(1))
    torch.testing.assert_close(every, log_p.unsqueeze(1).expand(7, 4), rtol=1e-12, atol=1e-12)
    weights = model.log_weights(x, 20, generator=generator)
    torch.testing.assert_close(weights, log_p.expand(20, 7), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.elbo(x), log_p, rtol=1e-12, atol=1e-12)
    found = gap(model, x, draws=5, generator=generator)
    assert abs(found.difference.mean) < 1e-12
    assert found.log_density.kind.value == "exact"


def test_the_posterior_is_bayes_rule(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    x = torch.randn(5, 6, 3, generator=generator, dtype=torch.float64)
    posterior = model.posterior(x)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(5, 6, dtype=torch.float64), rtol=1e-14, atol=1e-14)
    z = model.prior.enumerate()
    torch.testing.assert_close(model.encoder.log_prob(z, x.unsqueeze(-2)).exp(), posterior)
    assert torch.equal(model.predict(x), posterior.argmax(-1))
    far = torch.full((1, 3), 1e4, dtype=torch.float64)
    assert model.posterior(far).isfinite().all()


def test_every_parameter_gets_a_gradient_and_ascent_climbs(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    x = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    before = model.log_prob(x).mean()
    gradients = torch.autograd.grad(before, list(model.parameters()))
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.flatten(1).abs().sum(1).all() if gradient.ndim > 1 else gradient.all()
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter += 1e-3 * gradient
    slope = sum(gradient.square().sum() for gradient in gradients)
    assert (model.log_prob(x).mean() - before).item() == pytest.approx(1e-3 * float(slope), rel=0.05)


def test_gradients_are_autograds_of_finite_differences(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator, features=2, components=2)
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: model.log_prob(x), (x, *model.parameters()))


def test_copies_and_files_keep_the_density(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    expected = model.log_prob(x)
    assert set(model.state_dict()) == {"prior.logits", "decoder.means", "decoder.factor"}
    assert torch.equal(copy.deepcopy(model).log_prob(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model)).log_prob(x), expected)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = GaussianMixture(3, 4, covariance).double()
    fresh.load_state_dict(torch.load(buffer))
    assert torch.equal(fresh.log_prob(x), expected)
    rebuilt = GaussianMixture.from_parameters(model.weights, model.means, model.covariances, covariance)
    torch.testing.assert_close(rebuilt.log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_the_parameter_count_is_the_rank_of_the_model(covariance: Covariance, generator: Generator) -> None:
    """Independent directions in which log p can change at many points: the logits have one direction too many."""
    model = random_mixture(covariance, generator, features=2, components=3, spread=0.7)
    names, parameters = zip(*model.named_parameters(), strict=True)
    x = 2 * torch.randn(400, 2, generator=generator, dtype=torch.float64)

    def log_prob(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    model.forward = model.log_prob
    jacobian = torch.func.jacrev(log_prob, argnums=tuple(range(len(names))))(*parameters)
    rank = torch.linalg.matrix_rank(torch.cat([j.flatten(1) for j in jacobian], 1).detach(), rtol=1e-9)
    assert rank.item() == model.parameter_count


def test_information_criteria(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    total = model.log_prob(x).sum().item()
    assert model.aic(x) == pytest.approx(2 * model.parameter_count - 2 * total, rel=1e-12)
    assert model.bic(x) == pytest.approx(np.log(30) * model.parameter_count - 2 * total, rel=1e-12)


def test_bad_construction_is_one_clear_error(covariance: Covariance) -> None:
    with pytest.raises(ValueError, match="components must be a positive int"):
        GaussianMixture(2, 0, covariance)
    with pytest.raises(ValueError, match="features must be a positive int"):
        GaussianMixture(0, 2, covariance)
    with pytest.raises(TypeError, match=r"Full\(\), Tied\(\)"):
        GaussianMixture(2, 2, "full")  # type: ignore[arg-type]
    model = GaussianMixture(2, 2, covariance)
    with pytest.raises(ValueError, match=r"\[\*batch, 2\]; got \[3, 5\]"):
        model.log_prob(torch.zeros(3, 5))
    with pytest.raises(TypeError, match="floating point"):
        model.posterior(torch.zeros(3, 2, dtype=torch.int64))
    shape = covariance.shape(2, 2)
    half, means = torch.full((2,), 0.5), torch.zeros(2, 2)
    good = covariance.unpack(torch.zeros(shape))
    with pytest.raises(ValueError, match="positive with sum 1"):
        GaussianMixture.from_parameters(2 * half, means, good, covariance)
    with pytest.raises(ValueError, match="positive definite"):
        GaussianMixture.from_parameters(half, means, -good, covariance)
    with pytest.raises(ValueError, match="covariances must be a tensor of shape"):
        GaussianMixture.from_parameters(half, means, torch.ones(7, 7), covariance)
    with pytest.raises(ValueError, match="finite"):
        GaussianMixture.from_parameters(half, means * torch.nan, good, covariance)
    if covariance.dense:
        indefinite = good + torch.tensor([[0.0, 2.0], [2.0, 0.0]])
        with pytest.raises(ValueError, match="positive definite"):
            GaussianMixture.from_parameters(half, means, indefinite, covariance)
        skew = good + torch.tensor([[0.0, 0.5], [0.0, 0.0]])
        with pytest.raises(ValueError, match="symmetric"):
            GaussianMixture.from_parameters(half, means, skew, covariance)


def test_float32_log_prob_is_close_to_float64(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    expected = model.log_prob(x)
    # 1e2 for the size of squared distances at these parameters, times float32's 6e-8
    torch.testing.assert_close(model.float().log_prob(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


def test_bic_does_not_know_the_structure_in_one_dimension(covariance: Covariance, generator: Generator) -> None:
    x = torch.cat([torch.randn(60, 1, generator=generator), 5 + torch.randn(60, 1, generator=generator)]).double()
    values = []
    for structure in (Full(), covariance):
        components = 1 if covariance == Tied() else 2  # one variance for two components is another model
        model = GaussianMixture(1, components, structure)
        model.fit(x, em=EM(tolerance=0, max_iterations=200), generator=Generator().manual_seed(1))
        values.append(model.bic(x))
    assert values[0] == pytest.approx(values[1], rel=1e-10)
