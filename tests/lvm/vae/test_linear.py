"""The linear VAE: its bound in closed form, its gap, and PPCA as its optimum."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Generator, Tensor

from density import Kind, Training, constant, kl, lbfgs
from lvm.em import Present
from lvm.evidence import gap
from lvm.linear_gaussian import LinearGaussianPosterior
from lvm.ppca.model import PPCA
from lvm.vae.linear import FULL_BATCH, LinearVAE

Record = Callable[[str, float, float], None]
QUIET = replace(FULL_BATCH, progress=False)


def random_model(features: int, latent_features: int, generator: Generator) -> LinearVAE:
    model = LinearVAE(features, latent_features, generator=generator).double()
    with torch.no_grad():
        for tensor in (*model.parameters(), model.encoder.centre):
            tensor.copy_(0.7 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return model


def data(n: int, features: int, generator: Generator, *, noise: float = 0.5) -> Tensor:
    variances = torch.tensor([3.0, 1.5], dtype=torch.float64)
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64) * variances
    axes, _ = torch.linalg.qr(torch.randn(features, 2, generator=generator, dtype=torch.float64))
    return z @ axes.mT + noise * torch.randn(n, features, generator=generator, dtype=torch.float64) + 3.0


@pytest.mark.parametrize(("features", "latent_features"), [(5, 2), (4, 4), (3, 5)])
def test_log_prob_is_the_exact_marginal(features: int, latent_features: int, generator: Generator) -> None:
    model = random_model(features, latent_features, generator)
    x = torch.randn(10, features, generator=generator, dtype=torch.float64)
    weight, mean = model.decoder.weight.detach().numpy(), model.decoder.mean.detach().numpy()
    covariance = weight @ weight.T + math.exp(2 * model.decoder.log_std.item()) * np.eye(features)
    expected = multivariate_normal(mean, covariance).logpdf(x.numpy())
    np.testing.assert_allclose(model.log_prob(x).detach().numpy(), expected, rtol=1e-10)
    assert model.log_density(x).kind is Kind.EXACT


def test_closed_form_elbo_is_the_mean_log_weight(generator: Generator) -> None:
    model = random_model(5, 2, generator)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    draws = 20_000
    log_weights = model.log_weights(x, draws, generator=generator)
    deviation = (log_weights.mean(0) - model.elbo_closed_form(x)) / (log_weights.std(0) / math.sqrt(draws))
    assert deviation.abs().max() < 4


def test_closed_form_elbo_is_log_p_minus_the_divergence_from_the_posterior(
    generator: Generator, record_measurement: Record
) -> None:
    model = random_model(6, 3, generator)
    x = torch.randn(10, 6, generator=generator, dtype=torch.float64)
    divergence = kl(model.encoder, LinearGaussianPosterior(model.decoder), context=x)
    assert divergence is not None
    error = (model.elbo_closed_form(x) + divergence - model.log_prob(x)).abs().max() / model.log_prob(x).abs().max()
    record_measurement("linear VAE: log p = ELBO + KL, relative", error.item(), 1e-12)


def test_closed_form_elbo_has_the_gradient_of_the_bound(generator: Generator) -> None:
    model = random_model(4, 2, generator)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    parameters = list(model.parameters())
    closed = torch.autograd.grad(model.elbo_closed_form(x).sum(), parameters)
    divergence = kl(model.encoder, LinearGaussianPosterior(model.decoder), context=x)
    assert divergence is not None
    other = torch.autograd.grad((model.log_prob(x) - divergence).sum(), parameters)
    for a, b in zip(closed, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("features", "latent_features"), [(6, 2), (10, 5), (3, 3)])
def test_gap_of_the_best_diagonal_encoder_is_lucas_formula(
    features: int, latent_features: int, generator: Generator, record_measurement: Record
) -> None:
    model = random_model(features, latent_features, generator)
    model.set_optimal_encoder()
    x = 2 * torch.randn(20, features, generator=generator, dtype=torch.float64)
    weight = model.decoder.weight.detach()
    m = weight.mT @ weight + model.decoder.noise_variance.detach() * torch.eye(latent_features, dtype=torch.float64)
    expected = 0.5 * (m.diagonal().log().sum() - torch.linalg.slogdet(m).logabsdet)
    assert expected > 0.01
    difference = model.log_prob(x) - model.elbo_closed_form(x)
    record_measurement("linear VAE: gap vs closed form, nats", (difference - expected).abs().max().item(), 1e-10)
    torch.testing.assert_close(model.closed_form_gap(), expected, rtol=1e-11, atol=0)


def test_sampled_gap_agrees_with_the_closed_form(generator: Generator) -> None:
    model = random_model(6, 3, generator)
    model.set_optimal_encoder()
    x = model.sample(5, generator=generator).detach()
    result = gap(model, x, draws=20_000, generator=generator)
    assert result.log_density.kind is Kind.EXACT
    error = result.difference.monte_carlo_error
    assert error is not None
    assert ((result.difference.value - model.closed_form_gap().detach()) / error).abs().max() < 4


def test_no_diagonal_encoder_beats_the_optimal_one(generator: Generator) -> None:
    model = random_model(5, 2, generator)
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    model.set_optimal_encoder()
    model.elbo_closed_form(x).mean().backward()
    for parameter in model.encoder.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 1e-12
    best = model.elbo_closed_form(x)
    for _ in range(10):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in other.encoder.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        assert bool((other.elbo_closed_form(x) < best).all())


def test_gap_vanishes_for_orthogonal_columns(generator: Generator) -> None:
    model = random_model(6, 3, generator)
    with torch.no_grad():
        left, singular, _ = torch.linalg.svd(model.decoder.weight, full_matrices=False)
        model.decoder.weight.copy_(left * singular)
    model.set_optimal_encoder()
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    assert abs(model.closed_form_gap().item()) < 1e-14
    torch.testing.assert_close(model.elbo_closed_form(x), model.log_prob(x), rtol=1e-13, atol=0)
    torch.testing.assert_close(model.log_weights(x, 4, generator=generator)[3], model.log_prob(x), rtol=1e-12, atol=0)


def test_the_fitted_model_is_ppca(generator: Generator, record_measurement: Record) -> None:
    x = data(200, 6, generator)
    model = LinearVAE(6, 2)
    history = model.fit(x, QUIET, generator=generator)
    ppca = PPCA(6, 2)
    best = ppca.fit(x).objective[0]
    assert history.objective[-1] == pytest.approx(model.elbo_closed_form(x).mean().item(), rel=1e-9)
    # L-BFGS stops when a step changes the objective by 1e-9 nats.
    record_measurement("fitted linear VAE: PPCA log p - ELBO, nats", best - history.objective[-1], 1e-7)
    assert history.objective[-1] <= best + 1e-12
    assert model.closed_form_gap().item() < 1e-7
    torch.testing.assert_close(model.decoder.noise_variance.detach(), ppca.noise_variance.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(model.decoder.mean, ppca.decoder.mean, rtol=0, atol=1e-3)
    # Its columns are the principal directions themselves, up to order and sign (Lucas et al. 2019).
    cosines = torch.nn.functional.normalize(model.decoder.weight.detach(), dim=0).mT @ ppca.principal_axes.axes.detach()
    torch.testing.assert_close(cosines.abs().sort().values, torch.tensor([[0.0, 1.0]] * 2).double(), rtol=0, atol=1e-3)


def test_of_weighted_rows_it_is_ppca_of_these(generator: Generator) -> None:
    x = data(120, 5, generator)
    weights = torch.arange(120.0).double() % 4
    model, ppca = LinearVAE(5, 2), PPCA(5, 2)
    history = model.fit(x, QUIET, weights=weights, generator=generator)
    best = ppca.fit(x, weights=weights).objective[0]
    assert history.objective[-1] == pytest.approx(best, abs=1e-7)
    torch.testing.assert_close(model.decoder.noise_variance.detach(), ppca.noise_variance.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(model.decoder.mean, ppca.decoder.mean, rtol=0, atol=1e-3)
    assert ppca.fit(x).objective[0] != pytest.approx(best, abs=1e-2), "the weights matter"
    starts = [
        LinearVAE(5, 2).fit(rows, replace(QUIET, epochs=1), weights=own, generator=Generator().manual_seed(1)).objective
        for rows, own in ((x.repeat_interleave(weights.long(), 0), None), (x, weights))
    ]
    assert starts[0] == pytest.approx(starts[1], rel=1e-6)  # but for what L-BFGS makes of rounding


def test_minibatch_training_with_held_out_rows(generator: Generator) -> None:
    x = data(300, 5, generator)
    model = LinearVAE(5, 2)
    training = Training(epochs=60, batch_size=64, learning_rate=2e-2, progress=False)
    history = model.fit(x, training, generator=generator)
    assert history.validation
    best = PPCA(5, 2).fit(x).objective[0]
    assert best - 0.1 < model.elbo_closed_form(x).mean().item() < best


@pytest.mark.parametrize(("shift", "scale"), [(1e8, 1.0), (0.0, 1e-8), (-3.0, 1e8)])
def test_fit_is_equivariant_to_shift_and_scale(shift: float, scale: float, generator: Generator) -> None:
    x = data(100, 5, generator)
    training = Training(
        epochs=5, batch_size=None, optimiser=lbfgs, learning_rate=1.0, schedule=constant, validation=0.0, progress=False
    )
    plain, moved = LinearVAE(5, 2), LinearVAE(5, 2)
    first = plain.fit(x, training, generator=Generator().manual_seed(0))
    far = scale * x + shift
    second = moved.fit(far, training, generator=Generator().manual_seed(0))
    expected = first.objective[-1] - 5 * math.log(scale)
    # Rounding x to ε · 1e8 moves the path of L-BFGS a little; without, only ε.
    assert second.objective[-1] == pytest.approx(expected, abs=1e-4)
    assert moved.elbo_closed_form(far).mean().item() == pytest.approx(
        plain.elbo_closed_form(x).mean().item() - 5 * math.log(scale), abs=1e-4
    )


def test_warm_start_goes_on_from_where_it_is(generator: Generator) -> None:
    x = 10 * data(100, 5, generator) + 50
    model = LinearVAE(5, 2)
    short = replace(QUIET, epochs=2)
    model.fit(x, short, generator=generator)
    before = model.elbo_closed_form(x).mean().item()
    history = model.fit(x, short, start=Present())
    with pytest.raises(TypeError, match=r"LinearVAE.fit takes start=Present\(\) instead of warm_start"):
        model.fit(x, short, warm_start=True)  # type: ignore[call-arg]
    assert history.objective[0] == pytest.approx(before, rel=1e-10)
    assert history.objective[-1] >= before


def test_moves_to_the_dtype_of_the_data(generator: Generator) -> None:
    x = data(100, 5, generator).float()
    model = LinearVAE(5, 2).double()
    model.fit(x, replace(QUIET, epochs=20), generator=generator)
    assert model.log_prob(x).dtype == torch.float32
    assert all(t.dtype == torch.float32 for t in model.state_dict().values())
    best = PPCA(5, 2).fit(x).objective[0]
    assert best - 1e-2 < model.elbo_closed_form(x).mean().item() < best + 1e-4  # float32: ε · 10 terms of order 10


def test_generation_needs_no_encoder(generator: Generator) -> None:
    model = random_model(4, 2, generator)
    before = model.sample(5, generator=Generator().manual_seed(1))
    del model.encoder
    assert torch.equal(model.sample(5, generator=Generator().manual_seed(1)), before)


def test_encode_and_reconstruct(generator: Generator) -> None:
    model = random_model(4, 2, generator)
    x = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    z = (x - model.encoder.centre) @ model.encoder.weight.mT + model.encoder.bias
    torch.testing.assert_close(model.encode(x), z)
    torch.testing.assert_close(model.reconstruct(x), z @ model.decoder.weight.mT + model.decoder.mean)


def test_state_copies_and_pickles(generator: Generator) -> None:
    model = random_model(4, 2, generator)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    loaded = LinearVAE(4, 2).double()
    loaded.load_state_dict(model.state_dict())
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.elbo_closed_form(x), model.elbo_closed_form(x))
        assert torch.equal(other.log_prob(x), model.log_prob(x))


def test_construction_is_seeded() -> None:
    first, second = (LinearVAE(4, 2, generator=Generator().manual_seed(5)) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def low_rank(n: int, dtype: torch.dtype) -> Tensor:
    generator = Generator().manual_seed(0)
    z = torch.randn(n, 2, generator=generator, dtype=dtype)
    return z @ torch.randn(2, 6, generator=generator, dtype=dtype) + 5


SINGULAR = {
    "one row": torch.ones(1, 6),
    "three rows": torch.randn(3, 6, generator=Generator().manual_seed(0)),
    "all rows equal": torch.full((50, 6), 0.1),
    "all rows equal, far from the origin": torch.full((50, 6), 1e8 + 0.1, dtype=torch.float64),
    "low rank": low_rank(50, torch.float64),
    "low rank, float32": low_rank(50, torch.float32),
    "low rank, far from the origin": low_rank(50, torch.float64) + 1e8,
}


@pytest.mark.parametrize("name", SINGULAR)
def test_data_without_noise_is_one_clear_error(name: str) -> None:
    with pytest.raises(ValueError, match="sigma falls to 0 and the ELBO has no maximum"):
        LinearVAE(6, 2).fit(SINGULAR[name], QUIET)


def test_constant_columns_are_fine(generator: Generator) -> None:
    x = data(100, 6, generator)
    x[:, 3], x[:, 5] = 0.1, 1e8
    model = LinearVAE(6, 2)
    model.fit(x, QUIET, generator=generator)
    best = PPCA(6, 2).fit(x).objective[0]
    assert best - 1e-5 < model.elbo_closed_form(x).mean().item() < best + 1e-6


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(5, 3, dtype=torch.int64), TypeError, "floating point"),
        (torch.ones(5, 4), ValueError, r"\[\*batch, 3\]; got \[5, 4\]"),
        (torch.ones(0, 3), ValueError, "at least one row"),
        (torch.tensor([[1.0, 2.0, torch.nan]]), ValueError, "row 0, column 2 is nan"),
        (torch.tensor([[1.0, 2.0, torch.inf]]), ValueError, "row 0, column 2 is inf"),
    ],
)
def test_bad_data(x: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LinearVAE(3, 1).fit(x)
    with pytest.raises(error, match=message):
        LinearVAE(3, 1).log_density(x)


@pytest.mark.parametrize("sizes", [(0, 1), (3, 0)])
def test_bad_sizes(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive int"):
        LinearVAE(*sizes)
