"""The ridge that keeps a mixture's likelihood bounded: robust, local, in units of the data, and mentioned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from lvm import EM, Diagonal, Full, GaussianMixture, Spherical, StochasticEM, Tied
from lvm.mixture.covariance import Covariance
from lvm.mixture.regularisation import Local, Relative, felt, local_scale
from tests.lvm.mixture.mixtures import STRUCTURES, dense, seed

QUIET = EM(progress=False)


def normal(n: int, features: int, generator: Generator) -> Tensor:
    return torch.randn(n, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_clusters_far_apart_keep_their_variances(covariance: Covariance, generator: Generator) -> None:
    x = normal(1000, 2, generator)
    x[500:] += 1e4
    model = GaussianMixture(2, 2, covariance)
    model.fit(x, em=QUIET, generator=seed(0))
    variances = dense(model).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(variances, torch.ones_like(variances), rtol=0.2, atol=0)
    whole = GaussianMixture(2, 2, covariance)
    whole.fit(x, em=replace(QUIET, regularisation=Relative()), generator=seed(0))
    assert dense(whole).diagonal(dim1=-2, dim2=-1).min() > 20  # a share of the whole spread, for who asks for it


def test_one_row_far_away_costs_the_others_nothing(generator: Generator) -> None:
    x = normal(1000, 3, generator)
    x[7] = 1e6
    model = GaussianMixture(3, 2)
    history = model.fit(x, em=QUIET, generator=seed(0))
    others = torch.cat([x[:7], x[8:]])
    alone = GaussianMixture(3, 1)
    alone.fit(others, em=QUIET)
    # The row takes a component, whose weight the others lose: 1e-3 nats.
    assert model.log_prob(others).mean().item() == pytest.approx(alone.log_prob(others).mean().item(), abs=0.01)
    assert "regularisation is 100% of the covariance of component" in history.stopped


@pytest.mark.parametrize("components", [1, 4])
def test_it_is_the_spread_of_a_component_with_its_share(components: int, generator: Generator) -> None:
    units = torch.tensor([1.0, 30.0, 0.01], dtype=torch.float64)
    x = normal(20_000, 3, generator)
    place = torch.arange(20_000) % components
    x += 1e3 * place.unsqueeze(1)
    # Half of it is missing in one column; medians of 5,000 rows or more.
    y = torch.where((torch.rand(x.shape, generator=generator) < 0.5) & (torch.arange(3) == 1), torch.nan, x)
    for rows in (x, y):
        found = local_scale(rows * units, None, components) / units
        torch.testing.assert_close(found, torch.full_like(units, 1.15), rtol=0.18, atol=0)


def test_weights_are_repetitions_and_order_does_not_matter(generator: Generator) -> None:
    x = normal(200, 3, generator)
    weights = torch.randint(1, 4, (200,), generator=generator)
    once = local_scale(x, weights, 2)
    order = torch.randperm(200, generator=generator)
    torch.testing.assert_close(local_scale(x[order], weights[order], 2), once)
    torch.testing.assert_close(local_scale(x.repeat_interleave(weights, 0), None, 2), once)
    torch.testing.assert_close(local_scale(1e-5 * x + 3, weights, 2), 1e-5 * once)


def test_ties_have_a_ridge(generator: Generator) -> None:
    x = normal(1000, 4, generator)
    x[:, 0] = (x[:, 0] > 1.5).double()  # one in 15: the variance
    x[:, 1] = x[:, 1].round()
    x[:, 2] = x[:, 2].clamp_min(0)  # half of it is 0
    x[3, 2] = 1e6
    scale = local_scale(x, None, 3)
    assert scale[0] == 0
    assert 0.5 < scale[1] < 3
    assert 0.1 < scale[2] < 2
    model = GaussianMixture(4, 3, Diagonal())
    history = model.fit(x, em=QUIET, generator=seed(0))
    assert model.log_prob(x).isfinite().all()
    assert "regularisation is" in history.stopped


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_fits_follow_the_units(covariance: Covariance, generator: Generator) -> None:
    x = normal(300, 2, generator)
    x[100:] += 6
    ends = []
    for unit in (1.0, 2.0**20, 2.0**-20):  # powers of two, which round alike
        model = GaussianMixture(2, 3, covariance)
        ends.append(model.fit(unit * x, em=QUIET, generator=seed(3)).objective[-1] + 2 * torch.tensor(unit).log())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("covariance", [Full(), Tied(), Diagonal(), Spherical()], ids=repr)
def test_the_history_tells_the_largest_share(covariance: Covariance, generator: Generator) -> None:
    x = normal(400, 2, generator)
    model = GaussianMixture(2, 2, covariance)
    history = model.fit(x, em=replace(QUIET, regularisation=1.0), generator=seed(0))
    ridge = torch.ones(2, dtype=torch.float64)
    share = (1 / torch.linalg.eigvalsh(dense(model))[:, 0]).max().item()
    assert f"; regularisation is {share:.0%} of the" in history.stopped
    assert ("shared" in history.stopped) == covariance.shared
    assert felt(ridge / 1e3, model.parameters_on(x.device)) == ""
    assert "regularisation" not in model.fit(x, em=QUIET, generator=seed(0)).stopped
    stochastic = StochasticEM(epochs=1, regularisation=1.0, progress=False)
    assert "epochs done; regularisation is" in model.fit(x, em=stochastic, generator=seed(0)).stopped


def test_the_default_is_local() -> None:
    assert EM().regularisation == StochasticEM().regularisation == Local(1e-6)
    with pytest.raises(ValueError, match="regularisation must be finite"):
        EM(regularisation=Local(-1.0))
