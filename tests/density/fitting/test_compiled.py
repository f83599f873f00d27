"""Fits whose objective is compiled: the same fits."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Checkpoint, CheckpointMismatch, History, LastBatch, Model, Training
from density.compilation import functions
from flows import real_nvp
from lvm import VAE
from lvm.gradients import AnalyticKL
from lvm.vae.kl_weights import WarmUp

TRAINING = Training(epochs=3, batch_size=16, validation=0.2, progress=False)
MODELS: dict[str, Callable[[], Model]] = {
    "real_nvp": lambda: real_nvp(3, 2, (8,)).double(),
    "vae": lambda: VAE.gaussian(3, 2, hidden=(8,)).double(),
}


@pytest.fixture
def x(generator: Generator) -> Tensor:
    return torch.randn(50, 3, generator=generator, dtype=torch.float64).cumsum(1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every batch that the compiled function is given, where nothing is compiled."""
    rows: list[int] = []

    def compiling(function: Callable[..., Tensor], *, options: dict[str, object], **keywords: bool) -> object:
        assert options == {"fallback_random": True}
        assert keywords == {"fullgraph": True, "dynamic": False}

        def call(*batch: Tensor) -> Tensor:
            rows.append(len(batch[0]))
            return function(*batch)

        return call

    monkeypatch.setattr(functions.torch, "compile", compiling)
    return rows


def fitted(name: str, x: Tensor, given: bool = True, **settings: object) -> tuple[Model, History]:
    torch.manual_seed(0)
    model = MODELS[name]()
    training = Training(**{**vars(TRAINING), **settings})
    generator = Generator().manual_seed(1) if given else None
    return model, model.fit(x, training, generator=generator)  # type: ignore[call-arg]


def same(name: str, x: Tensor, given: bool = True, **settings: object) -> None:
    (fast, there), (slow, here) = (fitted(name, x, given, compiled=compiled, **settings) for compiled in (True, False))
    torch.testing.assert_close(there.objective, here.objective, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(there.validation, here.validation, rtol=1e-9, atol=1e-9)
    for p, q in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_fit_is_the_same_fit(name: str, given: bool, x: Tensor, calls: list[int]) -> None:
    """By the draws of the generator that was given, or of torch; the last batch, of eight rows, is not compiled."""
    same(name, x, given)
    assert calls == [16] * 6


def test_parts_of_two_sizes_are_compiled(x: Tensor, calls: list[int]) -> None:
    same("vae", x, parts=3)
    assert set(calls) == {5, 6}
    assert len(calls) == 18


def test_weighted_rows_are_compiled(x: Tensor, calls: list[int]) -> None:
    models = []
    for compiled in (True, False):
        torch.manual_seed(0)
        model = real_nvp(3, 2, (8,)).double()
        training = Training(**{**vars(TRAINING), "compiled": compiled})
        model.fit(x, training, weights=x[:, 0].abs(), generator=Generator().manual_seed(1))
        models.append(model)
    assert calls
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-7)


def test_a_warm_up_runs_as_it_is(x: Tensor, calls: list[int]) -> None:
    training = Training(**{**vars(TRAINING), "compiled": True})
    with pytest.warns(UserWarning, match="the steps of this fit have others"):
        VAE.gaussian(3, 2).fit(x, training, estimator=AnalyticKL(kl_weight=WarmUp(steps=10)))
    assert calls == []


def test_without_a_compiler_the_fit_is_the_same_after_one_warning(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, **_: object) -> object:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(functions.torch, "compile", broken)
    with pytest.warns(UserWarning, match="runs as it is: no C") as found:
        same("vae", x)
    assert len(found) == 1


def test_a_checkpoint_keeps_rounding_apart(x: Tensor, calls: list[int], tmp_path: object) -> None:
    checkpoint = Checkpoint(f"{tmp_path}/fit.ckpt")
    fitted("real_nvp", x, checkpoint=checkpoint)
    with pytest.raises(CheckpointMismatch, match="compiled is None there and True here"):
        fitted("real_nvp", x, checkpoint=checkpoint, compiled=True)


def test_networks_run_lower_in_what_is_compiled(x: Tensor, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same forwards at every step, which a graph is not made anew for."""
    seen = set[object]()

    def observed(
        network: nn.Sequential, x: Tensor, *, forward: Callable[..., Tensor] = nn.Sequential.forward
    ) -> Tensor:
        if "forward" in vars(network):
            seen.add(vars(network)["forward"])
        return forward(network, x)

    monkeypatch.setattr(nn.Sequential, "forward", observed)
    monkeypatch.setitem(MODELS, "float32", lambda: VAE.gaussian(3, 2, hidden=(8,)))
    ends = [fitted("float32", x.float(), compiled=compiled, autocast=torch.bfloat16) for compiled in (True, False)]
    assert calls
    assert len(seen) == 4  # of an encoder and a decoder in each of the fits
    for p, q in zip(*(model.parameters() for model, _ in ends), strict=True):  # type: ignore[attr-defined]
        assert p.equal(q)


@pytest.mark.slow
@pytest.mark.filterwarnings("error:torch.compile failed")
@pytest.mark.filterwarnings("ignore:(?!torch.compile failed)")  # of torch's compiler about itself
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler here")
@pytest.mark.parametrize("name", MODELS)
def test_torch_s_compiler_fits_alike(name: str, x: Tensor) -> None:
    torch.compiler.reset()
    same(name, x)


@pytest.mark.parametrize("last", [LastBatch.DROPPED, LastBatch.FILLED])
def test_every_batch_is_compiled_where_all_are_whole(last: LastBatch, x: Tensor, calls: list[int]) -> None:
    same("vae", x, last_batch=last)
    assert calls == [16] * (6 if last is LastBatch.DROPPED else 9)
