"""Gaussian mixtures of rows with missing entries, against dense algebra and against the complete-data path."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density import Kind
from lvm import EM, CollapsedComponent, Diagonal, Full, GaussianMixture, Given, Spherical, Tied
from lvm.mixture.covariance import Covariance
from lvm.mixture.observed import ObservedMixture
from tests.lvm.missing.incomplete import awkward, dense_conditional, holes

Record = Callable[[str, float, float], None]

STRUCTURES = [Full(), Tied(), Diagonal(), Spherical()]


def random_mixture(
    structure: Covariance, generator: Generator, components: int = 3, features: int = 4
) -> GaussianMixture:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = structure.shape(components, features)
    root = normal(*shape)
    covariances = (
        root @ root.mT + 0.3 * torch.eye(features, dtype=torch.float64) if structure.dense else root.square() + 0.3
    )
    return GaussianMixture.from_parameters(
        normal(components).softmax(0), 2 * normal(components, features), covariances, structure
    )


def dense_covariances(model: GaussianMixture) -> Tensor:
    """``[K, D, D]`` whatever the structure."""
    covariances, structure = model.covariances, model.covariance
    if not structure.dense:
        variances = structure.variances(covariances).expand(model.components, model.features)
        return torch.diag_embed(variances)
    return covariances.expand(model.components, model.features, model.features)


def by_rows(model: GaussianMixture, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p(x_o), responsibilities, E[x|x_o] and Var[x|x_o], row by row and component by component."""
    results = []
    for row in x:
        each = [
            dense_conditional(row, mean, covariance)
            for mean, covariance in zip(model.means, dense_covariances(model), strict=True)
        ]
        log_joint = torch.stack([log_p for log_p, _, _ in each]) + model.weights.log()
        r = log_joint.softmax(0)
        means = torch.stack([mean for _, mean, _ in each])
        second = torch.stack([spread.diagonal() for _, _, spread in each]) + means.square()
        mean = r @ means
        results.append((log_joint.logsumexp(0), r, mean, r @ second - mean.square()))
    log_p, r, mean, variance = (torch.stack(values) for values in zip(*results, strict=True))
    return log_p, r, mean, variance


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_density_posterior_and_imputation_row_by_row(
    structure: Covariance, generator: Generator, record_measurement: Record
) -> None:
    model = random_mixture(structure, generator)
    x = awkward(2 * torch.randn(40, 4, generator=generator, dtype=torch.float64), generator)
    observed = ObservedMixture(model)
    log_p, r, mean, variance = by_rows(model, x)
    # Covariances of condition ~1e2, quadratic forms of ~1e2.
    error = ((observed.log_prob(x) - log_p).abs() / log_p.abs().clamp_min(1)).max().item()
    record_measurement("mixture log p(x_o) vs dense algebra, relative", error, 1e-12)
    torch.testing.assert_close(observed.posterior(x), r, rtol=1e-10, atol=1e-12)
    imputed = observed.impute(x)
    torch.testing.assert_close(imputed.mean, mean, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(imputed.variance, torch.where(x.isnan(), variance, 0.0), rtol=1e-9, atol=1e-10)
    assert torch.equal(imputed.mean[~x.isnan()], x[~x.isnan()])
    shaped = observed.log_prob(x.reshape(5, 8, 4))
    torch.testing.assert_close(shaped, observed.log_prob(x).reshape(5, 8), rtol=1e-13, atol=0)


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_gradients_are_those_of_the_dense_density(structure: Covariance, generator: Generator) -> None:
    model = random_mixture(structure, generator)
    x = awkward(torch.randn(20, 4, generator=generator, dtype=torch.float64), generator).requires_grad_()
    inputs = (x, *model.parameters())
    found = torch.autograd.grad(ObservedMixture(model).log_prob(x).sum(), inputs)
    for ours, theirs in zip(found, torch.autograd.grad(by_rows(model, x)[0].sum(), inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_complete_rows_are_as_ever(structure: Covariance, generator: Generator) -> None:
    model = random_mixture(structure, generator)
    x = model.sample(30, generator=generator).detach()
    observed = ObservedMixture(model)
    torch.testing.assert_close(observed.log_prob(x), model.log_prob(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(observed.posterior(x), model.posterior(x), rtol=1e-10, atol=1e-12)
    assert torch.equal(observed.impute(x).mean, x)
    claim = observed.log_density(x)
    assert claim.kind is Kind.EXACT


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_draws_have_the_moments_of_the_imputation(structure: Covariance, generator: Generator) -> None:
    model = random_mixture(structure, generator)
    x = torch.tensor([[1.0, torch.nan, 0.5, torch.nan], [torch.nan] * 4, [torch.nan, 2.0, -1.0, 3.0]]).double()
    n = 40_000
    observed = ObservedMixture(model)
    draws = observed.draw(x, n, generator=generator)
    imputed, missing = observed.impute(x), x.isnan()
    assert torch.equal(draws[:, ~missing], x[~missing].expand(n, -1))
    deviation = (draws.mean(0) - imputed.mean)[missing] / (imputed.variance[missing] / n).sqrt()
    assert deviation.abs().max() < 4.5
    square = (draws - imputed.mean).square()[:, missing]
    error = square.std(0) / math.sqrt(n)
    assert ((square.mean(0) - imputed.variance[missing]) / error).abs().max() < 4.5
    again = observed.draw(x, 2, generator=Generator().manual_seed(1))
    assert torch.equal(observed.draw(x, 2, generator=Generator().manual_seed(1)), again)


def clusters(n: int, generator: Generator) -> Tensor:
    centres = torch.tensor([[0.0, 0, 0, 0], [4, 4, 0, 0], [0, 4, -4, 4]]).double()
    which = torch.arange(n) % 3
    mixing = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 1, 4, generator=generator, dtype=torch.float64)
    return centres[which] + 0.5 * (noise @ mixing[which]).squeeze(1)


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_em_never_decreases_the_observed_log_likelihood(structure: Covariance, generator: Generator) -> None:
    x = awkward(clusters(150, generator), generator)
    model = GaussianMixture(4, 3, structure)
    em = EM(max_iterations=100, tolerance=0.0, regularisation=0.0)
    history = ObservedMixture(model).fit(x, em, generator=generator)
    assert history.objective[-1] - history.objective[0] > 0.05
    assert np.diff(history.objective).min() > -1e-12 * abs(history.objective[-1])  # sums of ~10² terms
    value = ObservedMixture(model).log_prob(x).sum().item() / int((~x.isnan()).any(1).sum())
    assert history.objective[-1] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_gradient_vanishes_at_the_maximum(structure: Covariance, generator: Generator) -> None:
    x = holes(clusters(300, generator), 0.2, generator)
    model = GaussianMixture(4, 3, structure)
    em = EM(max_iterations=2000, tolerance=1e-13, regularisation=0.0)
    assert ObservedMixture(model).fit(x, em, generator=generator).converged
    ObservedMixture(model).log_prob(x).mean().backward()
    # A last gain of 1e-13 nats at a linear rate: the gradient is of the order of its root, times that of the curvature.
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 3e-5


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_complete_data_are_fitted_as_ever(
    structure: Covariance, generator: Generator, record_measurement: Record
) -> None:
    x = clusters(120, generator)
    start = Given(x[:3].clone())
    plain, ours = GaussianMixture(4, 3, structure), GaussianMixture(4, 3, structure)
    em = EM(max_iterations=4, tolerance=0.0, start=start)
    expected = plain.fit(x, em=em)
    found = ObservedMixture(ours).fit(x, em)
    error = np.abs(np.divide(found.objective, expected.objective) - 1).max()
    record_measurement("mixture EM with nothing missing vs EM, log p, relative", error, 1e-10)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)  # four iterations of sums in another order


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_weights_are_repetitions(structure: Covariance, generator: Generator) -> None:
    x = awkward(clusters(60, generator), generator)
    weights = torch.randint(1, 4, (60,), generator=generator)
    start = Given(torch.tensor([[0.0, 0, 0, 0], [4, 4, 0, 0], [0, 4, -4, 4]]).double())
    em = EM(max_iterations=10, tolerance=0.0, start=start, regularisation=0.01)
    weighted, repeated = GaussianMixture(4, 3, structure), GaussianMixture(4, 3, structure)
    first = ObservedMixture(weighted).fit(x, em, weights=weights)
    second = ObservedMixture(repeated).fit(x.repeat_interleave(weights, 0), em)
    assert first.objective == pytest.approx(second.objective, rel=1e-10)
    for a, b in zip(weighted.parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_far_from_the_origin(structure: Covariance, generator: Generator) -> None:
    x = holes(clusters(150, generator), 0.2, generator)
    em = EM(max_iterations=20, tolerance=0.0)
    near, far = GaussianMixture(4, 3, structure), GaussianMixture(4, 3, structure)
    ObservedMixture(near).fit(x, em, generator=Generator().manual_seed(0))
    ObservedMixture(far).fit(1e3 * x + 1e6, em, generator=Generator().manual_seed(0))
    entries = (~x.isnan()).sum(1).double()
    found = ObservedMixture(far).log_prob(1e3 * x + 1e6) + entries * math.log(1e3)
    # x keeps 13 digits of its spread, and twenty steps of EM carry that on.
    torch.testing.assert_close(found, ObservedMixture(near).log_prob(x), rtol=1e-7, atol=1e-7)


def test_beats_mean_imputation_on_held_out_rows(generator: Generator) -> None:
    x = clusters(900, generator)
    train, test = holes(x[:600], 0.3, generator), x[600:]
    ours, imputed = GaussianMixture(4, 3), GaussianMixture(4, 3)
    ObservedMixture(ours).fit(train, EM(restarts=3), generator=Generator().manual_seed(0))
    filled = torch.where(train.isnan(), train.nanmean(0), train)
    imputed.fit(filled, em=EM(restarts=3), generator=Generator().manual_seed(0))
    gain = ours.log_density(test) - imputed.log_density(test)
    print(f"three clusters: {gain}")
    assert gain.mean > 4 * gain.standard_error


def test_float32_fits_by_float64_statistics(generator: Generator) -> None:
    x = holes(clusters(150, generator), 0.2, generator).float()
    em = EM(max_iterations=10, start=Given(torch.tensor([[0.0, 0, 0, 0], [4, 4, 0, 0], [0, 4, -4, 4]])))
    single, double = GaussianMixture(4, 3).double(), GaussianMixture(4, 3)
    ObservedMixture(single).fit(x, em)
    ObservedMixture(double).fit(x.double(), em)
    assert single.means.dtype == torch.float32
    torch.testing.assert_close(single.means, double.means.float(), rtol=1e-5, atol=1e-5)
    assert ObservedMixture(single).log_prob(x).dtype == torch.float32


def test_errors_say_what_to_do(generator: Generator) -> None:
    model = GaussianMixture(3, 2)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(10, 3, generator=generator)
    empty = x.clone()
    empty[:, 1] = torch.nan
    for bad, message in (
        (empty, "column 1 has no entry in any row"),
        (torch.full((5, 3), torch.inf), "row 0, column 0 is inf"),
        (x[:1], "needs at least as many rows; got 1"),
        (x[:, :2], r"\[\*batch, 3\]; got \[10, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            ObservedMixture(model).fit(bad)
    with pytest.raises(ValueError, match="none of positive weight"):
        ObservedMixture(model).fit(x, weights=torch.zeros(10))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(CollapsedComponent, match="collapsed"):
        ObservedMixture(model).fit(
            x, EM(regularisation=0.0, start=Given(x[:2].double(), covariances=1e-9 * torch.eye(3).expand(2, 3, 3)))
        )
    torch.testing.assert_close(model.means, x[:2])  # the last parameters before that


@pytest.mark.parametrize("structure", [Full(), Tied(), Diagonal(), Spherical()], ids=repr)
def test_no_rows_are_an_empty_answer(structure: Covariance, generator: Generator) -> None:
    model = random_mixture(structure, generator)
    nothing = torch.zeros(0, model.features, dtype=torch.float64)
    assert model.observed.log_prob(nothing).shape == (0,)
    assert model.observed.posterior(nothing).shape == (0, model.components)
    assert model.observed.impute(nothing).mean.shape == model.observed.impute(nothing).variance.shape == nothing.shape
    assert model.observed.draw(nothing, 2, generator=generator).shape == (2, *nothing.shape)


@pytest.mark.parametrize("structure", [Full(), Tied(), Diagonal(), Spherical()], ids=repr)
def test_far_away_the_posterior_is_that_of_complete_rows(structure: Covariance, generator: Generator) -> None:
    """Squares of 10¹⁶⁰ overflow; which component is the nearest can still be told."""
    model = random_mixture(structure, generator)
    x = 1e160 * torch.randn(6, model.features, generator=generator, dtype=torch.float64)
    assert model.observed.log_prob(x).equal(model.log_prob(x))
    torch.testing.assert_close(model.observed.posterior(x), model.posterior(x), rtol=1e-12, atol=1e-15)
    x[:, 0] = torch.nan
    posterior, imputation = model.observed.posterior(x), model.observed.impute(x)
    torch.testing.assert_close(posterior.sum(-1), torch.ones(6, dtype=torch.float64))
    assert bool(imputation.mean.isfinite().all() & imputation.variance.isfinite().all())
    assert model.observed.draw(x, 3, generator=generator).isfinite().all()
