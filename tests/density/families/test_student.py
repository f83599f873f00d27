"""Student-t distributions: draws, tails, degrees of freedom, and the normal that they tend to."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator

from density import StandardNormal, StudentT, Training
from density.families.student import _log_constant
from flows import ActNorm, Flow


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_constant(dtype: torch.dtype, tolerance: float) -> None:
    """Against 50 digits; a difference of lgamma has no digit left at 1e15."""
    log_degrees = torch.linspace(-14, 35, 60, dtype=dtype)
    with mpmath.workdps(50):
        numbers = [mpmath.exp(mpmath.mpf(float(a))) / 2 for a in log_degrees]
        truth = [mpmath.loggamma(z + 0.5) - mpmath.loggamma(z) - mpmath.log(2 * mpmath.pi * z) / 2 for z in numbers]
    found = _log_constant(log_degrees, log_degrees.exp())
    np.testing.assert_allclose(found.numpy(), np.array([float(a) for a in truth]), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("degrees", [0.3, 1.0, 3.0, 20.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_follow_it(degrees: float, dtype: torch.dtype, generator: Generator) -> None:
    x = StudentT(2, degrees).to(dtype).sample(20_000, generator=generator).detach().double().flatten().numpy()
    assert np.isfinite(x).all()
    assert stats.kstest(x, stats.t(degrees).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_many_degrees_are_a_normal(dtype: torch.dtype, tolerance: float, generator: Generator) -> None:
    x = torch.randn(50, 3, generator=generator).to(dtype)
    many = StudentT(3, 1e11).to(dtype)
    torch.testing.assert_close(many.log_prob(x), StandardNormal(3).to(dtype).log_prob(x), rtol=0, atol=tolerance)


def test_its_logarithm_falls_like_that_of_a_power() -> None:
    density = StudentT(1, 5.0).double()
    near, far = density.log_prob(torch.tensor([[1e6], [1e8]], dtype=torch.float64)).tolist()
    assert math.isclose(far - near, -6 * math.log(100), abs_tol=1e-4)  # log 5 is rounded to float32


def test_degrees_are_learned(generator: Generator) -> None:
    """From 4,000 draws of 3 degrees, which tell the logarithm to a few hundredths."""
    x = torch.as_tensor(stats.t(3).rvs((4000, 1), random_state=0))
    density = StudentT(1)
    flow = Flow(density, ActNorm(1))
    flow.fit(x, Training(epochs=60, learning_rate=0.05, progress=False), generator=generator)
    assert abs(density.log_degrees.item() - math.log(3)) < 0.2


def test_no_mean_of_few_degrees() -> None:
    assert StudentT(1, 1.5).expectation().item() == 0.0
    assert math.isnan(StudentT(1, 1.0).expectation().item())


@pytest.mark.parametrize("degrees", [0.0, -1.0, math.inf, math.nan])
def test_refuses(degrees: float) -> None:
    with pytest.raises(ValueError, match="StudentT expects positive finite degrees of freedom; got"):
        StudentT(2, degrees)
