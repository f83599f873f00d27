"""Counts: digits at large means, dispersions and in float32; where the parameters start; what data they refuse."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from density import ConditionallyIndependent, Independent, NegativeBinomial, Poisson, ZeroInflated, mlp
from density.families.likelihoods.stirling import stirling_error
from lvm import FiniteMixture

COUNTS = (0, 1, 2, 30, 900, 1000, 10**6)


def means_and_sizes(density: Independent) -> list[mpmath.mpf]:
    """exp of the parameters, each bounded, in many digits."""
    return [mpmath.exp(7 * mpmath.tanh(mpmath.mpf(raw) / 7)) for raw in density.raw[:, 0].tolist()]


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 3e-15), (torch.float32, 1e-6)], ids=str)
def test_what_stirling_leaves(dtype: torch.dtype, digits: float) -> None:
    """Terms below 30, of which lgamma has all digits but a few."""
    z = torch.logspace(-4, 12, 60, dtype=dtype)
    with mpmath.workdps(60):
        numbers = [mpmath.mpf(float(value)) for value in z]
        truth = [
            float(mpmath.loggamma(a + 1) - (a + 0.5) * mpmath.log(a) + a - mpmath.log(2 * mpmath.pi) / 2)
            for a in numbers
        ]
    expected = torch.tensor(truth, dtype=torch.float64)
    torch.testing.assert_close(stirling_error(z).double(), expected, rtol=10 * digits, atol=30 * digits)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-14), (torch.float32, 3e-6)], ids=str)
@pytest.mark.parametrize("log_mean", [-4.0, 0.0, 6.9])
def test_masses_keep_their_digits(log_mean: float, dtype: torch.dtype, digits: float) -> None:
    """Beside log x! of 1.3e7 and a mean of 800: relative to the log-mass, and to the distance |x − μ|, by which the
    rounding of a mean acts.
    """
    for log_size in (None, -5.0, 0.0, 6.5):
        density = Independent(1, Poisson() if log_size is None else NegativeBinomial()).to(dtype)
        with torch.no_grad():
            density.raw[:, 0] = torch.tensor([log_mean] if log_size is None else [log_mean, log_size])
        ours = density.log_prob(torch.tensor(COUNTS, dtype=dtype).unsqueeze(-1)).double()
        with mpmath.workdps(60):
            mean, *sizes = means_and_sizes(density)
            for x, value in zip(COUNTS, ours.tolist(), strict=True):
                if not sizes:
                    truth = x * mpmath.log(mean) - mean - mpmath.loggamma(x + 1)
                else:
                    (r,) = sizes
                    truth = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
                    truth += r * mpmath.log(r / (r + mean)) + x * mpmath.log(mean / (r + mean))
                size = 1 + abs(float(truth)) + abs(x - float(mean))
                assert value == pytest.approx(float(truth), abs=30 * digits * size), (x, log_size)


def test_large_sizes_are_poisson(generator: Generator) -> None:
    """r = e⁷, variance μ + μ²/r."""
    counted, poisson = Independent(1, NegativeBinomial()).double(), Independent(1, Poisson()).double()
    with torch.no_grad():
        counted.raw[1] = 1e9
    x = torch.arange(6, dtype=torch.float64).unsqueeze(-1)
    error = (counted.log_prob(x) - poisson.log_prob(x)).abs().squeeze()
    assert (error < (x.squeeze() ** 2 + 2) / math.exp(7)).all()


def table(generator: Generator) -> Tensor:
    """Poisson of mean 300, overdispersed of mean 4, and with three quarters of zeros."""
    rows = 4000
    rate = torch.tensor(stats.gamma(2.0, scale=2.0).rvs(rows, random_state=0)).float()
    kept = torch.rand(rows, generator=generator) < 0.25
    rates = torch.stack([torch.full((rows,), 300.0), rate, 5.0 * kept, torch.zeros(rows)], -1)
    return torch.poisson(rates, generator=generator)


@pytest.mark.parametrize("family", [Poisson(), NegativeBinomial(), ZeroInflated(NegativeBinomial())], ids=repr)
def test_starts_at_the_data(family: Poisson | NegativeBinomial | ZeroInflated, generator: Generator) -> None:
    """Of every column the mean, whatever the network says at 0; a column of zeros has a mean below one count in all."""
    x = table(generator)
    density = ConditionallyIndependent(mlp(2, family.numbers * 4, (8,), zero_init=True), 4, 2, family)
    context = torch.randn(len(x), 2, generator=generator)
    before = density.log_prob(x, context).mean().item()
    density.initialise(x, context)
    torch.testing.assert_close(density.expectation(torch.zeros(2))[:3], x.mean(0)[:3], rtol=1e-4, atol=0.0)
    assert 0 < density.expectation(torch.zeros(2))[3].item() < 1 / 4000
    assert density.log_prob(x, context).mean().item() > before
    kept = density.offset.clone()
    density.initialise(2 * x, context)
    assert density.offset.equal(kept), "a second fit goes on from where the first began"


def test_the_start_knows_dispersion(generator: Generator) -> None:
    x = table(generator)
    _, log_size = NegativeBinomial().start(x)
    assert log_size[0] > 4
    assert log_size[1].item() == pytest.approx(math.log(2.0), abs=0.3)  # moments of 4,000 rows
    share = ZeroInflated(Poisson()).start(x)[0].sigmoid()
    torch.testing.assert_close(share[1:], 0.5 * (x == 0).float().mean(0)[1:])


def test_a_mixture_of_poissons_is_fitted_by_em(generator: Generator) -> None:
    """Two groups of rows that no count could confuse: shares and means of the groups, and log p by the sum."""
    rates = torch.tensor([[5.0, 0.1], [80.0, 40.0]], dtype=torch.float64)
    group = (torch.rand(600, generator=generator) < 0.3).long()
    x = torch.poisson(rates[group], generator=generator)
    model = FiniteMixture(2, 2, Poisson()).double()
    model.fit(x, smoothing=0.0, generator=generator)
    means = torch.stack([x[group == k].mean(0) for k in (0, 1)])
    found = model.decoder.expectation(torch.eye(2, dtype=torch.float64)).detach()
    torch.testing.assert_close(found.sort(0).values, means, rtol=1e-6, atol=1e-6)
    by_hand = stats.poisson.logpmf(x.numpy()[:, None], means.numpy()).sum(-1) + np.log(np.bincount(group) / 600)
    torch.testing.assert_close(
        model.log_prob(x), torch.as_tensor(by_hand).logsumexp(-1), rtol=1e-5, atol=1e-5, check_dtype=False
    )


@pytest.mark.parametrize("family", [Poisson(), ZeroInflated(Poisson())], ids=repr)
def test_refuses_what_is_no_count(family: Poisson | ZeroInflated) -> None:
    for value in (0.5, -1.0):
        with pytest.raises(ValueError, match=rf"{type(family).__name__} expects counts, .* is {value:g} .*Round them"):
            Independent(1, family).check_support(torch.tensor([[value]]))


def test_inflates_counts_alone() -> None:
    for wrong in (ZeroInflated(Poisson()), Poisson, "poisson"):
        with pytest.raises(TypeError, match=r"ZeroInflated takes Poisson\(\) or NegativeBinomial\(\); got"):
            ZeroInflated(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [Poisson(), NegativeBinomial()], ids=repr)
def test_no_draw_of_a_nan(family: Poisson | NegativeBinomial) -> None:
    density = Independent(1, family)
    with torch.no_grad():
        density.raw.fill_(math.nan)
    with pytest.raises(ValueError, match=f"{type(family).__name__} cannot draw: some rates are not finite"):
        density.sample(3)
