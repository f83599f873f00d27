"""PPCA of rows with missing entries: density, posterior, imputation, against dense algebra."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator, Tensor

from density import Kind
from lvm.ppca import ClosedForm, MissingEM
from lvm.ppca.model import PPCA
from tests.lvm.missing.incomplete import awkward, dense_conditional, holes
from tests.lvm.vae.linear_examples import covariance_of, random_ppca

Record = Callable[[str, float, float], None]


@pytest.mark.parametrize(("features", "latent_features", "n"), [(2, 1, 20), (6, 2, 60), (40, 5, 50), (70, 69, 9)])
def test_log_prob_is_scipys_of_the_observed_entries(
    features: int, latent_features: int, n: int, generator: Generator, record_measurement: Record
) -> None:
    model = random_ppca(features, latent_features, generator)
    x = awkward(3 * torch.randn(n, features, generator=generator, dtype=torch.float64), generator)
    mean, covariance = model.decoder.mean.detach().numpy(), covariance_of(model).numpy()
    found = model.observed.log_prob(x).detach().numpy()
    for row, value in zip(x.numpy(), found, strict=True):
        o = ~np.isnan(row)
        expected = multivariate_normal(mean[o], covariance[np.ix_(o, o)]).logpdf(row[o]) if o.any() else 0.0
        # As for complete rows: the eigendecomposition of a covariance of condition 1e3 loses about 1e3 ε.
        record_measurement("PPCA log p(x_o) vs scipy, relative", abs(value - expected) / max(1, abs(expected)), 1e-10)


def test_posterior_and_imputation_are_those_of_the_joint_gaussian(generator: Generator) -> None:
    model = random_ppca(6, 3, generator)
    x = awkward(3 * torch.randn(30, 6, generator=generator, dtype=torch.float64), generator)
    weight, mean, covariance = model.decoder.weight.detach(), model.decoder.mean.detach(), covariance_of(model)
    joint = torch.cat(
        [torch.cat([torch.eye(3, dtype=torch.float64), weight.mT], 1), torch.cat([weight, covariance], 1)]
    )
    joint_mean = torch.cat([torch.zeros(3, dtype=torch.float64), mean])
    posterior, imputed = model.observed.posterior(x), model.observed.impute(x)
    for i, row in enumerate(x):
        with_z = torch.cat([torch.full((3,), torch.nan, dtype=torch.float64), row])
        _, filled, spread = dense_conditional(with_z, joint_mean, joint)
        # Schur complements of matrices of condition ~1e2.
        torch.testing.assert_close(posterior.mean[i], filled[:3], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(posterior.covariance[i], spread[:3, :3], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(imputed.mean[i], filled[3:], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(imputed.variance[i], spread.diagonal()[3:], rtol=1e-11, atol=1e-12)
        assert torch.equal(imputed.mean[i][~row.isnan()], row[~row.isnan()])


def test_complete_rows_are_as_ever(generator: Generator) -> None:
    model = random_ppca(8, 3, generator)
    x = model.sample(40, generator=generator).detach().reshape(5, 8, 8)
    torch.testing.assert_close(model.observed.log_prob(x), model.log_prob(x), rtol=1e-13, atol=0)
    posterior, complete = model.observed.posterior(x), model.posterior(x)
    torch.testing.assert_close(posterior.mean, complete.mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(posterior.covariance, complete.covariance.expand(5, 8, 3, 3), rtol=1e-12, atol=1e-13)
    assert torch.equal(model.observed.impute(x).mean, x)
    assert torch.equal(model.observed.draw(x, 2)[1], x)


def test_gradients_are_those_of_the_dense_density(generator: Generator) -> None:
    model = random_ppca(5, 2, generator)
    x = awkward(torch.randn(20, 5, generator=generator, dtype=torch.float64), generator).requires_grad_()
    inputs = (x, *model.parameters())
    found = torch.autograd.grad(model.observed.log_prob(x).sum(), inputs)
    weight, sigma = model.decoder.weight, model.decoder.log_std.exp()
    covariance = weight @ weight.mT + sigma.square() * torch.eye(5, dtype=torch.float64)
    dense = torch.stack([dense_conditional(row, model.decoder.mean, covariance)[0] for row in x]).sum()
    for ours, theirs in zip(found, torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)
    assert bool((found[0][x.isnan()] == 0).all())


@pytest.mark.parametrize("std", [1e-1, 1e-3, 1e-5])
def test_a_small_noise_loses_few_digits(std: float, generator: Generator) -> None:
    model = random_ppca(12, 3, generator, std=std, offset=0.0)
    x = holes(model.sample(6, generator=generator).detach(), 0.3, generator)
    errors = (model.observed.log_prob(x).detach() - in_fifty_digits(model, x)).abs()
    # A residual carries a rounding of ε |W| / σ in units of σ, times itself, of order 1, in each of some 10 entries.
    assert errors.max() < 1e3 * torch.finfo(torch.float64).eps / std
    x = torch.cat([model.sample(6, generator=generator).detach()[:, :2], torch.full_like(x[:, 2:], torch.nan)], 1)
    # Fewer entries than latents leave a latent as unsure as it was: the precision N then has a condition of |W|²/σ².
    errors = (model.observed.log_prob(x).detach() - in_fifty_digits(model, x)).abs()
    assert errors.max() < 1e2 * torch.finfo(torch.float64).eps / std**2


def in_fifty_digits(model: PPCA, x: Tensor) -> Tensor:
    """log N(x_o; μ_o, W_o W_oᵀ + σ²I) of every row."""
    values = []
    with mpmath.workdps(50):
        variance = mpmath.exp(2 * mpmath.mpf(model.decoder.log_std.item()))
        for row in x:
            o = ~row.isnan()
            weight = mpmath.matrix(model.decoder.weight[o].tolist())
            residual = mpmath.matrix(
                [
                    mpmath.mpf(a) - mpmath.mpf(b)
                    for a, b in zip(row[o].tolist(), model.decoder.mean[o].tolist(), strict=True)
                ]
            )
            covariance = weight * weight.T + variance * mpmath.eye(residual.rows)
            square = (residual.T * mpmath.lu_solve(covariance, residual))[0]
            log_det = mpmath.log(mpmath.det(covariance))
            values.append(float(-(square + log_det + residual.rows * mpmath.log(2 * mpmath.pi)) / 2))
    return torch.tensor(values, dtype=torch.float64)


def test_float32_is_rounded_once(generator: Generator) -> None:
    model = random_ppca(8, 2, generator, std=1e-3).float()
    x = holes(model.sample(50, generator=generator).detach(), 0.3, generator)
    exact = copy.deepcopy(model).double().observed
    single = model.observed
    assert single.log_prob(x).dtype == torch.float32
    assert torch.equal(single.log_prob(x), exact.log_prob(x.double()).float())
    assert torch.equal(single.impute(x).variance, exact.impute(x.double()).variance.float())


def test_draws_have_the_moments_of_the_imputation(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    x = torch.tensor([[1.0, torch.nan, 0.5, torch.nan], [torch.nan] * 4, [torch.nan, 2.0, -1.0, 3.0]]).double()
    n = 40_000
    draws = model.observed.draw(x, n, generator=generator)
    assert draws.shape == (n, 3, 4)
    imputed = model.observed.impute(x)
    missing = x.isnan()
    assert torch.equal(draws[:, ~missing], x[~missing].expand(n, -1))
    deviation = (draws.mean(0) - imputed.mean)[missing] / (imputed.variance[missing] / n).sqrt()
    assert deviation.abs().max() < 4.5
    ratio = draws.var(0)[missing] / imputed.variance[missing] - 1
    assert ratio.abs().max() < 4.5 * math.sqrt(2 / n)  # variance of a Gaussian's sample variance
    _, _, spread = dense_conditional(x[0], model.decoder.mean.detach(), covariance_of(model))
    correlation = torch.corrcoef(draws[:, 0, [1, 3]].mT)[0, 1]
    expected = spread[1, 3] / (spread[1, 1] * spread[3, 3]).sqrt()
    assert abs(correlation - expected) < 4.5 / math.sqrt(n)
    again = model.observed.draw(x, 3, generator=Generator().manual_seed(1))
    assert torch.equal(model.observed.draw(x, 3, generator=Generator().manual_seed(1)), again)


def test_the_claim_is_exact_and_refuses_only_infinities(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    x = holes(torch.randn(30, 4, generator=generator, dtype=torch.float64), 0.3, generator)
    claim = model.observed.log_density(x)
    assert claim.kind is Kind.EXACT
    assert claim.method == "marginal of the observed entries"
    assert torch.equal(claim.value, model.observed.log_prob(x).detach())
    x[3, 2] = -torch.inf
    with pytest.raises(ValueError, match=r"nan where an entry is missing; row 3, column 2 is -inf"):
        model.observed.log_density(x)
    with pytest.raises(ValueError, match=r"\[\*batch, 4\]; got \[5, 3\]"):
        model.observed.log_prob(x[:5, :3])
    with pytest.raises(TypeError, match=r"computes in torch\.float64"):
        model.observed.impute(x.float())
    with pytest.raises(ValueError, match="n must be a positive int"):
        model.observed.draw(x, 0)


def test_elsewhere_nan_is_refused(generator: Generator) -> None:
    x = holes(torch.randn(30, 4, generator=generator, dtype=torch.float64), 0.3, generator)
    model = PPCA(4, 2)
    with pytest.raises(ValueError, match=r"expects finite data.*model\.observed\.fit"):
        model.fit(x)


def test_no_rows_are_an_empty_answer(generator: Generator) -> None:
    model = random_ppca(4, 2, generator)
    nothing = torch.zeros(0, 4, dtype=torch.float64)
    assert model.observed.log_prob(nothing).shape == (0,)
    assert model.observed.impute(nothing).mean.shape == model.observed.impute(nothing).variance.shape == (0, 4)
    assert model.observed.draw(nothing, 3, generator=generator).shape == (3, 0, 4)
    assert model.observed.posterior(nothing).mean.shape == (0, 2)
    assert model.observed.posterior(nothing).covariance.shape == (0, 2, 2)


def test_far_away_it_is_as_for_complete_rows(generator: Generator) -> None:
    """Squares of 10¹⁶⁰ overflow: the density is 0, its logarithm −inf, and the posterior still linear in x."""
    model = random_ppca(4, 2, generator)
    x = 1e160 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    assert model.observed.log_prob(x).equal(model.log_prob(x))
    torch.testing.assert_close(model.observed.posterior(x).mean, model.posterior(x).mean, rtol=1e-12, atol=0)
    x[:, 1] = torch.nan
    imputation = model.observed.impute(x)
    assert bool(imputation.mean.isfinite().all() & imputation.variance.isfinite().all())
    near = model.observed.impute((x - model.decoder.mean) / 1e160 + model.decoder.mean).mean - model.decoder.mean
    torch.testing.assert_close((imputation.mean / 1e160).detach(), near.detach(), rtol=1e-10, atol=1e-10)


def test_settings_of_another_fit_are_refused() -> None:
    with pytest.raises(TypeError, match=r"PPCA\.observed\.fit expects lvm\.ppca\.MissingEM\(\) as em; got the class M"):
        PPCA(3, 1).observed.fit(torch.randn(9, 3), MissingEM)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"as solver; got the class ClosedForm; make one, ClosedForm\(\)"):
        PPCA(3, 1).fit(torch.randn(9, 3), solver=ClosedForm)  # type: ignore[arg-type]
