"""A mixture's fit that is cut anywhere goes on, and ends with the same bits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from density import Checkpoint, CheckpointMismatch, History
from lvm import EM, CollapsedComponent, Full, GaussianMixture, Given, Present, RandomPoints, StochasticEM, Tied
from lvm.mixture.parameters import MixtureParameters
from lvm.mixture.statistics import Statistics
from tests.density.fitting.kill import killed_until_done
from tests.lvm.mixture import mixture_fits
from tests.lvm.mixture.mixture_fits import FITS, rows
from tests.lvm.mixture.mixtures import UNREGULARISED, seed

SCRIPT = Path(mixture_fits.__file__)


class Cut(Exception):
    """What ends a fit at a moment."""


def assert_same(one: tuple[dict[str, torch.Tensor], History], other: tuple[dict[str, torch.Tensor], History]) -> None:
    assert all(torch.equal(one[0][name], value) for name, value in other[0].items())
    assert {**asdict(one[1]), "seconds": 0} == {**asdict(other[1]), "seconds": 0}


@pytest.mark.parametrize("name", FITS)
def test_cut_again_and_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every start, between two starts, and right after the last step."""
    expected = mixture_fits.fit(name, None)
    maximise, left, lives = Statistics.maximise, 0, 0

    def until_cut(self: Statistics, before: MixtureParameters, ridge: torch.Tensor) -> MixtureParameters:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut
        return maximise(self, before, ridge)

    monkeypatch.setattr(Statistics, "maximise", until_cut)
    path = tmp_path / "fit.ckpt"
    while True:
        left = 7 if name == "em" else 40  # an epoch of stochastic EM has 15 updates
        lives += 1
        try:
            result = mixture_fits.fit(name, path)
        except Cut:
            continue
        break
    assert lives > 8
    assert_same(result, expected)
    left = 0
    assert_same(mixture_fits.fit(name, path), expected)  # recognised, without a step


@pytest.mark.parametrize("name", FITS)
def test_killed_three_times(name: str, tmp_path: Path) -> None:
    _killed(name, tmp_path, 4, lambda seconds: [0.2 * seconds] * 3, at_least=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_killed_at_twenty_random_moments(name: str, tmp_path: Path) -> None:
    chance = random.Random(name)
    _killed(name, tmp_path, 20, lambda seconds: [chance.uniform(0, seconds / 20) for _ in range(20)], at_least=20)


def _killed(name: str, folder: Path, times: int, moments: Callable[[float], list[float]], *, at_least: int) -> None:
    mixture_fits.fit(name, None)  # what comes once
    started = time.perf_counter()
    weights, history = mixture_fits.fit(name, folder / "uncut.ckpt", times=times)
    seconds = time.perf_counter() - started
    lives = killed_until_done(SCRIPT, moments(seconds), "killed", name, folder, str(times))
    result = torch.load(folder / "result.pt")
    assert len(lives) > at_least, lives
    assert all(torch.equal(result["weights"][name], value) for name, value in weights.items())
    assert result["history"] == {**asdict(history), "seconds": 0.0}
    assert sorted(p.name for p in folder.iterdir()) == ["fit.ckpt", "result.pt", "uncut.ckpt"]


def test_a_checkpoint_belongs_to_one_fit(tmp_path: Path) -> None:
    x = rows()
    em = EM(max_iterations=3, tolerance=0.0, start=Given(x[:4]), checkpoint=Checkpoint(tmp_path / "a", steps=1))
    model = GaussianMixture(3, 4).double()
    model.fit(x, em=em, generator=seed(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    weights = torch.ones(len(x))
    for fit, match in (
        (
            lambda: model.fit(x, em=replace(em, max_iterations=4), generator=seed(1)),
            "max_iterations is 3 there and 4 here",
        ),
        (lambda: model.fit(x, em=replace(em, start=Given(x[1:5])), generator=seed(1)), "start is 'Given"),
        (lambda: model.fit(x, em=replace(em, start=Present()), generator=seed(1)), "start is 'Given"),
        (lambda: model.fit(x + 1, em=em, generator=seed(1)), "data is '"),
        (lambda: model.fit(x, em=em, weights=weights, generator=seed(1)), "data is '"),
        (lambda: GaussianMixture(3, 4, Tied()).fit(x, em=em, generator=seed(1)), "model is 'GaussianMixture with Full"),
        (lambda: model.fit(x, em=StochasticEM(checkpoint=em.checkpoint), generator=seed(1)), "algorithm is 'EM' there"),
    ):
        with pytest.raises(CheckpointMismatch, match=match):
            fit()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.fit([x], em=em, generator=seed(1))  # one chunk with the same rows


def test_streams_resume_too(tmp_path: Path) -> None:
    chunks = list(rows().split(130))
    path = Checkpoint(tmp_path / "fit.ckpt", steps=1)
    for algorithm in (
        EM(max_iterations=4, tolerance=0.0, start=RandomPoints(), progress=False),
        StochasticEM(epochs=2, batch_size=50, start=RandomPoints(), progress=False),
    ):
        one, other = GaussianMixture(3, 4), GaussianMixture(3, 4)
        one.fit(chunks, em=algorithm, generator=seed(1))
        other.fit(chunks, em=replace(algorithm, checkpoint=path), generator=seed(1))
        assert torch.equal(one.means, other.means)
        Path(path.path).unlink()


def test_a_collapse_is_remembered(tmp_path: Path) -> None:
    x = torch.cat([torch.randn(30, 2, generator=seed(0), dtype=torch.float64), torch.full((1, 2), 50.0)])
    covariances = 3 * torch.eye(2).double().expand(2, 2, 2)
    start = Given(torch.stack([x[0], x[-1]]), torch.full((2,), 0.5), covariances)
    em = replace(UNREGULARISED, start=start, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1))
    found = []
    for _ in range(2):
        model = GaussianMixture(2, 2, Full())
        with pytest.raises(CollapsedComponent, match="collapsed onto too few") as caught:
            model.fit(x, em=em, generator=seed(1))
        assert caught.value.history is not None
        found.append((model.means.tolist(), caught.value.history.objective, caught.value.history.stopped))
    assert found[0] == found[1]
    assert np.isfinite(found[0][1]).all()
