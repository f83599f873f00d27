"""Expectation maximisation: its theorems, scikit-learn as an oracle, statistics that add, and starts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ScikitMixture
from torch import Generator, Tensor

from lvm.mixture.covariance import Covariance, Full, Tied
from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture
from lvm.mixture.regularisation import Relative
from lvm.mixture.starts import Given, KMeansPlusPlus, RandomPoints, RandomResponsibilities, Start
from tests.lvm.mixture.mixtures import SKLEARN, STRUCTURES, UNREGULARISED, dense, random_mixture, seed, separated

pytestmark = pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)


def among(x: Tensor, covariance: Covariance, generator: Generator) -> GaussianMixture:
    """Random weights and covariances, and rows for means, so that no component begins without rows."""
    model = random_mixture(covariance, generator, components=3)
    with torch.no_grad():
        model.decoder.means.copy_(x[:3])
        model.decoder.factor += 0.7
    return model


def start_of(model: GaussianMixture) -> Given:
    return Given(model.means.detach().clone(), model.weights.detach(), model.covariances.detach())


@pytest.mark.parametrize("regularisation", [0.0, 0.05])
def test_the_same_steps_as_scikit_learn(covariance: Covariance, regularisation: float, generator: Generator) -> None:
    x = separated(generator)
    start = start_of(among(x, covariance, generator))
    assert start.covariances is not None
    precisions = torch.linalg.inv(start.covariances) if covariance.dense else 1 / start.covariances
    theirs = ScikitMixture(
        3,
        covariance_type=SKLEARN[covariance],
        means_init=start.means.numpy(),
        weights_init=start.weights.numpy(),
        precisions_init=precisions.numpy(),
        reg_covar=regularisation,
        max_iter=8,
        tol=0,
        init_params="random",
    )
    with pytest.warns(ConvergenceWarning):
        theirs.fit(x.numpy())
    ours = GaussianMixture(3, 3, covariance)
    history = ours.fit(x, em=EM(8, 0, regularisation, start=start, progress=False))
    assert len(history.objective) == 9
    assert not history.converged
    expected = theirs.score(x.numpy())
    assert history.objective[-1] >= expected - 1e-6 * abs(expected)
    # Both run in float64; eight steps amplify rounding by far less than 1e6.
    for own, other in (
        (ours.weights, theirs.weights_),
        (ours.means, theirs.means_),
        (ours.covariances, theirs.covariances_),
    ):
        np.testing.assert_allclose(own.detach().numpy(), other, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ours.log_prob(x).detach().numpy(), theirs.score_samples(x.numpy()), rtol=1e-8)
    np.testing.assert_allclose(ours.posterior(x).detach().numpy(), theirs.predict_proba(x.numpy()), atol=1e-8)
    assert ours.bic(x) == pytest.approx(theirs.bic(x.numpy()), rel=1e-8)


def test_em_never_decreases_log_p(covariance: Covariance, generator: Generator) -> None:
    for trial in range(4):
        x = separated(generator)
        model = GaussianMixture(3, 3, covariance)
        model.fit(x, em=replace(UNREGULARISED, max_iterations=1, start=RandomResponsibilities()), generator=seed(trial))
        values = [model.em_step(x) for _ in range(150)]
        # Each value is a mean of 300 terms of size 10: rounding below 1e-13.
        assert np.diff(values).min() > -1e-12, f"fell by {-np.diff(values).min()}"
        assert values[-1] > values[0] + 1e-3
        assert values[-1] == pytest.approx(model.log_prob(x).mean().item(), abs=1e-3)


def test_at_the_optimum_the_gradient_vanishes(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    model = GaussianMixture(3, 3, covariance)
    history = model.fit(x, em=replace(UNREGULARISED, tolerance=1e-15, max_iterations=5000), generator=seed(0))
    assert history.converged
    gradients = torch.autograd.grad(model.log_prob(x).mean(), list(model.parameters()))
    # the objective is flat to 1e-15 there, so the gradient is of order 1e-7 in units of one standard deviation
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-6
    torch.testing.assert_close(model.posterior(x).mean(0), model.weights, rtol=1e-6, atol=1e-6)


def test_history_is_the_mean_log_likelihood_before_every_step(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    model = among(x, covariance, generator)
    other = GaussianMixture(3, 3, covariance)
    history = other.fit(x, em=replace(UNREGULARISED, max_iterations=4, start=start_of(model)))
    values = []
    for _ in range(4):
        values.append(model.log_prob(x).mean().item())
        assert model.em_step(x) == pytest.approx(values[-1], rel=1e-12)
    values.append(model.log_prob(x).mean().item())
    np.testing.assert_allclose(history.objective, values, rtol=1e-11)
    assert history.best == 4
    assert history.seconds > 0
    torch.testing.assert_close(other.log_prob(x), model.log_prob(x), rtol=1e-10, atol=1e-10)


def test_chunks_and_halves_give_the_same_statistics(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator) + 1e4
    model = random_mixture(covariance, generator, components=3)
    with torch.no_grad():
        model.decoder.means += 1e4
    whole = model.summarise(x, rows_at_once=300)
    for other in (
        model.summarise(x, rows_at_once=1),
        model.summarise(x, rows_at_once=7),
        model.summarise(x[:120]) + model.summarise(x[120:]),
    ):
        for name in ("count", "mean", "scatter", "log_likelihood"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-10, atol=1e-10)
    responsibilities = model.posterior(x).detach()
    count = responsibilities.sum(0)
    means = responsibilities.mT @ x / count.unsqueeze(1)
    torch.testing.assert_close(whole.count, count)
    torch.testing.assert_close(whole.mean, means)
    residual = x.unsqueeze(1) - means
    expected = torch.einsum("nk,nki,nkj->kij", responsibilities, residual, residual)
    model.update(whole)
    written = dense(model)
    if covariance == Full():
        torch.testing.assert_close(written, expected / count[:, None, None])
    torch.testing.assert_close(
        torch.einsum("k,kii->", count, written), torch.einsum("kii->", expected)
    )  # every structure keeps the total variance within components
    with pytest.raises(ValueError, match="statistics add where"):
        _ = whole + GaussianMixture(3, 2, covariance).double().summarise(x)


def test_a_weight_of_three_is_the_row_three_times(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator, n=60)
    weights = torch.randint(1, 4, (60,), generator=generator)
    repeated = x.repeat_interleave(weights, 0)
    start = start_of(among(x, covariance, generator))
    em = replace(UNREGULARISED, max_iterations=10, tolerance=0.0, start=start, regularisation=Relative(1e-3))
    models = [GaussianMixture(3, 3, covariance) for _ in range(2)]
    histories = [models[0].fit(x, em=em, weights=weights), models[1].fit(repeated, em=em)]
    np.testing.assert_allclose(histories[0].objective, histories[1].objective, rtol=1e-10)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "start", [KMeansPlusPlus(), RandomPoints(), RandomPoints(5), RandomResponsibilities()], ids=repr
)
def test_every_start_reaches_separated_components(covariance: Covariance, start: Start, generator: Generator) -> None:
    centres = torch.tensor([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]], dtype=torch.float64)
    x = centres.repeat_interleave(50, 0) + torch.randn(150, 2, generator=generator, dtype=torch.float64)
    model = GaussianMixture(2, 3, covariance)
    history = model.fit(x, em=EM(start=start, restarts=10), generator=seed(3))
    assert history.converged
    order = torch.cdist(centres, model.means.detach()).argmin(1)
    torch.testing.assert_close(model.means.detach()[order], x.reshape(3, 50, 2).mean(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(model.weights.detach(), torch.full((3,), 1 / 3, dtype=torch.float64), rtol=1e-4, atol=0)
    assert model.predict(x).reshape(3, 50).eq(order.unsqueeze(1)).all()


def test_k_means_ends_at_a_fixed_point(covariance: Covariance, generator: Generator) -> None:
    x, weights = separated(generator), torch.rand(300, generator=generator, dtype=torch.float64) + 0.5
    ridge = torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)
    found = KMeansPlusPlus(1000).parameters(x, weights, 4, covariance, ridge, generator)
    nearest = torch.nn.functional.one_hot(torch.cdist(x, found.means).argmin(1), 4) * weights.unsqueeze(1)
    count = nearest.sum(0)
    torch.testing.assert_close(found.means, nearest.mT @ x / count.unsqueeze(1))
    torch.testing.assert_close(found.weights, (count + 1) / (weights.sum() + 4))
    residual = x.unsqueeze(1) - found.means
    scatter = torch.einsum("nk,nki,nkj->kij", nearest, residual, residual)
    pooled = scatter.sum(0) / count.sum()
    if covariance == Full():
        expected = (scatter + 3 * pooled) / (count + 3)[:, None, None] + torch.diag(ridge)
        torch.testing.assert_close(found.covariances, expected)
    if covariance == Tied():
        torch.testing.assert_close(found.covariances, pooled + torch.diag(ridge))


def test_restarts_are_never_worse(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator, components=6)
    for trial in range(5):
        finals = []
        for restarts in (1, 4):
            em = EM(start=RandomPoints(), restarts=restarts, tolerance=1e-5)
            model = GaussianMixture(3, 5, covariance)
            finals.append(model.fit(x, em=em, generator=seed(trial)).objective[-1])
            assert finals[-1] == pytest.approx(model.log_density(x).mean, rel=1e-10)
        assert finals[1] >= finals[0]


def test_the_same_generator_gives_the_same_fit(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    models = [GaussianMixture(3, 3, covariance) for _ in range(2)]
    for model in models:
        model.fit(x, generator=seed(5))
    assert torch.equal(models[0].log_prob(x), models[1].log_prob(x))


def test_given_means_alone(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    means = x[:3].clone()
    model = GaussianMixture(3, 3, covariance)
    start = Given(means).parameters(x, None, 3, covariance, torch.zeros(3, dtype=x.dtype), None)
    assert torch.equal(start.means, means)
    history = model.fit(x, em=EM(start=Given(means), progress=False))
    assert history.objective[-1] >= history.objective[0]
