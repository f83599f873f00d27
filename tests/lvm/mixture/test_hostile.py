"""GaussianMixture on data that breaks mixtures: far away, tiny, constant, collapsing, not finite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator

from lvm.mixture.covariance import CollapsedComponent, Covariance, Spherical
from lvm.mixture.em import EM
from lvm.mixture.model import GaussianMixture
from lvm.mixture.regularisation import Relative
from lvm.mixture.starts import Given, KMeansPlusPlus, RandomPoints, RandomResponsibilities
from lvm.mixture.statistics import Statistics
from tests.lvm.mixture.mixtures import STRUCTURES, UNREGULARISED, dense, random_mixture, seed, separated

pytestmark = pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)


def test_float32_far_from_the_origin(covariance: Covariance) -> None:
    """scikit-learn's issue 30382: diagonal and spherical say 112.1, tied 60.1."""
    x = torch.tensor([[9999.0], [0.0]])
    model = GaussianMixture(1, 2, covariance)
    model.fit(x, em=EM(regularisation=0.1), generator=seed(0))
    assert model.means.dtype == torch.float32
    torch.testing.assert_close(dense(model), torch.full((2, 1, 1), 0.1), rtol=1e-6, atol=0)
    assert sorted(model.means.flatten().tolist()) == [0, 9999]


@pytest.mark.parametrize(("factor", "offset"), [(1e-8, 0.0), (1e8, 0.0), (1.0, 1e8), (1e-8, 1.0), (1e150, 0.0)])
def test_units_and_origin_do_not_matter(
    covariance: Covariance, factor: float, offset: float, generator: Generator
) -> None:
    x = separated(generator)
    moved = x * factor + offset
    # what offset + factor x can still resolve, in standard deviations
    resolution = 1e-16 * offset / factor
    values = []
    for data in (x, moved):
        model = GaussianMixture(3, 3, covariance)
        model.fit(data, em=EM(max_iterations=20, tolerance=0.0), generator=seed(2))
        values.append(model.log_prob(data).detach() + (3 * np.log(factor) if data is moved else 0))
    torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=1e-9 + 1e4 * resolution)


