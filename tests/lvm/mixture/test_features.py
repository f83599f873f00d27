"""The E-step by quadratic features: the laws of EM again, its error against its bound, and when it stands back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from lvm.mixture import expectation as module
from lvm.mixture.covariance import Covariance, Diagonal, Full, Spherical
from lvm.mixture.expectation import expectation
from lvm.mixture.model import GaussianMixture
from lvm.mixture.statistics import Statistics, accumulate
from tests.lvm.mixture import test_em as laws
from tests.lvm.mixture import test_hostile as hostile
from tests.lvm.mixture.mixtures import STRUCTURES, dense, random_mixture, seed, separated

Law = Callable[[Covariance, Generator], None]
structures = pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)


@pytest.fixture
def always_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are left to residuals otherwise."""
    monkeypatch.setattr(module, "FEWEST_RESIDUALS", 0)


@pytest.mark.usefixtures("always_features")
@structures
@pytest.mark.parametrize(
    "law",
    [
        laws.test_em_never_decreases_log_p,
        laws.test_history_is_the_mean_log_likelihood_before_every_step,
        laws.test_chunks_and_halves_give_the_same_statistics,
        laws.test_a_weight_of_three_is_the_row_three_times,
        laws.test_k_means_ends_at_a_fixed_point,
        hostile.test_linearly_dependent_columns,
        hostile.test_a_constant_column,
        hostile.test_a_component_without_rows_keeps_its_place,
        hostile.test_a_collapse_is_an_error_and_the_last_good_parameters_stay,
        hostile.test_float32_follows_float64,
    ],
    ids=lambda law: law.__name__,
)
def test_the_laws_of_em_hold(law: Law, covariance: Covariance, generator: Generator) -> None:
    law(covariance, generator)


@pytest.mark.usefixtures("always_features")
@structures
@pytest.mark.parametrize(("factor", "offset"), [(1e-8, 0.0), (1e8, 0.0), (1.0, 1e8), (1e-8, 1.0), (1e150, 0.0)])
def test_units_and_origin_do_not_matter(
    covariance: Covariance, factor: float, offset: float, generator: Generator
) -> None:
    hostile.test_units_and_origin_do_not_matter(covariance, factor, offset, generator)


def by_residuals(model: GaussianMixture, x: Tensor, weights: Tensor | None = None) -> Statistics:
    """The E-step with no feature."""
    at = model.parameters_on(x.device)
    precision = model.covariance.precision(at.factor)

    def assign(residual: Tensor) -> tuple[Tensor, Tensor]:
        log_joint = at.constant.unsqueeze(1) - 0.5 * model.covariance.distance(residual, precision)
        return (log_joint - log_joint.logsumexp(0)).exp(), log_joint.logsumexp(0)

    return accumulate(model.covariance, [(x, weights)], at.means, assign)


def assert_same(one: Statistics, other: Statistics, tolerance: float = 1e-9) -> None:
    scale = other.scatter.abs().amax()
    torch.testing.assert_close(one.count, other.count, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.mean, other.mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.scatter / scale, other.scatter / scale, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.log_likelihood, other.log_likelihood, rtol=tolerance, atol=0)


