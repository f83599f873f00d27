"""PPCA from chunks, with weights, from a warm start, from a checkpoint: the same fit."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

from density.fitting.checkpoint import Checkpoint, CheckpointMismatch, Logbook
from density.saving.files import read, write
from lvm import Present
from lvm.ppca import PPCA, ClosedForm, EMSolver, MissingEM, RandomWeight, Solver
from lvm.ppca.observed_em import RegressionStatistics
from lvm.ppca.solvers import EStep
from tests.density.fitting.kill import killed_until_done
from tests.lvm.missing import incomplete_processes
from tests.lvm.missing.incomplete import holes
from tests.lvm.missing.incomplete_processes import fits
from tests.lvm.vae.linear_examples import covariance_of, data
from tests.places import ROOT

SHAPES = [(60, 6), (12, 20)]
SOLVERS = [ClosedForm(), EMSolver(max_iterations=6, tolerance=0.0)]


def require_equal(model: PPCA, other: PPCA, tolerance: float = 1e-10) -> None:
    for own, given in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, given, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("solver", SOLVERS, ids=["closed form", "EM"])
def test_chunks_are_the_whole(solver: Solver, generator: Generator, tmp_path: Path) -> None:
    x = data(60, 6, 2, generator)
    np.save(tmp_path / "x.npy", x.numpy())
    whole = PPCA(6, 2)
    expected = whole.fit(x, solver=solver)
    sources = [
        [x[:7], x[7:8], x[:0], x[8:]],
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        DataLoader(TensorDataset(x), batch_size=13),
    ]
    for source in sources:
        model = PPCA(6, 2)
        history = model.fit(source, solver=solver)
        # Moments by pairwise updates, and 6 iterations on them.
        assert history.objective == pytest.approx(expected.objective, rel=1e-10)
        require_equal(model, whole)


@pytest.mark.parametrize("solver", SOLVERS, ids=["closed form", "EM"])
@pytest.mark.parametrize(("n", "features"), SHAPES)
def test_a_weight_is_a_repetition(n: int, features: int, solver: Solver, generator: Generator) -> None:
    x = data(n, features, 2, generator)
    weights = torch.randint(1, 4, (n,), generator=generator)
    weighted, repeated, streamed = (PPCA(features, 2) for _ in range(3))
    history = weighted.fit(x, solver=solver, weights=weights)
    expected = repeated.fit(x.repeat_interleave(weights, 0), solver=solver)
    streamed.fit([x[:5], x[5:]], solver=solver, weights=weights)
    assert history.objective == pytest.approx(expected.objective, rel=1e-10)
    require_equal(weighted, repeated)
    require_equal(streamed, repeated)
    unweighted = PPCA(features, 2)
    unweighted.fit(x, solver=solver)
    assert not torch.allclose(unweighted.decoder.mean, weighted.decoder.mean, rtol=1e-3)


@pytest.mark.parametrize(("n", "features"), SHAPES)
def test_a_warm_start_goes_on(n: int, features: int, generator: Generator) -> None:
    x = data(n, features, 2, generator)
    once, twice = PPCA(features, 2), PPCA(features, 2)
    em = EMSolver(tolerance=0.0, expanded=False)
    whole = once.fit(x, solver=replace(em, max_iterations=20))
    first = twice.fit(x, solver=replace(em, max_iterations=12))
    second = twice.fit(x, solver=replace(em, max_iterations=8, start=Present()))
    assert first.objective + second.objective[1:] == pytest.approx(whole.objective, rel=1e-12)
    assert second.objective[0] == pytest.approx(first.objective[-1], rel=1e-14)  # σ² by way of the model's log σ
    require_equal(twice, once)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([torch.zeros(4, 3), torch.full((2, 3), torch.nan)], ValueError, r"row 0, column 0 is nan.*begins with row 4"),
        ([torch.randn(4, 3), torch.randn(4, 2)], ValueError, r"\[\*batch, 3\]; got \[4, 2\].*begins with row 4"),
        ([torch.randn(4, 3), torch.randn(4, 3).double()], TypeError, r"computes in torch\.float32"),
        ([torch.randn(0, 3)], ValueError, "at least one row"),
        ([], ValueError, "at least one row"),
        (iter([torch.randn(4, 3)]), TypeError, "spent after one pass"),
        (5, TypeError, "an array or an iterable"),
    ],
)
def test_bad_chunks(source: object, error: type[Exception], message: str) -> None:
    model = PPCA(3, 1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        model.fit(source)  # type: ignore[arg-type]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(4), "one weight for each row; got 4 weights for 5 rows"),
        (torch.ones(6), "one weight for each row; got 6 weights for 5 rows"),
        (torch.zeros(5), "at least one row of data; got none"),
        (torch.tensor([1.0, 1, torch.nan, 1, 1]), "finite weights, none of them negative; got nan"),
        (torch.ones(5, 1), r"shape \[n\]"),
    ],
)
def test_bad_weights(weights: Tensor, message: str, generator: Generator) -> None:
    x = torch.randn(5, 3, generator=generator)
    with pytest.raises(ValueError, match=message):
        PPCA(3, 1).fit(x, weights=weights)
    with pytest.raises(ValueError, match=message.replace("for 5 rows", "for")):
        PPCA(3, 1).fit([x[:2], x[2:]], weights=weights)


def fit(model: PPCA, x: Tensor, em: EMSolver | MissingEM) -> list[float]:
    history = model.fit(x, solver=em) if isinstance(em, EMSolver) else model.observed.fit(x, em)
    return history.objective


class Cut(Exception):
    pass


@pytest.mark.parametrize("em", [EMSolver(expanded=False, max_iterations=60), MissingEM(max_iterations=60)])
def test_a_fit_that_is_cut_ends_as_if_it_had_not_been(
    em: EMSolver | MissingEM, generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = data(40, 6, 2, generator)
    if isinstance(em, MissingEM):
        x = holes(x, 0.3, generator)
    uncut, resumed = PPCA(6, 2), PPCA(6, 2)
    expected = fit(uncut, x, em)
    path = tmp_path / "em.ckpt"
    with_checkpoint = replace(em, checkpoint=Checkpoint(path, steps=3))
    step = Logbook.step
    for steps in (5, 1, 9):  # of each life
        left = iter(range(steps))

        def cut(log: Logbook, *arguments: object, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise Cut
            step(log, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Logbook, "step", cut)
        with pytest.raises(Cut):
            fit(PPCA(6, 2), x, with_checkpoint)
    monkeypatch.setattr(Logbook, "step", step)
    assert fit(resumed, x, with_checkpoint) == expected
    for a, b in zip(resumed.parameters(), uncut.parameters(), strict=True):
        assert torch.equal(a, b)
    again = PPCA(6, 2)  # a fit that has ended is read, not fitted
    for expectation in (EStep, RegressionStatistics):
        monkeypatch.setattr(expectation, "maximise", lambda *_: pytest.fail("it climbs again"))
    assert fit(again, x, with_checkpoint) == expected
    assert torch.equal(again.decoder.weight, uncut.decoder.weight)


def test_a_checkpoint_of_another_fit_is_refused(generator: Generator, tmp_path: Path) -> None:
    x = data(40, 6, 2, generator)
    path = tmp_path / "em.ckpt"
    em = EMSolver(max_iterations=4, checkpoint=Checkpoint(path, steps=1))
    PPCA(6, 2).fit(x, solver=em)
    for other, solver, what in (
        (x + 1, em, "data"),
        (x, replace(em, tolerance=1e-3), "tolerance"),
        (x, replace(em, start=RandomWeight(1)), "start"),
    ):
        model = PPCA(6, 2)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(CheckpointMismatch, match=what):
            model.fit(other, solver=solver)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointMismatch, match="model"):
        PPCA(6, 3).fit(x, solver=em)
    with pytest.raises(CheckpointMismatch, match="algorithm"):
        PPCA(6, 2).observed.fit(x, MissingEM(checkpoint=Checkpoint(path, steps=1)))


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from density.fitting.checkpoint import Checkpoint
from lvm.ppca import PPCA, EMSolver, MissingEM

folder = Path(sys.argv[1])
generator = torch.Generator().manual_seed(0)
x = torch.randn(300, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
x = x + 0.1 * torch.randn(300, 20, generator=generator)
holes = torch.where(torch.rand(x.shape, generator=generator) < 0.3, torch.nan, x)
em = EMSolver(max_iterations=150, tolerance=0.0, expanded=False)
missing = MissingEM(max_iterations=40, tolerance=0.0)

def fits(first, second):
    models = PPCA(20, 3), PPCA(20, 3)
    histories = models[0].fit(x, solver=replace(em, checkpoint=first)), models[1].observed.fit(
        holes, replace(missing, checkpoint=second)
    )
    parameters = [parameter.detach() for model in models for parameter in model.parameters()]
    return [history.objective for history in histories], parameters

cut, ends = fits(Checkpoint(folder / "complete", steps=2), Checkpoint(folder / "incomplete", steps=1))
uncut, expected = fits(None, None)
assert cut == uncut
assert all(map(torch.equal, ends, expected))
(folder / "done").touch()
"""