def test_hostile_data_is_one_clear_error(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator, n=20)
    model = GaussianMixture(3, 3, covariance)
    state = {name: value.clone() for name, value in model.double().state_dict().items()}
    missing, infinite = x.clone(), x.clone()
    missing[3, 1], infinite[0, 0] = torch.nan, torch.inf
    for data, error, match in (
        (missing, ValueError, "row 3, column 1 is nan"),
        (infinite, ValueError, "row 0, column 0 is inf"),
        (x[:2], ValueError, "3 components needs at least as many rows; got 2"),
        (x[:0], ValueError, "at least one row"),
        (x[:, :2], ValueError, r"\[\*batch, 3\]"),
        (x[0], ValueError, r"\[n, 3\]"),
        (x.long(), TypeError, "floating point"),
        (iter([x]), TypeError, "an iterator is spent after one pass"),
        (3.0, TypeError, "must be a tensor, an array or an iterable"),
        (x[:1].expand(20, 3), ValueError, "all rows are equal"),
        (x * 1e200, ValueError, "overflow"),
    ):
        with pytest.raises(error, match=match):
            model.fit(data)
    for weights, match in (
        (torch.ones(19), "one weight for each row"),
        (torch.ones(20, 1), "one for each row"),
        ([1.0] * 20, "got list"),
        (torch.zeros(20), "at least one row of data; got none of positive weight"),
        (torch.tensor([-1.0] + [1.0] * 19), "none of them negative; got -1.0"),
        (torch.tensor([torch.nan] + [1.0] * 19), "finite weights"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(x, weights=weights)  # type: ignore[arg-type]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_bad_settings_are_one_clear_error(covariance: Covariance, generator: Generator) -> None:
    for make, match in (
        (lambda: EM(max_iterations=0), "max_iterations must be a positive int"),
        (lambda: EM(restarts=0), "restarts must be a positive int"),
        (lambda: EM(rows_at_once=-1), "rows_at_once must be a positive int"),
        (lambda: EM(tolerance=-1.0), "tolerance must be"),
        (lambda: EM(regularisation=-1.0), "regularisation must be"),
        (lambda: EM(regularisation=Relative(float("nan"))), "regularisation must be"),
        (lambda: EM(start=Given(torch.zeros(2, 2)), restarts=2), "starts alike every time"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
    with pytest.raises(TypeError, match="KMeansPlusPlus"):
        EM(start="kmeans")  # type: ignore[arg-type]
    x = separated(generator, n=20)
    with pytest.raises(ValueError, match=r"means must be a tensor of shape \[3, 3\]; got \[2, 3\]"):
        GaussianMixture(3, 3, covariance).fit(x, em=EM(start=Given(x[:2])))
    far = Given(x[:3] + 1e200, torch.full((3,), 1 / 3), covariance.unpack(torch.zeros(covariance.shape(3, 3))))
    with pytest.raises(ValueError, match="so far from every"):
        GaussianMixture(3, 3, covariance).fit(x, em=EM(start=far))


def test_a_constant_column(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    x[:, 1] = 0.1
    model = GaussianMixture(3, 2, covariance)
    if covariance == Spherical():  # its variance is an average over features, so the likelihood has a maximum
        assert model.fit(x, em=UNREGULARISED, generator=seed(0)).converged
        return
    for em in (EM(), UNREGULARISED):
        with pytest.raises(ValueError, match="column 1 is constant"):
            model.fit(x, em=em)
    model.fit(x, em=EM(regularisation=1e-4), generator=seed(0))
    torch.testing.assert_close(dense(model)[:, 1, 1], torch.full((2,), 1e-4, dtype=x.dtype), rtol=1e-9, atol=0)


def test_linearly_dependent_columns(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator)
    x[:, 2] = x[:, 0] - 3 * x[:, 1]
    model = GaussianMixture(3, 2, covariance)
    if covariance.dense:
        with pytest.raises(CollapsedComponent, match="linearly dependent"):
            model.fit(x, em=replace(UNREGULARISED, restarts=2), generator=seed(0))
    else:
        assert model.fit(x, em=UNREGULARISED, generator=seed(0)).converged
    assert model.fit(x, generator=seed(0)).converged


def test_fewer_distinct_rows_than_components(covariance: Covariance) -> None:
    x = torch.tensor([[0.0, 1.0], [3.0, -2.0]], dtype=torch.float64).repeat(5, 1)
    for start in (KMeansPlusPlus(), RandomPoints(), RandomPoints(3), RandomResponsibilities()):
        model = GaussianMixture(2, 4, covariance)
        history = model.fit(x, em=EM(start=start, regularisation=0.1), generator=seed(1))
        assert np.isfinite(history.objective).all()
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        assert model.sample(10, generator=seed(0)).isfinite().all()
    alike = GaussianMixture(2, 2, covariance)
    alike.fit(x[:1].repeat(4, 1), em=EM(regularisation=0.1), generator=seed(1))
    torch.testing.assert_close(dense(alike), 0.1 * torch.eye(2, dtype=x.dtype).expand(2, 2, 2))


def test_a_component_without_rows_keeps_its_place(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator, components=1)
    model = random_mixture(covariance, generator, components=2)
    with torch.no_grad():
        model.decoder.means[1] = 1e6
    far, sigma = model.means[1].detach().clone(), dense(model)[1]
    values = [model.em_step(x) for _ in range(5)]
    assert np.diff(values).min() > -1e-12
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.equal(model.means[1], far)
    if len(covariance.shape(2, 2)) > 0 and covariance.shape(2, 3)[0] == 2:  # its own covariance
        torch.testing.assert_close(dense(model)[1], sigma)
    assert model.weights[1] < 1e-200
    single = GaussianMixture(3, 1, covariance)
    single.fit(x, em=UNREGULARISED)
    torch.testing.assert_close(model.log_prob(x), single.log_prob(x))


def test_a_collapse_is_an_error_and_the_last_good_parameters_stay(covariance: Covariance, generator: Generator) -> None:
    """One row sits on a component of its own: without regularisation its variance goes to 0 (tied: both do)."""
    x = torch.cat([torch.zeros(10, 2), torch.full((10, 2), 5.0)]).double()
    if covariance.shape(2, 2)[0] == 2 and covariance.shape(3, 2)[0] == 3:
        x = torch.cat([torch.randn(30, 2, generator=generator, dtype=torch.float64), torch.full((1, 2), 50.0)])
    start = Given(
        torch.stack([x[0], x[-1]]), torch.full((2,), 0.5), 3 * covariance.unpack(torch.zeros(covariance.shape(2, 2)))
    )
    model = GaussianMixture(2, 2, covariance)
    with pytest.raises(CollapsedComponent, match="collapsed onto too few") as caught:
        model.fit(x, em=replace(UNREGULARISED, start=start))
    history = caught.value.history
    assert history is not None
    assert np.isfinite(history.objective).all()
    assert model.log_density(x).mean == pytest.approx(history.objective[-1], rel=1e-9)
    before = model.log_prob(x)
    assert before.isfinite().all()
    with pytest.raises(CollapsedComponent):
        model.em_step(x)
    assert torch.equal(model.log_prob(x), before)
    history = model.fit(x, em=EM(start=start))
    assert history.converged


def test_float32_follows_float64(covariance: Covariance, generator: Generator) -> None:
    x = separated(generator).float()
    models = [GaussianMixture(3, 3, covariance) for _ in range(2)]
    histories = [model.fit(data, generator=seed(0)) for model, data in zip(models, (x, x.double()), strict=True)]
    assert histories[0].objective == histories[1].objective
    assert models[0].log_prob(x).dtype == torch.float32
    torch.testing.assert_close(models[0].log_prob(x).double(), models[1].log_prob(x.double()), rtol=1e-5, atol=1e-4)


def test_a_variance_below_the_resolution_of_the_mean_is_a_collapse(covariance: Covariance) -> None:
    """At 1e8 float64 resolves 1.5e-8: a variance of 1e-18 there is rounding error, near 0 it is a variance."""
    model = GaussianMixture(2, 2, covariance).double()
    before = model.state_dict()["decoder.means"].clone()
    count, total = torch.full((2,), 5.0, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    scatter = count[0] * 1e-18 * covariance.unpack(torch.zeros(covariance.shape(2, 2), dtype=torch.float64))
    with pytest.raises(CollapsedComponent):
        model.update(Statistics(covariance, count, torch.full((2, 2), 1e8, dtype=torch.float64), scatter, total))
    assert torch.equal(model.means, before)
    model.update(Statistics(covariance, count, torch.full((2, 2), 1e-9, dtype=torch.float64), scatter, total))
    assert dense(model).diagonal(dim1=1, dim2=2).max() <= 1.1e-18