@structures
@pytest.mark.parametrize(("features", "components"), [(1, 5), (2, 1), (3, 4), (33, 3), (40, 2)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_features_and_residuals_agree(
    covariance: Covariance,
    features: int,
    components: int,
    weighted: bool,
    threads: int,
    generator: Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """33 and 40 features are formed four coordinates at a time, 40 + 1 with a rest; 4 threads share 64 rows, not 22."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with torch.no_grad():
        model = random_mixture(covariance, generator, features=features, components=components)
        if covariance.dense:  # dense random factors in 40 dimensions have condition numbers of 1e9
            model.decoder.factor *= 3 / (2 + features)
        x = model.sample(400, generator=generator) + 0.3
    weights = torch.rand(400, generator=generator, dtype=x.dtype) + 0.5 if weighted else None
    parts = [(x[:150], None if weights is None else weights[:150])] * 2
    found = expectation(model.parameters_on(x.device), parts, rows_at_once=64)
    assert_same(found, by_residuals(model, x[:150].repeat(2, 1), None if weights is None else weights[:150].repeat(2)))


def longdouble_log_joint(model: GaussianMixture, x: Tensor) -> np.ndarray:
    """[K, n] with 64 bits of mantissa, from the factors as they are."""
    at = model.parameters_on(x.device)
    columns = []
    for k, constant in enumerate(at.constant.numpy()):
        if model.covariance.dense:
            packed = (at.factor if model.covariance.shared else at.factor[k]).numpy().astype(np.longdouble)
            root = np.tril(packed, -1) + np.diag(np.exp(np.diag(packed)))
        else:
            root = np.diag(np.exp(at.factor[k].expand(model.features).numpy().astype(np.longdouble)))
        residual = x.numpy().astype(np.longdouble) - at.means[k].numpy().astype(np.longdouble)
        z = np.zeros_like(residual)
        for i in range(model.features):
            z[:, i] = (residual[:, i] - z[:, :i] @ root[i, :i]) / root[i, i]
        columns.append(constant.astype(np.longdouble) - (z**2).sum(1) / 2)
    return np.stack(columns)


@structures
@pytest.mark.parametrize("features", [1, 3, 12, 48])
@torch.no_grad()
def test_the_error_is_within_its_bound_where_features_are_safe(
    covariance: Covariance,
    features: int,
    generator: Generator,
    record_measurement: Callable[[str, float, float], None],
) -> None:
    """Components that are tighter and tighter, until one is not safe, and rows as far out as the loosest allows."""
    checked = 0
    for tightness in range(10):
        model = random_mixture(covariance, generator, features=features, components=4)
        model.decoder.factor *= 0.3 / (2 + features)
        diagonal = model.decoder.factor.diagonal(dim1=-2, dim2=-1) if covariance.dense else model.decoder.factor
        diagonal -= 1.2 * tightness
        noise = torch.randn(64, features, generator=generator, dtype=torch.float64)
        rows = model.means[torch.arange(64) % 4] + model.means.std() * noise
        at = model.parameters_on(rows.device)
        form = covariance.quadratic(at)
        form.take(rows)
        safe = [component for component in range(4) if component not in form.unsafe()]
        if safe:
            error = float(np.abs(form.log_joint().numpy() - longdouble_log_joint(model, rows))[safe].max())
            record_measurement(
                "log-joint by features against 64-bit mantissas, nats", error, 1e-8
            )  # what the module promises
        checked += len(safe)
    # the guard must let some through, and stand in the way of others
    assert 0 < checked < 40


@structures
def test_outliers_leave_the_features(covariance: Covariance, generator: Generator) -> None:
    """One row at 1e12, where the features of its chunk would be wrong by 1e8 nats."""
    x = separated(generator)
    model = random_mixture(covariance, generator, components=3)
    x[17] = 1e12
    assert_same(expectation(model.parameters_on(x.device), [(x, None)]), by_residuals(model, x))
    assert_same(expectation(model.parameters_on(x.device), [(x, None)], rows_at_once=20), by_residuals(model, x))


@pytest.mark.parametrize("covariance", [Full(), Diagonal(), Spherical()], ids=repr)
@torch.no_grad()
def test_only_tight_components_leave_the_features(covariance: Covariance, generator: Generator) -> None:
    model = random_mixture(covariance, generator, components=3)
    factor = model.decoder.factor[1]
    (factor.diagonal() if covariance.dense else factor).sub_(16.0)
    x = model.sample(300, generator=generator)
    at = model.parameters_on(x.device)
    form = covariance.quadratic(at)
    form.take(x)
    assert form.unsafe() == [1]
    found, expected = expectation(at, [(x, None)]), by_residuals(model, x)
    assert_same(found, expected)
    torch.testing.assert_close(found.scatter[1], expected.scatter[1], rtol=1e-9, atol=0)


@structures
def test_a_component_that_shrinks_in_one_step_is_summed_again(covariance: Covariance) -> None:
    """A wide start on rows 1e-9 apart: about the mixture's centre their scatter has no digit."""
    cluster = torch.randn(200, 2, generator=seed(1), dtype=torch.float64) * 1e-9
    x = torch.cat([cluster, cluster.flip(0) + 1.0])
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    wide = covariance.add_ridge(torch.zeros(covariance.shape(2, 2)).double(), torch.full((2,), 0.01).double())
    model = GaussianMixture.from_parameters(torch.full((2,), 0.5).double(), means, wide, covariance)
    model.update(expectation(model.parameters_on(x.device), [(x, None)]))
    expected = x[:200].var(0, correction=0)
    found = dense(model)[0].diagonal()
    if covariance == Spherical():
        found, expected = found.mean(), expected.mean()
    # x − 1 itself has lost 7 of 16 digits; so have the variances of the second cluster, and of both if they are tied
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@structures
def test_rows_that_no_component_reaches_are_an_error(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator, n=6000)
    x[5] = 1e200
    model = random_mixture(covariance, generator, components=3)
    with pytest.raises(ValueError, match="so far from every"):
        model.summarise(x)
