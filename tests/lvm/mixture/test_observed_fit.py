"""Mixtures fitted to rows with missing entries: chunks, restarts and checkpoints, as with complete rows."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint, CheckpointMismatch
from density.data.chunks import Chunks
from density.fitting.checkpoint import Logbook
from lvm import EM, GaussianMixture, Present, RandomPoints, StochasticEM
from lvm.mixture import starts
from lvm.mixture.covariance import Covariance
from tests.lvm.missing.incomplete import holes
from tests.lvm.mixture.mixtures import STRUCTURES, seed, separated

SHORT = EM(max_iterations=12, tolerance=0.0, progress=False)


class Cut(Exception):
    """What ends a fit at a moment."""


def incomplete(generator: Generator, n: int = 300) -> Tensor:
    x = holes(separated(generator, n=n), 0.2, generator)
    x[7] = torch.nan  # says nothing
    return x


def assert_close(one: GaussianMixture, other: GaussianMixture) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)  # twelve iterations of sums in another order


@pytest.mark.parametrize("covariance", STRUCTURES, ids=repr)
def test_chunks_are_the_whole(covariance: Covariance, generator: Generator) -> None:
    x = incomplete(generator)
    weights = torch.rand(300, generator=generator, dtype=torch.float64) + 0.5
    whole = GaussianMixture(3, 3, covariance)
    history = whole.observed.fit(x, SHORT, weights=weights, generator=seed(1))
    for source, beside in (
        ([x[:3], x[3:200], x[200:]], weights),
        (x.numpy(), weights),
        (Chunks([(x[:90], weights[:90]), (x[90:], weights[90:])], weighted=True), None),
    ):
        model = GaussianMixture(3, 3, covariance)
        found = model.observed.fit(source, SHORT, weights=beside, generator=seed(1))
        np.testing.assert_allclose(found.objective, history.objective, rtol=1e-10)
        assert_close(model, whole)
    one = whole.observed.summarise([x[:100], x[100:]])
    other = whole.observed.summarise(x[:50]) + whole.observed.summarise(x[50:])
    for name in ("count", "mean", "scatter", "log_likelihood"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-10)


def test_of_a_long_stream_starts_are_made_from_a_sample(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = incomplete(generator, n=900)
    monkeypatch.setattr(starts, "MOST_ROWS", 200)
    monkeypatch.setattr(starts, "MOST_ROWS_OF_A_COMPONENT", 1)
    model, best = GaussianMixture(3, 3), GaussianMixture(3, 3)
    history = model.observed.fit(list(x.split(100)), EM(max_iterations=40, progress=False), generator=seed(1))
    expected = best.observed.fit(x, EM(max_iterations=40, progress=False), generator=seed(1))
    assert history.objective[-1] == pytest.approx(expected.objective[-1], abs=0.02)


def test_restarts_are_never_worse(generator: Generator) -> None:
    x = holes(separated(generator, components=6), 0.2, generator)
    for trial in range(3):
        finals = []
        for restarts in (1, 4):
            em = EM(start=RandomPoints(), restarts=restarts, tolerance=1e-5, progress=False)
            finals.append(GaussianMixture(3, 5).observed.fit(x, em, generator=seed(trial)).objective[-1])
        assert finals[1] >= finals[0]


def test_a_fit_goes_on_from_the_present_parameters(generator: Generator) -> None:
    x = incomplete(generator)
    whole, halves = GaussianMixture(3, 3).double(), GaussianMixture(3, 3).double()
    first = whole.observed.fit(x, SHORT, generator=seed(1)).objective
    halves.observed.fit(x, replace(SHORT, max_iterations=5), generator=seed(1))
    rest = halves.observed.fit(x, replace(SHORT, max_iterations=7, start=Present())).objective
    assert rest == first[5:]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


@pytest.mark.parametrize("chunks", [False, True])
def test_a_fit_that_is_cut_ends_as_if_it_had_not_been(
    chunks: bool, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = incomplete(generator)
    source = list(x.split(130)) if chunks else x
    em = replace(SHORT, start=RandomPoints(), restarts=3)
    uncut = GaussianMixture(3, 3)
    expected = uncut.observed.fit(source, em, generator=seed(1))
    em = replace(em, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1))
    step, left, lives = Logbook.step, 0, 0

    def until_cut(log: Logbook, *arguments: object) -> None:
        nonlocal left
        step(log, *arguments)  # type: ignore[arg-type]
        left -= 1
        if left < 0:
            raise Cut

    monkeypatch.setattr(Logbook, "step", until_cut)
    while True:
        left, lives = 6, lives + 1
        model = GaussianMixture(3, 3)
        try:
            history = model.observed.fit(source, em, generator=seed(1))
        except Cut:
            continue
        break
    assert lives > 4
    assert {**asdict(history), "seconds": 0} == {**asdict(expected), "seconds": 0}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), uncut.parameters(), strict=True))
    with pytest.raises(CheckpointMismatch, match="data is"):
        GaussianMixture(3, 3).observed.fit(x + 1, em, generator=seed(1))


def test_another_algorithm_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expects lvm\.EM\(\) as em; got StochasticEM"):
        GaussianMixture(3, 2).observed.fit(torch.randn(9, 3), StochasticEM())  # type: ignore[arg-type]
