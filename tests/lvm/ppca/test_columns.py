"""Marginals and conditionals of PPCA are Gaussians: against the covariance written out, and each other."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from tests.lvm.vae.linear_examples import covariance_of, random_ppca

EXACT = 1e-9  # covariances of condition ~1e3 in float64, twice inverted


@pytest.mark.parametrize("columns", [[4], [3, 0], [1, 4, 2, 0]])
def test_they_are_those_of_the_covariance_written_out(columns: list[int], generator: Generator) -> None:
    model = random_ppca(5, 2, generator)
    mean, covariance = model.decoder.mean.detach(), covariance_of(model)
    others = [column for column in range(5) if column not in columns]
    x = 2 * torch.randn(5, generator=generator, dtype=torch.float64)
    given, left = model.marginal(columns), model.conditional(columns, x[columns])
    torch.testing.assert_close(given.mean.detach(), mean[columns])
    torch.testing.assert_close(given.covariance.detach(), covariance[columns][:, columns])
    gain = covariance[others][:, columns] @ torch.linalg.inv(covariance[columns][:, columns])
    expected = mean[others] + gain @ (x - mean)[columns]
    torch.testing.assert_close(left.mean.detach(), expected, rtol=EXACT, atol=EXACT)
    spread = covariance[others][:, others] - gain @ covariance[columns][:, others]
    torch.testing.assert_close(left.covariance.detach(), spread, rtol=EXACT, atol=EXACT)
    product = given.log_prob(x[columns]) + left.log_prob(x[others])
    torch.testing.assert_close(product, model.log_prob(x), rtol=EXACT, atol=EXACT)


def test_columns_that_are_none_are_refused(generator: Generator) -> None:
    model = random_ppca(3, 1, generator)
    with pytest.raises(ValueError, match="different columns of 0 … 2"):
        model.marginal([5])
    with pytest.raises(ValueError, match="some columns and not all 3"):
        model.conditional([0, 1, 2], torch.zeros(3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"computes in torch\.float64"):
        model.conditional([0], torch.zeros(1))
    assert model.float().conditional([0], torch.zeros(1)).mean.dtype is torch.float32
