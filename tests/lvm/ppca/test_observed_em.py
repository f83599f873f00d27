"""EM for PPCA with missing entries: the theorem, the complete-data path, and what it is for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from torch import Generator, Tensor

from lvm import Present
from lvm.ppca import PPCA, EMSolver, MissingEM, RandomWeight
from tests.lvm.missing.incomplete import awkward, holes
from tests.lvm.vae.linear_examples import covariance_of, data, random_ppca
from tests.places import SHARED_DATA

OIL_FLOW = SHARED_DATA / "oil_flow.npz"

Record = Callable[[str, float, float], None]


@pytest.mark.parametrize(("n", "features"), [(60, 6), (25, 30)])
def test_never_decreases_the_observed_log_likelihood(n: int, features: int, generator: Generator) -> None:
    x = awkward(data(n, features, 3, generator), generator)
    history = PPCA(features, 2).observed.fit(x, MissingEM(max_iterations=300, tolerance=0.0))
    assert history.objective[-1] - history.objective[0] > 0.1
    assert np.diff(history.objective).min() > -1e-12 * abs(history.objective[-1])  # sums of ~10² terms


def test_history_is_the_mean_over_rows_that_have_an_entry(generator: Generator) -> None:
    x = awkward(data(60, 6, 2, generator), generator)
    model = PPCA(6, 2)
    history = model.observed.fit(x, MissingEM(max_iterations=7))
    value = model.observed.log_prob(x).sum().item() / int((~x.isnan()).any(1).sum())
    assert history.objective[-1] == pytest.approx(value, rel=1e-12)
    assert (history.converged, history.stopped) == (False, "7 iterations done")


def test_gradient_vanishes_at_the_maximum(generator: Generator) -> None:
    x = holes(data(200, 6, 2, generator), 0.3, generator)
    model = PPCA(6, 2)
    assert model.observed.fit(x, MissingEM(tolerance=1e-13)).converged
    model.observed.log_prob(x).mean().backward()
    # A last gain of 1e-13 nats at a linear rate leaves a gradient of the order of its root times that of the curvature.
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() < 3e-5


@pytest.mark.parametrize(("n", "features"), [(80, 6), (20, 30)])
def test_complete_data_climb_as_they_do_without_holes(
    n: int, features: int, generator: Generator, record_measurement: Record
) -> None:
    x = data(n, features, 2, generator)
    plain, ours = PPCA(features, 2), PPCA(features, 2)
    expected = plain.fit(x, solver=EMSolver(start=RandomWeight(5)))
    found = ours.observed.fit(x, MissingEM(start=RandomWeight(5)))
    assert len(found.objective) == len(expected.objective)
    # Thirty iterations of the same algebra in another order.
    error = np.abs(np.divide(found.objective, expected.objective) - 1).max()
    record_measurement("EM with nothing missing vs EM, log p, relative", error, 1e-10)
    error = (covariance_of(ours) - covariance_of(plain)).abs().max() / covariance_of(plain).abs().max()
    record_measurement("EM with nothing missing vs EM, covariance, relative", error.item(), 1e-10)
    torch.testing.assert_close(ours.decoder.mean, plain.decoder.mean, rtol=1e-10, atol=1e-10)


def test_one_step_is_the_regression_written_out_by_rows(generator: Generator) -> None:
    x = awkward(data(30, 5, 2, generator), generator)
    model = random_ppca(5, 2, generator)
    before = copy.deepcopy(model)
    model.observed.fit(x, MissingEM(max_iterations=1, start=Present()))
    posterior = before.observed.posterior(x)
    kept = [i for i in range(30) if not x[i].isnan().all()]
    outer, means = {}, {}
    for i in kept:
        mean = torch.cat([posterior.mean[i], torch.ones(1, dtype=torch.float64)])
        means[i] = mean
        outer[i] = torch.outer(mean, mean)
        outer[i][:2, :2] += posterior.covariance[i]
    rows, square, count = [], 0.0, 0
    for j in range(5):
        have = [i for i in kept if not x[i, j].isnan()]
        rows.append(torch.linalg.solve(sum(outer[i] for i in have), sum(x[i, j] * means[i] for i in have)))
    for j, row in enumerate(rows):
        for i in kept:
            if not x[i, j].isnan():
                square += x[i, j] ** 2 - 2 * x[i, j] * row @ means[i] + row @ outer[i] @ row
                count += 1
    latent = sum(outer.values()) / len(kept)
    mean, spread = latent[:2, 2], latent[:2, :2] - torch.outer(latent[:2, 2], latent[:2, 2])
    coefficients = torch.stack(rows)
    weight, offset = coefficients[:, :2], coefficients[:, 2]
    torch.testing.assert_close(model.noise_variance, square / count, rtol=1e-10, atol=0)
    torch.testing.assert_close(model.decoder.mean, offset + weight @ mean, rtol=1e-10, atol=1e-11)
    variance = model.noise_variance * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(covariance_of(model), weight @ spread @ weight.mT + variance, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("shift", "scale"), [(1e6, 1.0), (-1e8, 1e3), (0.0, 1e-8), (0.0, 1e8), (1.0, 1e-8)])
def test_offsets_and_scales(shift: float, scale: float, generator: Generator) -> None:
    x = holes(data(100, 8, 2, generator), 0.3, generator)
    plain, moved = PPCA(8, 2), PPCA(8, 2)
    em = MissingEM(max_iterations=30, tolerance=0.0)
    plain.observed.fit(x, em)
    far = scale * x + shift
    moved.observed.fit(far, em)
    entries = (~x.isnan()).sum(1).double()
    expected = (plain.observed.log_prob(x) - entries * math.log(scale)).mean().item()
    # x rounds to ε |shift| / scale of its own size, and the noise has a σ of 0.5.
    rounding = torch.finfo(torch.float64).eps * abs(shift) / scale
    assert moved.observed.log_prob(far).mean().item() == pytest.approx(expected, rel=1e-10, abs=100 * rounding)
    found = moved.observed.impute(far).mean.sub(shift).div(scale)
    # Both stop where log p no longer changes: there parameters are known to √ε = 1.5e-8.
    torch.testing.assert_close(found, plain.observed.impute(x).mean, rtol=5e-8, atol=5e-8 + 100 * rounding)


def test_float32_fits_by_float64_statistics(generator: Generator) -> None:
    x = holes(data(100, 8, 2, generator), 0.3, generator).float()
    single, double = PPCA(8, 2).double(), PPCA(8, 2)
    single.observed.fit(x)
    double.observed.fit(x.double())
    assert single.decoder.weight.dtype == torch.float32
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a, b.float())


def test_weights_are_repetitions_and_chunks_are_the_whole(generator: Generator) -> None:
    x = awkward(data(60, 6, 2, generator), generator)
    weights = torch.randint(1, 4, (60,), generator=generator)
    em = MissingEM(max_iterations=30)
    models = [PPCA(6, 2) for _ in range(4)]
    histories = [
        models[0].observed.fit(x, em, weights=weights),
        models[1].observed.fit(x.repeat_interleave(weights, 0), em),
        models[2].observed.fit([x[:7], x[7:40], x[40:]], em, weights=weights),
        models[3].observed.fit(x.numpy(), em, weights=weights),
    ]
    for model, history in zip(models[1:], histories[1:], strict=True):
        # Thirty iterations of sums in another order.
        torch.testing.assert_close(history.objective, histories[0].objective, rtol=1e-10, atol=0)
        for a, b in zip(model.parameters(), models[0].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_warm_start_goes_on(generator: Generator) -> None:
    x = holes(data(60, 6, 2, generator), 0.3, generator)
    once, twice = PPCA(6, 2), PPCA(6, 2)
    whole = once.observed.fit(x, MissingEM(max_iterations=20, tolerance=0.0))
    first = twice.observed.fit(x, MissingEM(max_iterations=12, tolerance=0.0))
    second = twice.observed.fit(x, MissingEM(max_iterations=8, tolerance=0.0, start=Present()))
    assert first.objective + second.objective[1:] == pytest.approx(whole.objective, rel=1e-12)
    assert second.objective[0] == first.objective[-1]


def test_columns_that_are_constant_or_empty(generator: Generator) -> None:
    x = holes(data(80, 6, 2, generator), 0.3, generator)
    x[:, 4] = x[:, 4] * 0 + (1e8 + 0.1)
    model = PPCA(6, 2)
    model.observed.fit(x)
    assert model.decoder.weight[4].abs().max() < 1e-6
    assert model.decoder.mean[4].item() == pytest.approx(1e8 + 0.1, rel=1e-15)
    x[:, 2] = torch.nan
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="column 2 has no entry in any row"):
        model.observed.fit(x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_rows_without_entries_say_nothing(generator: Generator) -> None:
    x = holes(data(50, 5, 2, generator), 0.3, generator)
    with_empty = torch.cat([x[:20], torch.full((9, 5), torch.nan, dtype=torch.float64), x[20:]])
    model, other = PPCA(5, 2), PPCA(5, 2)
    em = MissingEM(max_iterations=30)
    history = model.observed.fit(x, em)
    torch.testing.assert_close(other.observed.fit(with_empty, em).objective, history.objective, rtol=1e-11, atol=0)
    torch.testing.assert_close(other.decoder.weight, model.decoder.weight, rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="column 0 has no entry"):
        other.observed.fit(with_empty[20:29])


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.full((5, 3), torch.inf), ValueError, "row 0, column 0 is inf"),
        (torch.ones(5, 4), ValueError, r"\[\*batch, 3\]; got \[5, 4\]"),
        (torch.ones(5, 3, dtype=torch.int64), TypeError, "floating point"),
        (torch.ones(0, 3), ValueError, "expects at least one row of data; got none"),
        (torch.ones(5, 3), ValueError, "likelihood has no maximum"),
        ([torch.randn(5, 3), torch.full((2, 3), torch.inf)], ValueError, "begins with row 5"),
    ],
)
def test_bad_data(x: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PPCA(3, 1).observed.fit(x)


def test_more_freedom_than_entries_is_one_clear_error(generator: Generator) -> None:
    x = holes(data(12, 6, 2, generator, noise=0.0), 0.3, generator)
    with pytest.raises(ValueError, match=r"PPCA: .* Use fewer latent features"):
        PPCA(6, 4).observed.fit(x)


def largest_angle(model: PPCA, reference: PPCA) -> float:
    """Largest principal angle between two principal subspaces, degrees."""
    cosines = torch.linalg.svdvals(model.principal_axes.axes.mT @ reference.principal_axes.axes)
    return math.degrees(math.acos(min(1.0, cosines.min().item())))


def mean_imputed(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x.nanmean(0), x)


@pytest.mark.skipif(not OIL_FLOW.exists(), reason=f"needs the oil flow data at {OIL_FLOW}")
def test_oil_flow_with_30_percent_missing() -> None:
    with np.load(OIL_FLOW) as archive:
        key = next(k for k in archive.files if archive[k].ndim == 2 and archive[k].shape[1] == 12)
        x = torch.as_tensor(archive[key], dtype=torch.float64)
    for seed in range(3):
        generator = Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=generator)
        train, test = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
        incomplete = holes(train, 0.3, generator)
        complete, ours, imputed = (PPCA(12, 5) for _ in range(3))
        complete.fit(train)
        ours.observed.fit(incomplete)
        imputed.fit(mean_imputed(incomplete))
        gain = ours.log_density(test) - imputed.log_density(test)
        angle, of_imputed = largest_angle(ours, complete), largest_angle(imputed, complete)
        print(f"oil flow, seed {seed}: {gain}; largest angle {angle:.1f}°, of mean imputation {of_imputed:.1f}°")
        assert gain.mean > 4 * gain.standard_error
        assert angle < min(10, of_imputed)


def test_wine_with_30_percent_missing() -> None:
    # 178 rows are few: each is held out once, in five folds. With more than two latents the gain drowns in its error.
    x = torch.as_tensor(load_wine().data)
    x = (x - x.mean(0)) / x.std(0)
    for seed in range(3):
        generator = Generator().manual_seed(seed)
        fold = torch.randperm(len(x), generator=generator) % 5
        incomplete = holes(x, 0.3, generator)
        gains = []
        for held_out in range(5):
            ours, imputed = PPCA(13, 2), PPCA(13, 2)
            ours.observed.fit(incomplete[fold != held_out])
            imputed.fit(mean_imputed(incomplete[fold != held_out]))
            test = x[fold == held_out]
            gains.append(ours.log_prob(test) - imputed.log_prob(test))
        gain = torch.cat(gains).detach()
        error = gain.std() / math.sqrt(len(gain))
        print(f"wine, seed {seed}: {gain.mean():.3f} ± {error:.3f} nats")
        assert gain.mean() > 4 * error
