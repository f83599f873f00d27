"""Densities on the unit interval where closed forms lose digits, at the ends, and in float32."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator

from density import Beta, ContinuousBernoulli, Independent, LogitNormal, UnivariateLikelihood
from density.families.likelihoods.gamma_noise import log_gamma_noise

LOG_ODDS = (1e-12, -1e-9, 1e-5, -0.0099, 0.0101, 0.3, -0.49999, 0.50001, -3.0, 20.0, -300.0, 1000.0)
STEEPEST = math.exp(7)


def at(family: UnivariateLikelihood, *raw: float, dtype: torch.dtype = torch.float64) -> Independent:
    density = Independent(1, family).to(dtype)
    with torch.no_grad():
        density.raw[:, 0] = torch.tensor(raw, dtype=torch.float64)
    return density


def exact_log_odds(density: Independent) -> mpmath.mpf:
    return STEEPEST * mpmath.tanh(mpmath.mpf(density.raw.item()) / STEEPEST)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-14), (torch.float32, 1e-6)], ids=str)
def test_continuous_bernoulli_has_all_digits(dtype: torch.dtype, digits: float) -> None:
    """log p, its slope in the log-odds, the mean and the variance (the slope of the mean), against 60 digits.

    Differences of two terms of size 1/η, and 1/η² for the variance, are formed only beyond |η| = ½.
    """
    x = [0.0, 0.2, 0.5, 0.9, 1.0]
    for odds in LOG_ODDS:
        density = at(ContinuousBernoulli(), STEEPEST * math.atanh(odds / STEEPEST), dtype=dtype)
        given = torch.tensor(x, dtype=dtype).unsqueeze(-1)
        log_p, mean = density.log_prob(given), density.expectation()
        (slope,) = torch.autograd.grad(log_p.sum(), density.raw, retain_graph=True)
        (variance,) = torch.autograd.grad(mean, density.raw)
        with mpmath.workdps(60):
            eta = exact_log_odds(density)
            within = 1 - (eta / STEEPEST) ** 2  # the slope of the bound
            constant = mpmath.log(mpmath.expm1(eta) / eta)
            true_mean = 1 / (1 - mpmath.exp(-eta)) - 1 / eta
            true_variance = 1 / eta**2 - 1 / (4 * mpmath.sinh(eta / 2) ** 2)
            points = [mpmath.mpf(float(value)) for value in given]
            truth = torch.tensor([float(eta * value - constant) for value in points], dtype=torch.float64)
            true_slope = float(sum(value - true_mean for value in points) * within)
            true_variance = float(true_variance * within)
        size = 8 + abs(odds)  # of the terms
        torch.testing.assert_close(log_p.double(), truth, rtol=0, atol=digits * size)
        assert mean.item() == pytest.approx(float(true_mean), rel=16 * digits)
        assert slope.item() == pytest.approx(true_slope, rel=0, abs=64 * digits)
        assert variance.item() == pytest.approx(true_variance, rel=64 * digits, abs=64 * digits)


@pytest.mark.parametrize("odds", [1e-9, -0.0099, 0.0101, -3.0, 300.0])
def test_continuous_bernoulli_draws_are_quantiles(odds: float) -> None:
    """F(x) is the u that it was drawn with, and the slope of x in the log-odds that of the inverse, −(∂F/∂η)/p.

    Left out of the series of quantiles is η⁵/720, 1e-13; of its slope 1e-11.
    """
    density = at(ContinuousBernoulli(), STEEPEST * math.atanh(odds / STEEPEST))
    x = density.sample(6, generator=Generator().manual_seed(3)).squeeze(-1)
    u = torch.rand(6, 1, generator=Generator().manual_seed(3), dtype=torch.float64)
    for i in range(6):
        (slope,) = torch.autograd.grad(x[i], density.raw, retain_graph=True)
        with mpmath.workdps(40):
            eta, point = exact_log_odds(density), mpmath.mpf(x[i].item())
            reached = mpmath.expm1(eta * point) / mpmath.expm1(eta)
            in_eta = mpmath.diff(lambda e: mpmath.expm1(e * point) / mpmath.expm1(e), eta)  # noqa: B023
            steepness = eta * mpmath.exp(eta * point) / mpmath.expm1(eta)
            expected = float(-in_eta / steepness * (1 - (eta / STEEPEST) ** 2))
        assert float(reached) == pytest.approx(u[i].item(), abs=1e-12)
        assert slope.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize(("alpha", "beta"), [(0.01, 0.01), (0.5, 3.0), (900.0, 20.0), (1000.0, 1000.0)])
def test_beta_keeps_its_digits(alpha: float, beta: float, dtype: torch.dtype, tolerance: float) -> None:
    """Differences of log Γ would lose four digits of them; relative to log p and to x."""
    density = at(Beta(), *(7 * math.atanh(math.log(shape) / 7) for shape in (alpha, beta)), dtype=dtype)
    x = torch.tensor([1e-12, 1e-3, 0.3, 0.5, 0.9, 0.999], dtype=dtype).unsqueeze(-1)
    shapes = (7 * (density.raw.detach().double() / 7).tanh()).exp().flatten().numpy()
    truth = stats.beta.logpdf(x.double().numpy().flatten(), *shapes)
    np.testing.assert_allclose(density.log_prob(x).detach().double().numpy(), truth, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [1e-3, 0.3, 1.0, 50.0])
def test_gamma_noise_follows_its_law(shape: float, generator: Generator) -> None:
    """In logarithms, where draws of small shapes are numbers at all."""
    drawn = log_gamma_noise(20_000, torch.tensor([shape], dtype=torch.float64), generator).flatten().numpy()
    assert np.isfinite(drawn).all()
    assert stats.kstest(drawn, lambda y: stats.loggamma.cdf(y, shape)).pvalue > 1e-3


@pytest.mark.parametrize("family", [Beta(), LogitNormal(), ContinuousBernoulli()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_draws_have_a_density(family: UnivariateLikelihood, dtype: torch.dtype, generator: Generator) -> None:
    """Also those that rounding brings to an end."""
    for raw in (-60.0, 60.0):
        density = at(family, *(raw for _ in range(family.numbers)), dtype=dtype)
        draws, log_p = density.sample_with_log_prob(2000, generator=generator)
        density.check_support(draws)
        assert log_p.isfinite().all()


@pytest.mark.parametrize("family", [Beta(), LogitNormal(), ContinuousBernoulli()], ids=repr)
def test_outside_there_is_nothing(family: UnivariateLikelihood) -> None:
    """log p = −∞, an error where data enters, and no nan in the gradients of the points inside."""
    density = at(family, *(0.3 for _ in range(family.numbers)))
    x = torch.tensor([[0.3], [1.5], [-1.0]], dtype=torch.float64)
    log_p = density.log_prob(x)
    assert log_p[1:].eq(-math.inf).all()
    (gradient,) = torch.autograd.grad(log_p[0], density.raw)
    (together,) = torch.autograd.grad(density.log_prob(x)[:1].sum() + 0 * density.log_prob(x)[0], density.raw)
    assert together.equal(gradient)
    assert density.log_prob(torch.tensor([[math.nan]], dtype=torch.float64)).isnan()
    with pytest.raises(ValueError, match=rf"{type(family).__name__} expects values in .0, 1.*; the value at \[1, 0\] "):
        density.check_support(x)
