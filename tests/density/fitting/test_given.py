"""What a fit is given: rows that are not copied, weights, rows to hold out, and a callback."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint, History, Training, lbfgs, maximise
from density.data.reader import Reader
from flows import Flow, maf, real_nvp
from lvm import VAE
from tests.density.fitting.test_checkpoint import Cut
from tests.density.fitting.test_maximise import Location

SHORT = Training(epochs=4, batch_size=32, validation=0.25, learning_rate=1e-2, progress=False)
MODELS: dict[str, Callable[[], Flow | VAE]] = {
    "flow": lambda: real_nvp(2, 2, (8,)),
    "vae": lambda: VAE.gaussian(2, 1, hidden=(8,)),
}


@pytest.fixture
def x(generator: Generator) -> Tensor:
    return torch.randn(90, 2, generator=generator, dtype=torch.float64).cumsum(1)


def seeded() -> Generator:
    return Generator().manual_seed(3)


def fitted(
    make: Callable[[], Flow | VAE], x: Tensor, training: Training = SHORT, **given: object
) -> tuple[Flow | VAE, History]:
    torch.manual_seed(0)
    model = make()
    return model, model.fit(x, training, generator=seeded(), **given)  # type: ignore[arg-type]


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(p.equal(q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_memory_map_is_read_where_it_lies(name: str, x: Tensor, tmp_path: Path) -> None:
    """The same fit, bit by bit."""
    np.save(tmp_path / "x.npy", x.numpy())
    expected, history = fitted(MODELS[name], x)
    model, other = fitted(MODELS[name], torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c")))
    assert same(model, expected)
    assert other.validation == history.validation


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_ones_own_are_held_out(name: str, x: Tensor) -> None:
    """The rows that a fit would hold out itself, given apart: the same look at the same first weights."""
    model, history = fitted(MODELS[name], x[:70], replace(SHORT, epochs=1), validation=x[70:])
    assert len(history.validation) == 1
    if isinstance(model, Flow):
        assert history.validation[0] == pytest.approx(model.log_prob(x[70:]).mean().item(), rel=1e-12)
    with pytest.raises(TypeError, match=r"validation is torch\.float32 on cpu\. Convert with validation\.to\(x\)"):
        fitted(MODELS[name], x[:70], SHORT, validation=x[70:].float())
    checked = {"validation": torch.full((3, 2), torch.nan, dtype=torch.float64)}
    with pytest.raises(ValueError, match="finite data"):
        fitted(MODELS[name], x, **checked)
    with pytest.raises(ValueError, match="validation rows of your own"):
        fitted(MODELS[name], x, replace(SHORT, refit=True), validation=x)


def test_contexts_come_with_the_rows_held_out(x: Tensor) -> None:
    def make() -> Flow:
        return maf(1, 2, (8,), context_features=1)

    model, history = fitted(
        make, x[:70, :1], replace(SHORT, epochs=1), context=x[:70, 1:], validation=(x[70:, :1], x[70:, 1:])
    )
    assert isinstance(model, Flow)
    expected = model.log_prob(x[70:, :1], x[70:, 1:]).mean().item()
    assert history.validation == [pytest.approx(expected, rel=1e-12)]


def test_what_stands_beside_rows_of_weight_0_is_not_looked_at(x: Tensor) -> None:
    weights = torch.ones(len(x)).index_fill(0, torch.tensor([3]), 0.0)
    holes = x[:, 1:].clone()
    holes[3] = math.nan
    read = Reader("a flow", 1, 1).read(x[:, :1], holes, weights)
    assert [len(part) for part in read] == [len(x) - 1] * 3
    for bad, wrong in ((holes, torch.ones(len(x))), (x[1:, 1:], weights)):
        with pytest.raises(ValueError, match=r"as context, expects finite|expects a context for each of"):
            Reader("a flow", 1, 1).read(x[:, :1], bad, wrong)


def test_weights_are_those_of_a_mean(x: Tensor) -> None:
    """The maximum over m of −½ Σ w (x − m)² is the weighted mean; held-out rows are judged by their weighted mean."""
    module, weights = Location(), torch.rand(len(x), generator=seeded(), dtype=torch.float64) + 0.1
    settings = Training(epochs=3, batch_size=None, learning_rate=1.0, optimiser=lbfgs, annealing=0, validation=0.3)
    history = maximise(module, module.objective, (x,), settings, weights=weights, generator=seeded())
    order = torch.randperm(len(x), generator=seeded())
    held_out, others = order[:27], order[27:]
    mean = weights[others] @ x[others] / weights[others].sum()
    torch.testing.assert_close(module.m.detach(), mean, rtol=1e-9, atol=1e-9)
    value = weights[held_out] @ (-0.5 * (x[held_out] - mean).square().sum(-1)) / weights[held_out].sum()
    assert history.validation[-1] == pytest.approx(value.item(), rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_equal_weights_change_nothing_and_rows_of_weight_0_are_not_there(name: str, x: Tensor) -> None:
    expected, history = fitted(MODELS[name], x[:60])
    more, weights = x.clone(), torch.full((90,), 7.0)
    more[60:], weights[60:] = math.nan, 0
    model, other = fitted(MODELS[name], x[:60], weights=weights[:60])
    assert other.validation == pytest.approx(history.validation, rel=1e-9)
    with pytest.raises(ValueError, match="finite data"):
        fitted(MODELS[name], more, weights=weights.index_fill(0, torch.tensor([60]), 1.0))
    for rows in (model, fitted(MODELS[name], more, weights=weights)[0]):
        for p, q in zip(rows.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("weights", [torch.ones(3), -torch.ones(90), torch.zeros(90), torch.full((90,), math.inf)])
def test_weights_that_are_refused(weights: Tensor, x: Tensor) -> None:
    with pytest.raises(ValueError, match="weight"):
        fitted(MODELS["flow"], x, weights=weights)


def test_a_callback_sees_the_history_and_may_end_the_fit(x: Tensor) -> None:
    seen: list[tuple[int, int]] = []

    def callback(history: History) -> bool:
        seen.append((len(history.objective), len(history.validation)))
        assert history.seconds > 0
        return len(seen) == 3

    _, history = fitted(MODELS["flow"], x, replace(SHORT, epochs=50, callback=callback, refit=True))
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert history.stopped == "stopped by the callback after 3 epochs"
    assert (history.converged, history.climbing) == (False, False)
    with pytest.raises(TypeError, match="callback must be a function"):
        Training(callback=3)  # type: ignore[arg-type]


def test_a_callback_that_says_nothing_changes_nothing(x: Tensor) -> None:
    expected, _ = fitted(MODELS["flow"], x)
    model, _ = fitted(MODELS["flow"], x, replace(SHORT, callback=lambda history: None))
    assert same(model, expected)


def test_a_weighted_fit_that_is_cut_goes_on(x: Tensor, tmp_path: Path) -> None:
    """With weights, rows of one's own and a memory map; other weights are another fit."""
    np.save(tmp_path / "x.npy", x[:70].numpy())
    rows, weights = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c")), torch.linspace(0.5, 2, 70)
    expected, history = fitted(MODELS["flow"], rows, weights=weights, validation=x[70:])

    def cut(history: History) -> None:
        raise Cut

    settings = replace(SHORT, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1))
    with pytest.raises(Cut):
        fitted(MODELS["flow"], rows, replace(settings, callback=cut), weights=weights, validation=x[70:])
    with pytest.raises(ValueError, match="another fit"):
        fitted(MODELS["flow"], rows, settings, weights=weights.flip(0), validation=x[70:])
    model, other = fitted(MODELS["flow"], rows, settings, weights=weights, validation=x[70:])
    assert same(model, expected)
    assert other.validation == history.validation
