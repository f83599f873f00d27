"""PPCA's fits: closed form and EM, against Tipping & Bishop's equations, scikit-learn and each other."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Generator

from density import Moments
from lvm.em import Present
from lvm.ppca import PPCA, ClosedForm, EMSolver, RandomWeight, Solver
from tests.lvm.vae.linear_examples import covariance_of, data, random_ppca
from tests.places import SHARED_DATA

OIL_FLOW = SHARED_DATA / "oil_flow.npz"


@pytest.mark.parametrize(("n", "features", "latent_features"), [(200, 6, 2), (60, 60, 7), (50, 200, 5), (4, 3, 1)])
def test_closed_form_is_tipping_and_bishops(n: int, features: int, latent_features: int, generator: Generator) -> None:
    x = data(n, features, latent_features, generator)
    model = PPCA(features, latent_features)
    history = model.fit(x)
    covariance = np.cov(x.numpy().T, bias=True)
    variances, axes = np.linalg.eigh(covariance)
    noise = variances[: features - latent_features].sum() / (features - latent_features)
    top = axes[:, -latent_features:]
    expected = top @ np.diag(variances[-latent_features:] - noise) @ top.T + noise * np.eye(features)
    np.testing.assert_allclose(model.noise_variance.item(), noise, rtol=1e-11)
    np.testing.assert_allclose(covariance_of(model).numpy(), expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(model.decoder.mean.detach().numpy(), x.mean(0).numpy(), rtol=1e-12)
    assert history.objective == [pytest.approx(model.log_density(x).mean, rel=1e-10)]
    assert history.converged


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()])
@pytest.mark.parametrize(("n", "features"), [(300, 6), (30, 60)])
def test_gradient_vanishes_at_the_maximum(n: int, features: int, solver: Solver, generator: Generator) -> None:
    x = data(n, features, 2, generator)
    model = PPCA(features, 2)
    model.fit(x, solver=solver)
    model.log_prob(x).mean().backward()
    # The closed form is exact to rounding. EM stops when a step gains 1e-10 nats; the gradient there is of the order of
    # the root of that, 1e-5, times the root of the curvature (in μ and W: 1/σ² ~ 4; in log σ: 2D ~ 120).
    tolerance = 1e-10 if isinstance(solver, ClosedForm) else 1e-3
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < tolerance


def test_maximum_is_not_improved_by_any_small_move(generator: Generator) -> None:
    x = data(30, 60, 2, generator)
    model = PPCA(60, 2)
    model.fit(x)
    best = model.log_density(x).mean
    for _ in range(20):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter.add_(1e-3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        assert moved.log_density(x).mean < best


def test_equals_scikit_learn_up_to_its_ddof_when_rows_are_many(generator: Generator) -> None:
    n = 300
    x = data(n, 8, 3, generator)
    model = PPCA(8, 3)
    model.fit(x)
    pca = PCA(n_components=3).fit(x.numpy())
    np.testing.assert_allclose(covariance_of(model).numpy(), pca.get_covariance() * (n - 1) / n, rtol=1e-10, atol=1e-11)
    assert model.log_density(x).mean >= pca.score(x.numpy())


def test_beats_scikit_learn_by_tens_of_nats_when_rows_are_few(generator: Generator) -> None:
    x = data(50, 200, 5, generator, noise=0.5, scale=1.0)
    model = PPCA(200, 5)
    model.fit(x)
    pca = PCA(n_components=5).fit(x.numpy())
    assert model.noise_variance.item() < 0.3 < pca.noise_variance_  # the truth is 0.25
    assert model.log_density(x).mean > pca.score(x.numpy()) + 50  # field/lvm.md 1.4: 69 nats


@pytest.mark.parametrize(("n", "features"), [(300, 6), (30, 60)])
def test_em_reaches_the_closed_form(n: int, features: int, generator: Generator) -> None:
    x = data(n, features, 2, generator)
    closed, iterated = PPCA(features, 2), PPCA(features, 2)
    best = closed.fit(x).objective[0]
    history = iterated.fit(x, solver=EMSolver(start=RandomWeight(3)))
    assert history.converged
    # A gain below 1e-10 nats with a linear rate of at most 0.9 leaves at most 1e-9 nats.
    assert best - 1e-9 < history.objective[-1] <= best + 1e-12 * abs(best)
    assert history.objective[-1] == pytest.approx(iterated.log_density(x).mean, rel=1e-12)
    torch.testing.assert_close(covariance_of(iterated), covariance_of(closed), rtol=0, atol=1e-3)


def test_plain_em_reaches_the_closed_form_where_noise_is_large(generator: Generator) -> None:
    x = data(300, 6, 2, generator, noise=2.0)
    best = PPCA(6, 2).fit(x).objective[0]
    history = PPCA(6, 2).fit(x, solver=EMSolver(expanded=False))
    assert history.converged
    assert best - 1e-8 < history.objective[-1] <= best + 1e-12 * abs(best)  # a linear rate of at most 0.99


def test_expansion_does_not_crawl_where_noise_is_small(generator: Generator) -> None:
    x = data(50, 200, 5, generator)
    start = random_ppca(200, 5, generator).state_dict()  # as random as can be: the default start is near the end
    models = PPCA(200, 5).double(), PPCA(200, 5).double()
    for model in models:
        model.load_state_dict(start)
    plain = models[0].fit(x, solver=EMSolver(expanded=False, max_iterations=100, start=Present()))
    expanded = models[1].fit(x, solver=EMSolver(start=Present()))
    assert expanded.converged
    assert len(expanded.objective) < 30
    assert expanded.objective[-1] > plain.objective[-1] + 1


@pytest.mark.parametrize(("n", "features"), [(40, 5), (12, 20)])
def test_em_never_decreases_log_p_over_600_single_steps(n: int, features: int, generator: Generator) -> None:
    x = data(n, features, 3, generator)
    model = random_ppca(features, 2, generator, std=3.0)
    values = [model.log_density(x).mean]
    for _ in range(600):
        model.em_step(x)
        values.append(model.log_density(x).mean)
    steps = np.diff(values)
    assert steps[0] > 0.1
    assert steps.min() > -1e-12 * abs(values[-1])  # rounding of a sum of ~10² terms
    assert values[-1] <= PPCA(features, 2).fit(x).objective[0] * (1 - 1e-12)


@pytest.mark.parametrize(("n", "features"), [(40, 5), (12, 20)])
def test_em_step_is_tipping_and_bishops(n: int, features: int, generator: Generator) -> None:
    x = data(n, features, 3, generator)
    model = random_ppca(features, 2, generator)
    w, noise = model.decoder.weight.detach().numpy().copy(), model.noise_variance.item()
    s = np.cov(x.numpy().T, bias=True)
    m_inverse = np.linalg.inv(w.T @ w + noise * np.eye(2))
    new = s @ w @ np.linalg.inv(noise * np.eye(2) + m_inverse @ w.T @ s @ w)  # equation 27
    model.em_step(x)
    np.testing.assert_allclose(model.decoder.weight.detach().numpy(), new, rtol=1e-10, atol=1e-11)
    expected = np.trace(s - s @ w @ m_inverse @ new.T) / features  # equation 28
    np.testing.assert_allclose(model.noise_variance.item(), expected, rtol=1e-10)
    np.testing.assert_allclose(model.decoder.mean.detach().numpy(), x.mean(0).numpy(), rtol=1e-12)


@pytest.mark.parametrize("expanded", [True, False])
@pytest.mark.parametrize(("n", "features"), [(40, 5), (12, 20)])
def test_em_history_is_monotone(n: int, features: int, expanded: bool, generator: Generator) -> None:
    x = data(n, features, 3, generator)
    history = PPCA(features, 2).fit(x, solver=EMSolver(max_iterations=200, tolerance=0.0, expanded=expanded))
    assert history.objective[-1] - history.objective[0] > 0.1
    assert np.diff(history.objective).min() > -1e-12 * abs(history.objective[-1])


def test_em_history_is_what_single_steps_give(generator: Generator) -> None:
    x = data(50, 5, 2, generator)
    model = PPCA(5, 2)
    history = model.fit(x, solver=EMSolver(max_iterations=5, tolerance=0.0, expanded=False))
    model.fit(x, solver=EMSolver(max_iterations=4, tolerance=0.0, expanded=False))
    assert model.log_density(x).mean == pytest.approx(history.objective[4], rel=1e-12)
    model.em_step(x)
    assert model.log_density(x).mean == pytest.approx(history.objective[5], rel=1e-12)
    assert len(history.objective) == 6


def test_em_reports_that_it_stopped_at_its_limit(generator: Generator) -> None:
    history = PPCA(5, 2).fit(data(50, 5, 2, generator), solver=EMSolver(max_iterations=2))
    assert not history.converged
    assert history.stopped == "2 iterations done"


def test_fits_are_deterministic(generator: Generator) -> None:
    x = data(30, 5, 2, generator)
    for solver in (ClosedForm(), EMSolver(max_iterations=5)):
        first, second = PPCA(5, 2), PPCA(5, 2)
        first.fit(x, solver=solver)
        second.fit(x, solver=solver)
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("solver", [ClosedForm(), EMSolver()])
def test_principal_axes_are_those_of_the_data(solver: Solver, generator: Generator) -> None:
    x = data(400, 6, 3, generator)
    model = PPCA(6, 3)
    model.fit(x, solver=solver)
    principal = model.principal_axes
    torch.testing.assert_close(
        principal.axes.mT @ principal.axes, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-13
    )
    pca = PCA(n_components=3).fit(x.numpy())
    tolerance = 1e-10 if isinstance(solver, ClosedForm) else 1e-4
    np.testing.assert_allclose(
        np.abs(np.sum(pca.components_.T * principal.axes.detach().numpy(), 0)), np.ones(3), atol=tolerance
    )
    np.testing.assert_allclose(
        principal.variances.detach().numpy(), pca.explained_variance_ * 399 / 400, rtol=tolerance
    )
    assert bool((principal.axes.gather(0, principal.axes.abs().argmax(0, keepdim=True)) > 0).all())


def test_a_shift_a_scale_and_a_rotation_of_the_data_carry_over(generator: Generator) -> None:
    x = data(100, 5, 2, generator)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    plain, moved = PPCA(5, 2), PPCA(5, 2)
    plain.fit(x)
    moved.fit(7 * x @ rotation - 100)
    torch.testing.assert_close(
        moved.log_prob(7 * x @ rotation - 100) + 5 * math.log(7), plain.log_prob(x), rtol=1e-10, atol=0
    )


def test_moments_of_chunks_fit_like_the_whole(generator: Generator) -> None:
    x = data(100, 5, 2, generator)
    whole, chunked = PPCA(5, 2).double(), PPCA(5, 2).double()
    history = whole.fit(x)
    again = chunked.fit_moments(Moments.of(x[:17]) + Moments.of(x[17:60]) + Moments.of(x[60:]))
    assert again.objective[0] == pytest.approx(history.objective[0], rel=1e-12)
    torch.testing.assert_close(chunked.decoder.weight, whole.decoder.weight, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="expects moments of 5 features"):
        chunked.fit_moments(Moments.of(x[:, :3]))
    for nothing in (x[:0], x * torch.nan):
        with pytest.raises(ValueError, match="PPCA expects finite moments of at least one row"):
            chunked.fit_moments(Moments.of(nothing))


def test_full_rank_minus_one_is_the_full_gaussian(generator: Generator) -> None:
    x = data(100, 4, 2, generator)
    model = PPCA(4, 3)
    model.fit(x)
    torch.testing.assert_close(covariance_of(model), Moments.of(x).covariance, rtol=1e-11, atol=1e-12)
    assert model.parameter_count == 4 + 10


@pytest.mark.skipif(not OIL_FLOW.exists(), reason=f"needs the oil flow data at {OIL_FLOW}")
def test_oil_flow_beats_scikit_learn() -> None:
    with np.load(OIL_FLOW) as archive:
        key = next(k for k in archive.files if archive[k].ndim == 2 and archive[k].shape[1] == 12)
        x = torch.as_tensor(archive[key], dtype=torch.float64)
    model, iterated = PPCA(12, 2), PPCA(12, 2)
    best = model.fit(x).objective[0]
    assert best >= PCA(n_components=2).fit(x.numpy()).score(x.numpy())
    assert iterated.fit(x, solver=EMSolver()).objective[-1] == pytest.approx(best, abs=1e-7)
