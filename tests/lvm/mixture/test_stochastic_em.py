"""Stochastic EM against the EM whose optimum it climbs to, and the rules that its steps follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from lvm import EM, GaussianMixture, Given, Present, RandomPoints, StochasticEM
from lvm.mixture.covariance import Covariance, Full
from tests.lvm.mixture.mixtures import STRUCTURES, dense, random_mixture, seed, separated

QUICK = StochasticEM(epochs=4, batch_size=100, progress=False)


def apart(generator: Generator, n: int) -> Tensor:
    """Three clusters that hardly overlap, so that EM forgets its start within a few iterations."""
    centres = torch.tensor([[0.0, 0.0, 0.0], [7.0, 0.0, 1.0], [0.0, 6.0, -1.0]], dtype=torch.float64)
    return centres[torch.arange(n) % 3] + torch.randn(n, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_it_ends_at_the_optimum_of_em(covariance: Covariance, generator: Generator) -> None:
    x = apart(generator, 20_000)
    em, stochastic = GaussianMixture(3, 3, covariance), GaussianMixture(3, 3, covariance)
    start = Given(x[:3])
    em.fit(x, em=EM(start=start, progress=False))
    history = stochastic.fit(x, em=replace(QUICK, epochs=6, start=start), generator=seed(0))
    # The optimum's own error is worth about parameters/(2n) = 7e-4 nats; what is left of the iterates' noise, a share.
    lost = em.log_density(x).mean - stochastic.log_density(x).mean
    assert -1e-9 < lost < 1e-4
    # and the averaged means are nearer to it than a standard error of a mean
    std = dense(em).diagonal(dim1=1, dim2=2).sqrt()
    error = (stochastic.means - em.means).detach().abs() / std * (20_000 * em.weights.detach().unsqueeze(1)).sqrt()
    assert error.max() < 0.7
    assert len(history.objective) == 7
    assert history.objective[-1] == pytest.approx(stochastic.log_density(x).mean, rel=1e-9)
    assert history.objective[-1] > history.objective[0]


def test_averaging_takes_noise_out(generator: Generator) -> None:
    x = apart(generator, 10_000)
    best = GaussianMixture(3, 3)
    best.fit(x, em=EM(start=Given(x[:3]), progress=False))
    lost = {}
    for averaging in (True, False):
        values = []
        for trial in range(2):
            model = GaussianMixture(3, 3)
            model.fit(
                x, em=replace(QUICK, averaging=averaging, start=Given(best.means.detach())), generator=seed(trial)
            )
            values.append(best.log_density(x).mean - model.log_density(x).mean)
        lost[averaging] = np.mean(values)
    assert 0 < 5 * lost[True] < lost[False]


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_one_step_is_the_update_of_cappe_and_moulines(covariance: Covariance, generator: Generator) -> None:
    """One batch of all rows: ŝ₁ = (1 − γ) ŝ₀ + γ s̄, formed here from raw moments."""
    x = separated(generator)
    weights = torch.rand(300, generator=generator, dtype=x.dtype) + 0.5
    model = random_mixture(covariance, generator, components=3)
    r, pi, mu, sigma = model.posterior(x).detach(), model.weights.detach(), model.means.detach(), dense(model)
    w = (r * weights.unsqueeze(1)) / weights.sum()
    rate = 5**-0.75
    count = (1 - rate) * pi + rate * w.sum(0)
    first = (1 - rate) * pi.unsqueeze(1) * mu + rate * w.mT @ x
    outer = mu.unsqueeze(2) * mu.unsqueeze(1)
    second = (1 - rate) * pi[:, None, None] * (sigma + outer) + rate * torch.einsum("nk,ni,nj->kij", w, x, x)
    mean = first / count.unsqueeze(1)
    expected = second / count[:, None, None] - mean.unsqueeze(2) * mean.unsqueeze(1)
    em = StochasticEM(1, 300, 0.75, 4.0, averaging=False, regularisation=0.0, start=Present(), progress=False)
    model.fit(x, em=em, weights=weights, generator=seed(0))
    torch.testing.assert_close(model.weights.detach(), count / count.sum(), rtol=1e-9, atol=0)
    torch.testing.assert_close(model.means.detach(), mean, rtol=1e-9, atol=1e-9)
    if covariance == Full():
        torch.testing.assert_close(dense(model), expected, rtol=1e-8, atol=1e-8)
    kept = torch.einsum("k,kii->", count, expected)
    torch.testing.assert_close(torch.einsum("k,kii->", count, dense(model)), kept, rtol=1e-9, atol=0)


def test_streams_weights_and_one_pass(generator: Generator) -> None:
    x = apart(generator, 6000)
    times = torch.randint(1, 4, (6000,), generator=generator)
    em = EM(start=Given(x[:3]), progress=False)
    weighted = GaussianMixture(3, 3)
    weighted.fit(x, em=em, weights=times.double())
    repeated = x.repeat_interleave(times, 0)
    for data, weights in ((list(x.split(1000)), times.double()), (list(repeated.split(1000)), None)):
        model = GaussianMixture(3, 3)
        model.fit(data, em=replace(QUICK, epochs=5, start=em.start), weights=weights, generator=seed(1))
        lost = weighted.log_density(repeated).mean - model.log_density(repeated).mean
        assert -1e-9 < lost < 2e-3
    once = GaussianMixture(3, 3)
    once.fit(x, em=replace(QUICK, epochs=1, start=em.start), generator=seed(1))
    unweighted = GaussianMixture(3, 3)
    unweighted.fit(x, em=em)
    assert unweighted.log_density(x).mean - once.log_density(x).mean < 0.01


def test_the_same_generator_gives_the_same_fit(generator: Generator) -> None:
    x = separated(generator, n=1000)
    models = [GaussianMixture(3, 3) for _ in range(3)]
    for model, value in zip(models, (5, 5, 6), strict=True):
        model.fit(x, em=replace(QUICK, start=RandomPoints(), restarts=2), generator=seed(value))
    assert torch.equal(models[0].means, models[1].means)
    assert not torch.equal(models[0].means, models[2].means)


def test_bad_settings_are_one_clear_error() -> None:
    for changes, match in (
        ({"epochs": 0}, "epochs must be a positive int"),
        ({"batch_size": 0}, "batch_size must be a positive int"),
        ({"exponent": 0.5}, r"exponent must be in \(0.5, 1\]"),
        ({"exponent": 1.1}, r"exponent must be in \(0.5, 1\]"),
        ({"delay": -1.0}, "delay must be finite and at least 0"),
        ({"regularisation": -1.0}, "regularisation must be"),
        ({"restarts": 0}, "restarts must be a positive int"),
        ({"start": Present(), "restarts": 2}, "starts alike every time"),
    ):
        with pytest.raises(ValueError, match=match):
            StochasticEM(**changes)  # type: ignore[arg-type]


def test_the_steps_written_out(generator: Generator) -> None:
    """Chunks of one minibatch each, so that their order is known: running averages, and of them the second half's."""
    chunks = list(apart(generator, 600).split(150))
    model, by_hand = random_mixture(Full(), generator, components=3), GaussianMixture(3, 3).double()
    by_hand.load_state_dict(model.state_dict())
    algorithm = StochasticEM(epochs=3, batch_size=150, regularisation=0.0, start=Present(), progress=False)
    history = model.fit(chunks, em=algorithm, generator=seed(0))
    mean = by_hand.summarise(torch.cat(chunks)).times(0.0)  # of no weight: the first step's rate is not 1
    weights, means, covariances = (t.detach().clone() for t in (by_hand.weights, by_hand.means, by_hand.covariances))
    mean = replace(mean, count=weights, mean=means, scatter=weights[:, None, None] * covariances)
    objective, kept = [], []
    for step in range(12):
        found = by_hand.summarise(chunks[step % 4])
        objective.append(found.mean_log_likelihood)
        rate = (step + 1 + 10.0) ** -0.6
        mean = mean.times(1 - rate) + found.times(rate / 150)
        by_hand.update(mean)
        if 2 * 150 * (step + 1) > 3 * 600:
            kept.append(mean)
    assert len(kept) == 6
    average = kept[0]
    for number, one in enumerate(kept[1:], start=2):
        average = average.times(1 - 1 / number) + one.times(1 / number)
    by_hand.update(average)
    np.testing.assert_allclose(history.objective[:3], np.reshape(objective, (3, 4)).mean(1), rtol=1e-10)
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_short_last_chunk_weighs_by_its_rows(generator: Generator) -> None:
    x = torch.randn(1001, 1, generator=generator, dtype=torch.float64)
    x[1000] = 60
    model = GaussianMixture(1, 1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=100)
    model.fit(loader, em=StochasticEM(progress=False), generator=seed(0))
    # Averaged are the steps of the second half, of which few come after the last row: 0.06 of its 0.06.
    assert model.means.item() == pytest.approx(x.mean().item(), abs=0.02)


@pytest.mark.parametrize("sizes", [[100] * 4, [1, 99, 7, 293], [293, 7, 99, 1]])
def test_with_all_steps_alike_it_is_the_mean_of_all_rows(sizes: list[int], generator: Generator) -> None:
    x = torch.randn(400, 2, generator=generator, dtype=torch.float64) + 5
    model = GaussianMixture(2, 1)
    em = StochasticEM(1, 100, 1.0, 0.0, averaging=False, regularisation=0.0, progress=False)
    model.fit(list(x.split(sizes)), em=em, generator=seed(0))
    torch.testing.assert_close(model.means.detach()[0], x.mean(0))
    torch.testing.assert_close(model.covariances.detach()[0], torch.cov(x.mT, correction=0))
