"""A mixture whose components coincide is at no maximum, and its fit does not say that it has converged there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint
from density.data.chunks import Chunks
from lvm import EM, GaussianMixture, Given, KMeansPlusPlus, Present, RandomResponsibilities
from lvm.mixture.covariance import Covariance, Diagonal, Full, Spherical
from lvm.mixture.splits import ways_up
from tests.lvm.missing.incomplete import holes
from tests.lvm.mixture.mixtures import STRUCTURES, seed

QUIET = EM(progress=False)


def two(generator: Generator, features: int = 1, apart: float = 20.0, n: int = 1000) -> Tensor:
    """Two clusters of unit variance, so many standard deviations apart along the diagonal."""
    middle = (torch.arange(n) % 2 - 0.5).unsqueeze(1) * apart / features**0.5
    return middle + torch.randn(n, features, generator=generator, dtype=torch.float64)


def together(x: Tensor, components: int, covariance: Covariance, shift: float = 0.0) -> GaussianMixture:
    """Every component the Gaussian of all rows, where EM stays for ever; or so many standard deviations off."""
    one = GaussianMixture(x.shape[1], 1, covariance)
    one.fit(x, em=QUIET)
    model = GaussianMixture(x.shape[1], components, covariance).double()
    shifts = shift * torch.randn(model.means.shape, generator=seed(0), dtype=torch.float64)
    with torch.no_grad():
        model.prior.logits.zero_()
        model.decoder.means.copy_(one.means + shifts * x.std(0))
        model.decoder.factor.copy_(one.decoder.factor.expand_as(model.decoder.factor))
    return model


def start_of(model: GaussianMixture) -> Given:
    return Given(model.means.detach(), model.weights.detach(), model.covariances.detach())


@pytest.mark.parametrize("draw", range(5))
def test_random_responsibilities_end_at_the_maximum(draw: int, generator: Generator) -> None:
    x = two(generator)
    best = GaussianMixture(1, 2).fit(x, generator=seed(0)).objective[-1]
    found = GaussianMixture(1, 2).fit(x, em=replace(QUIET, start=RandomResponsibilities()), generator=seed(draw))
    assert found.converged
    assert found.objective[-1] == pytest.approx(best, abs=1e-6)
    assert best == pytest.approx(-2.11, abs=0.1)  # ½ log 2πe + log 2, and an error of 1000 rows


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
@pytest.mark.parametrize(("features", "shift"), [(1, 0.0), (3, 0.0), (3, 1e-3)])
def test_a_plateau_is_left(covariance: Covariance, features: int, shift: float, generator: Generator) -> None:
    x = two(generator, features)
    best = GaussianMixture(features, 2, covariance).fit(x, generator=seed(0)).objective[-1]
    model = together(x, 2, covariance, shift)
    plateau = model.log_prob(x).mean().item()
    found = model.fit(x, em=replace(QUIET, start=Present()))
    assert found.converged
    assert plateau < best - 0.5
    assert found.objective[-1] == pytest.approx(best, abs=1e-6)


def test_many_that_coincide_part_one_after_another(generator: Generator) -> None:
    centres = 30 * torch.tensor([[0.0, 0.0], [1.0, 0.2], [0.1, 1.0], [1.2, 1.1]], dtype=torch.float64)
    x = centres.repeat_interleave(150, 0) + torch.randn(600, 2, generator=generator, dtype=torch.float64)
    model = together(x, 4, Full())
    plateau = model.log_prob(x).mean().item()
    best = GaussianMixture(2, 4).fit(x, em=replace(QUIET, restarts=5), generator=seed(0)).objective[-1]
    found = model.fit(x, em=replace(QUIET, start=Present()))
    assert found.converged
    assert plateau < best - 3
    assert found.objective[-1] > plateau + 2  # of the maxima one, not always the highest: restarts are for that


@pytest.mark.parametrize("ratio", [1.5, 8.0])
def test_spreads_alone_tell_them_apart(ratio: float, generator: Generator) -> None:
    """A narrow and a wide component about one mean: positive kurtosis, so that means do not part, but spreads do."""
    x = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    x[::2] *= ratio
    spreads = torch.tensor([1.0, ratio**2], dtype=torch.float64)[:, None, None] * torch.eye(2, dtype=torch.float64)
    start = Given(torch.zeros(2, 2, dtype=torch.float64), covariances=spreads)
    best = GaussianMixture(2, 2).fit(x, em=replace(QUIET, start=start)).objective[-1]
    model = together(x, 2, Full())
    plateau = model.log_prob(x).mean().item()
    found = model.fit(x, em=replace(QUIET, start=Present()))
    assert found.converged
    assert best > plateau + 3e-3
    assert found.objective[-1] > best - 1e-4


def test_an_empty_component_is_given_rows(generator: Generator) -> None:
    x = two(generator, 2)
    one = GaussianMixture(2, 1)
    one.fit(x, em=QUIET)
    start = Given(
        torch.cat([one.means.detach(), torch.full((1, 2), 1e6, dtype=torch.float64)]),
        torch.tensor([0.999, 0.001], dtype=torch.float64),
        torch.cat([one.covariances.detach(), torch.eye(2, dtype=torch.float64).unsqueeze(0)]),
    )
    best = GaussianMixture(2, 2).fit(x, generator=seed(0)).objective[-1]
    found = GaussianMixture(2, 2).fit(x, em=replace(QUIET, start=start))
    assert found.converged
    assert found.objective[-1] == pytest.approx(best, abs=1e-6)


def test_of_the_others_the_heaviest_shares_with_an_empty_one(generator: Generator) -> None:
    far = 100 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    light = far.repeat_interleave(50, 0) + torch.randn(200, 2, generator=generator, dtype=torch.float64)
    x = torch.cat([two(generator, 2, n=800), light])
    start = Given(
        torch.cat([far, torch.tensor([[1e6, 0.0], [0.0, 0.0]], dtype=torch.float64)]),
        covariances=torch.tensor([1.0] * 5 + [100.0], dtype=torch.float64)[:, None, None] * torch.eye(2),
    )
    best = GaussianMixture(2, 6).fit(x, em=replace(QUIET, restarts=10), generator=seed(0)).objective[-1]
    found = GaussianMixture(2, 6).fit(x, em=replace(QUIET, start=start))
    assert found.converged
    assert found.objective[-1] == pytest.approx(best, abs=1e-6)
    assert ", after leaving 1 saddle point" in found.stopped  # a light one first would be a way round


def test_incomplete_rows_leave_it_too(generator: Generator) -> None:
    x = holes(two(generator, 3), 0.1, generator)
    best = GaussianMixture(3, 2).observed.fit(x, QUIET, generator=seed(0)).objective[-1]
    model = together(x.nan_to_num(0.0), 2, Full())
    found = model.observed.fit(x, replace(QUIET, start=Present()))
    assert found.converged
    assert found.objective[-1] == pytest.approx(best, abs=1e-5)


def test_chunks_and_weights_leave_it_too(generator: Generator) -> None:
    x = two(generator, 2)
    weights = torch.rand(1000, generator=generator, dtype=torch.float64) + 0.5
    chunks = Chunks(list(zip(x.split(77), weights.split(77), strict=True)), weighted=True)
    ends = []
    for source, w in ((x, weights), (chunks, None)):
        ends.append(together(x, 2, Full()).fit(source, em=replace(QUIET, start=Present(), tolerance=1e-4), weights=w))
    assert all("after leaving 1 saddle point" in end.stopped for end in ends)
    assert ends[0].objective == pytest.approx(ends[1].objective, rel=1e-10)


def test_a_fit_with_a_checkpoint_leaves_it_alike(generator: Generator, tmp_path: Path) -> None:
    x = two(generator, 2)
    stuck = together(x, 2, Full())
    em = replace(QUIET, start=start_of(stuck), tolerance=1e-4)
    kept = replace(em, checkpoint=Checkpoint(tmp_path / "a.ckpt", steps=1))
    plain, first, again = (GaussianMixture(2, 2).fit(x, em=each, generator=seed(0)) for each in (em, kept, kept))
    assert "after leaving 1 saddle point" in plain.stopped
    assert plain.objective == first.objective == again.objective
    assert plain.stopped == first.stopped == again.stopped


def test_components_that_are_apart_have_no_ways_up(generator: Generator) -> None:
    x = two(generator, 2)
    model = GaussianMixture(2, 2)
    model.fit(x, generator=seed(0))
    at = model.parameters_on(x.device)
    assert not list(ways_up(at, (x, None), torch.zeros(2, dtype=torch.float64)))


def test_what_is_proposed_shares_the_rows(generator: Generator) -> None:
    """Weights sum to 1, and the mean stays where it was."""
    x = two(generator, 2)
    model = together(x, 3, Diagonal())
    at = model.parameters_on(x.device)
    proposed = list(ways_up(at, (x, None), torch.zeros(2, dtype=torch.float64)))
    assert len(proposed) == 3
    for way in proposed:
        torch.testing.assert_close(way.weights.sum(), torch.ones((), dtype=torch.float64))
        torch.testing.assert_close(way.weights @ way.means, x.mean(0), rtol=0, atol=1e-2 * x.std(0).max().item())


@pytest.mark.parametrize("n", [50, 20_000])
def test_random_responsibilities_start_apart_however_many_rows_there_are(n: int, generator: Generator) -> None:
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    start = RandomResponsibilities().parameters(x, None, 4, Full(), torch.zeros(3, dtype=torch.float64), seed(0))
    # Of 32 rows, responsibilities of relative variance 3/5: 0.14 standard deviations in each feature; of all, 0.005.
    assert 0.05 < start.means.std(0).mean() < 0.5


@pytest.mark.parametrize(("features", "missing"), [(3, 0.3), (3, 0.4), (8, 0.2), (2, 0.6)])
@pytest.mark.parametrize("structure", [Full(), Diagonal(), Spherical()], ids=lambda structure: type(structure).__name__)
def test_components_that_coincide_part_where_entries_are_missing(
    features: int, missing: float, structure: Covariance
) -> None:
    """Two clusters far apart, both components between them: as from a start that knows the clusters."""
    noise = [torch.randn(200, features, generator=Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1)]
    x = torch.cat([noise[0], 20 / features**0.5 + noise[1]])
    x[torch.rand(x.shape, generator=Generator().manual_seed(2)) < missing] = torch.nan
    x = x[~x.isnan().all(1)]
    between = Given(torch.full((2, features), 5.0, dtype=torch.float64))
    reached = [
        GaussianMixture(features, 2, structure).double().observed.fit(x, EM(start=start, progress=False))
        for start in (between, KMeansPlusPlus())
    ]
    assert reached[0].converged
    assert reached[0].objective[-1] > reached[1].objective[-1] - 1e-6