def require_the_end_of_an_uncut_fit(folder: Path, moments: list[float]) -> None:
    script = folder / "fit.py"
    script.write_text(KILLED)
    lives = killed_until_done(script, moments, folder)
    print(f"lives of {[round(life, 2) for life in lives]} seconds")
    assert len(lives) > 1
    assert (folder / "done").exists()


def test_killed_fits_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    require_the_end_of_an_uncut_fit(tmp_path, [0.1, 0.25, 0.4])


@pytest.mark.slow
def test_fits_killed_at_20_random_moments(tmp_path: Path) -> None:
    require_the_end_of_an_uncut_fit(
        tmp_path, (0.05 + 0.25 * torch.rand(20, generator=Generator().manual_seed(0))).tolist()
    )


def test_covariance_of_a_stream_resolves_less_than_rows(generator: Generator) -> None:
    # A variance of 1e-16 λ₁ is seen in the rows and lost in their covariance: a stream says so instead of guessing.
    x = 1e-8 * torch.randn(300, 4, generator=generator, dtype=torch.float64)
    x[:, 0] = torch.randn(300, generator=generator, dtype=torch.float64)
    model = PPCA(4, 1)
    model.fit(x)
    assert covariance_of(model)[1, 1].item() == pytest.approx(1e-16, rel=0.2)
    with pytest.raises(ValueError, match="varies along no more than 1 axes"):
        PPCA(4, 1).fit([x[:100], x[100:]])


def require_equal_on(count: int, folder: Path) -> None:
    write(folder / "fits", "fits", dict(fits()))
    script = Path(incomplete_processes.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(script), str(folder / "fits")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert read(folder / "done", "done")["fits"] == 13


def test_two_processes_are_one(tmp_path: Path) -> None:
    require_equal_on(2, tmp_path)


@pytest.mark.slow
def test_four_processes_are_one(tmp_path: Path) -> None:
    require_equal_on(4, tmp_path)
