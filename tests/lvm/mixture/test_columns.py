"""Marginals and conditionals of a mixture are mixtures: against sums, quadrature and each other."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator

from lvm import GaussianMixture
from lvm.mixture.covariance import Covariance, Full
from tests.lvm.mixture.mixtures import STRUCTURES, dense, random_mixture

# Matrices of 4 features with condition numbers below 1e3, in float64.
EXACT = 1e-10


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
@pytest.mark.parametrize("columns", [[2], [3, 0], [1, 2, 0]])
def test_a_density_is_the_marginal_times_the_conditional(
    covariance: Covariance, columns: list[int], generator: Generator
) -> None:
    model = random_mixture(covariance, generator, features=4)
    others = [column for column in range(4) if column not in columns]
    for x in 3 * torch.randn(5, 4, generator=generator, dtype=torch.float64):
        given, left = model.marginal(columns), model.conditional(columns, x[columns])
        assert given.covariance == left.covariance == covariance
        product = given.log_prob(x[columns]) + left.log_prob(x[others])
        torch.testing.assert_close(product, model.log_prob(x), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_the_marginal_is_the_integral(covariance: Covariance, generator: Generator) -> None:
    """By the trapezoidal rule over the other feature, and as a sum of scipy's normal densities."""
    model = random_mixture(covariance, generator)
    x = 2 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    found = model.marginal([2, 0]).log_prob(x[:, [2, 0]]).exp()
    step = 0.02
    nodes = torch.arange(-40, 40, step, dtype=torch.float64)
    rows = x.unsqueeze(1).repeat(1, len(nodes), 1)
    rows[..., 1] = nodes
    torch.testing.assert_close(found, model.log_prob(rows).exp().sum(1) * step, rtol=1e-9, atol=1e-14)
    summed = sum(
        weight * multivariate_normal(mean[[2, 0]], sigma[[2, 0]][:, [2, 0]]).pdf(x[:, [2, 0]].numpy())
        for weight, mean, sigma in zip(
            model.weights.tolist(), model.means.detach().numpy(), dense(model).numpy(), strict=True
        )
    )
    torch.testing.assert_close(found.detach(), torch.as_tensor(summed), rtol=EXACT, atol=1e-14)


def test_the_conditional_is_what_incomplete_rows_say(generator: Generator) -> None:
    model = random_mixture(Full(), generator, features=4)
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    x[[0, 2]] = torch.nan
    found = model.conditional([3, 1], x[[3, 1]])
    imputed = model.observed.impute(x)
    torch.testing.assert_close(found.expectation(), imputed.mean[[0, 2]], rtol=EXACT, atol=EXACT)
    spread = found.covariances.diagonal(dim1=1, dim2=2) + (found.means - found.expectation()).square()
    torch.testing.assert_close(found.weights @ spread, imputed.variance[[0, 2]], rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(model.marginal([3, 1]).log_prob(x[[3, 1]]), model.observed.log_prob(x))


def test_far_away_the_weights_are_those_of_bayes(generator: Generator) -> None:
    """Where the weights of all components but one underflow, their logarithms are there still."""
    model = random_mixture(Full(), generator, features=2)
    found = model.conditional([0], torch.tensor([1e4], dtype=torch.float64))
    assert found.prior.logits.isfinite().all()
    single = model.float().conditional([0], torch.tensor([1e3]))
    assert single.means.dtype is torch.float32


def test_they_are_models_of_their_own(generator: Generator) -> None:
    model = random_mixture(Full(), generator)
    before = model.log_prob(torch.zeros(1, 3, dtype=torch.float64))
    part = model.marginal(range(2))
    part.fit(torch.randn(50, 2, generator=generator, dtype=torch.float64))
    assert model.log_prob(torch.zeros(1, 3, dtype=torch.float64)).equal(before)
    assert part.sample(3, generator=generator).shape == (3, 2)


def test_columns_that_are_none_are_refused() -> None:
    model = GaussianMixture(3, 2)
    for columns in ([], [0, 0], [3], [-1]):
        with pytest.raises(ValueError, match=r"different columns of 0 … 2|a column must be"):
            model.marginal(columns)
    with pytest.raises(ValueError, match="some columns and not all 3"):
        model.conditional([0, 1, 2], torch.zeros(3))
    with pytest.raises(ValueError, match=r"as values, expects x of shape \[\*batch, 2\]"):
        model.conditional([0, 1], torch.zeros(1))
    with pytest.raises(ValueError, match="expects finite data"):
        model.conditional([0], torch.tensor([torch.nan]))
    with pytest.raises(TypeError, match=r"computes in torch\.float32"):
        model.conditional([0], torch.zeros(1, dtype=torch.float64))
