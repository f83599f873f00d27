"""A fit that is cut goes on where it was and ends with the bits of the uncut one; other checkpoints are refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Generator, Tensor, nn

from density import Checkpoint, CheckpointMismatch, History, NonFiniteObjective, Training, maximise
from density.data.digest import data_in_words
from density.fitting.optimisers import adam
from density.saving.files import UnusableFile
from tests.density.fitting import killed_fits
from tests.density.fitting.kill import killed_until_done

SCRIPT = Path(killed_fits.__file__)
Weights = dict[str, Tensor]


class Cut(Exception):
    """What ends a fit at a moment."""


class Noisy(nn.Module):
    """An objective with draws from the fit's generator and, also by dropout, from torch's own."""

    def __init__(self, cut_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 2)).double()
        self.cut_at, self.calls = cut_at, 0

    def objective(self, batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        if self.training:
            self.calls += 1
            if self.calls == self.cut_at:
                raise Cut
        noise = torch.randn(batch[0].shape, generator=generator, dtype=torch.float64)
        own = torch.randn(batch[0].shape, dtype=torch.float64)  # also where the weights are only judged
        return -(self.net(batch[0] + 0.1 * noise + 0.1 * own) - batch[0]).square().sum(-1)


@pytest.fixture
def data(generator: Generator) -> Tensor:
    return torch.randn(40, 2, generator=generator, dtype=torch.float64)


def seeded(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def fitted(module: Noisy, data: Tensor, training: Training, generator: Generator | None) -> tuple[Weights, History]:
    history = maximise(module, module.objective, (data,), training, generator=generator)
    return {k: v.clone() for k, v in module.state_dict().items()}, history


def assert_same(a: tuple[Weights, History], b: tuple[Weights, History]) -> None:
    assert all(a[0][name].equal(b[0][name]) for name in a[0])
    assert asdict(replace(a[1], seconds=0.0)) == asdict(replace(b[1], seconds=0.0))


def slowed(parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Adam with a tenth of the learning rate for the first two parameters."""
    groups = [{"params": parameters[:2], "lr": 0.1 * learning_rate}, {"params": parameters[2:]}]
    return torch.optim.Adam(groups, lr=learning_rate)


TRAINING = Training(epochs=4, batch_size=8, learning_rate=0.02, validation=0.25, progress=False)


@pytest.mark.parametrize("own_generator", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"validation": 0.0},
        {"parts": 2},
        {"patience": 1, "learning_rate": 0.5, "patient_steps": 0, "epochs": 8},
        {"averaging": 0.9, "weight_decay": 0.1},
        {"refit": True, "averaging": 0.9, "epochs": 3},
        {"refit": True, "patience": 1, "learning_rate": 0.5, "patient_steps": 0, "parts": 2},
        {"batch_size": 13, "validation": 0.0},  # one of 40 rows is left over
        {"optimiser": slowed},
    ],
)
def test_a_fit_cut_at_any_step_ends_as_if_it_had_not_been(
    change: dict[str, Any], own_generator: bool, data: Tensor, tmp_path: Path
) -> None:
    """Cut again and again, with one, two, … steps more each time, and a new module and new generators every time."""
    training = replace(TRAINING, **change)

    def generator() -> Generator | None:
        torch.manual_seed(11)
        return seeded() if own_generator else None

    uncut = Noisy()
    expected = fitted(uncut, data, training, generator())
    after = torch.get_rng_state()
    checkpointed = replace(training, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1))
    cuts = 0
    for cut_at in range(1, 100):
        module = Noisy(cut_at)
        resumes = (tmp_path / "fit.ckpt").exists()
        if resumes:
            torch.nn.init.zeros_(module.net[0].weight)  # what the checkpoint holds overrules it
        own = generator()
        if resumes and own is not None:
            torch.randn(5, generator=own)  # in a session that goes on, the generator has moved
        try:
            result = fitted(module, data, checkpointed, own)
            break
        except Cut:
            cuts += 1
    assert cuts >= 3
    assert module.calls < uncut.calls
    assert_same(result, expected)
    assert torch.get_rng_state().equal(after)


@pytest.mark.parametrize("name", killed_fits.FITS)
def test_a_model_cut_in_the_middle_of_an_epoch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow and VAE, data-dependent initialisation included, and the memory of L-BFGS; cut while writing, too."""
    x, epochs = killed_fits.rows(150), 6

    def fit(path: Path | None) -> tuple[Weights, History]:
        model, generator = killed_fits.FITS[name][0](), seeded(7)
        history = model.fit(x, killed_fits.settings(name, path, epochs=epochs), generator=generator)  # type: ignore[call-arg]
        return {k: v.clone() for k, v in model.state_dict().items()}, history

    expected = fit(None)
    path, save, writes = tmp_path / "fit.ckpt", torch.save, 0

    def cut_while_writing(content: object, file: BinaryIO) -> None:
        nonlocal writes
        writes += 1
        if writes in (2, 5):
            file.write(b"half")
            raise Cut
        save(content, file)

    monkeypatch.setattr(torch, "save", cut_while_writing)
    for _ in range(2):
        with pytest.raises(Cut):
            fit(path)
    assert writes == 5
    assert [p.name for p in tmp_path.iterdir()] == ["fit.ckpt"]
    result = fit(path)
    assert_same(result, expected)
    assert_same(fit(path), expected)  # recognised, without work
    assert fit(path)[1].seconds == result[1].seconds


@pytest.mark.parametrize("name", ["flow", pytest.param("vae", marks=pytest.mark.slow)])
def test_killed_three_times(name: str, tmp_path: Path) -> None:
    _killed(name, tmp_path, 10, lambda seconds: [0.2 * seconds] * 3, at_least=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", killed_fits.FITS)
def test_killed_at_twenty_random_moments(name: str, tmp_path: Path) -> None:
    """A chain: every life resumes what the one before it left."""
    chance = random.Random(name)
    _killed(name, tmp_path, 150, lambda seconds: [chance.uniform(0, seconds / 12) for _ in range(20)], at_least=20)


def _killed(name: str, folder: Path, epochs: int, moments: Callable[[float], list[float]], *, at_least: int) -> None:
    killed_fits.fit(name, killed_fits.FITS[name][0](), killed_fits.settings(name, None, epochs=1))  # what comes once
    model = killed_fits.FITS[name][0]()
    started = time.perf_counter()
    history = killed_fits.fit(name, model, killed_fits.settings(name, folder / "uncut.ckpt", epochs=epochs))
    lives = killed_until_done(SCRIPT, moments(time.perf_counter() - started), name, folder, str(epochs))
    result = torch.load(folder / "result.pt")
    assert len(lives) > at_least, lives
    assert all(result["weights"][k].equal(v) for k, v in model.state_dict().items())
    assert result["history"] == {**asdict(history), "seconds": 0.0}
    assert sorted(p.name for p in folder.iterdir()) == ["fit.ckpt", "result.pt", "uncut.ckpt"]


def test_a_checkpoint_changes_nothing(data: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = fitted(Noisy(), data, TRAINING, seeded())
    torch.manual_seed(11)
    assert_same(
        fitted(Noisy(), data, replace(TRAINING, checkpoint=Checkpoint(tmp_path / "a", steps=2)), seeded()), expected
    )


def test_a_finished_fit_moves_the_generator_to_where_the_fit_left_it(data: Tensor, tmp_path: Path) -> None:
    training = replace(TRAINING, checkpoint=Checkpoint(tmp_path / "fit.ckpt"))
    first, second, module = seeded(), seeded(), Noisy()
    fitted(Noisy(), data, training, first)
    fitted(module, data, training, second)
    assert module.calls == 0
    assert first.get_state().equal(second.get_state())


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"epochs": 5}, "epochs is 4 there and 5 here"),
    "batch_size": ({"batch_size": 4}, "batch_size is 8 there and 4 here"),
    "learning rate": ({"learning_rate": 0.1}, "learning_rate is 0.02 there and 0.1 here"),
    "schedule": ({"schedule": lambda progress: 1.0}, "schedule is"),
    "optimiser": ({"optimiser": lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.5, 0.9))}, "optimiser is"),
    "a group's rate": (
        {"optimiser": lambda p, lr: torch.optim.Adam([{"params": p, "lr": 0.1 * lr}], lr=lr, fused=True)},
        "optimiser is",
    ),
    "clip": ({"clip": 1.0}, "clip is 100.0 there and 1.0 here"),
    "validation": ({"validation": 0.5}, "validation is 0.25 there and 0.5 here"),
    "patience": ({"patience": None}, "patience is 20 there and None here"),
    "parts": ({"parts": 2}, "parts is 1 there and 2 here"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused(name: str, finished: bool, data: Tensor, tmp_path: Path) -> None:
    path = _written(data, tmp_path, finished)
    change, message = OTHERS[name]
    _refused(Noisy(), data, replace(TRAINING, **change), seeded(), path, message)


@pytest.mark.parametrize("finished", [True, False])
def test_another_fit_is_refused(finished: bool, data: Tensor, tmp_path: Path) -> None:
    path = _written(data, tmp_path, finished)
    other = data.clone()
    other[39, 1] += 1e-15
    _refused(Noisy(), other, TRAINING, seeded(), path, "data is")
    _refused(Noisy(), data, TRAINING, seeded(2), path, "seed is 1 there and 2 here")
    _refused(Noisy(), data, TRAINING, None, path, "generator is 'given' there and \"torch's own\" here")
    wide = Noisy()
    wide.net[0], wide.net[3] = nn.Linear(2, 9).double(), nn.Linear(9, 2).double()
    _refused(wide, data, TRAINING, seeded(), path, "model is 'Noisy with 4 tensors")


def test_a_path_used_for_two_fits_is_refused(data: Tensor, tmp_path: Path) -> None:
    """Members of an ensemble differ by where their common generator stands, and by nothing else."""
    generator = seeded()
    training = replace(TRAINING, checkpoint=Checkpoint(tmp_path / "fit.ckpt"))
    fitted(Noisy(), data, training, generator)
    _refused(Noisy(), data, TRAINING, generator, tmp_path / "fit.ckpt", "began with its generator in another state")
    path = tmp_path / "own.ckpt"
    fitted(Noisy(), data, replace(TRAINING, checkpoint=Checkpoint(path)), None)
    torch.manual_seed(5)

    class Unseeded(Noisy):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(5)

    Unseeded.__name__ = "Noisy"
    _refused(Unseeded(), data, TRAINING, None, path, "began with its generator in another state")


def test_another_objective_is_refused(data: Tensor, tmp_path: Path) -> None:
    path = _written(data, tmp_path, finished=False)
    module, generator = Noisy(), seeded()
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, generator.get_state()

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return 1.01 * module.objective(batch, generator)

    training = replace(TRAINING, checkpoint=Checkpoint(path))
    with pytest.raises(CheckpointMismatch, match="another objective"):
        maximise(module, objective, (data,), training, generator=generator)
    assert all(before[name].equal(tensor) for name, tensor in module.state_dict().items())
    assert generator.get_state().equal(state)


@pytest.mark.parametrize("damage", ["cut short", "altered", "foreign"])
def test_an_unusable_file_is_refused_and_stays(damage: str, data: Tensor, tmp_path: Path) -> None:
    path = _written(data, tmp_path, finished=False)
    content = bytearray(path.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    elif damage == "altered":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray(b"weights of something else")
    path.write_bytes(content)
    module = Noisy()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(UnusableFile):
        fitted(module, data, replace(TRAINING, checkpoint=Checkpoint(path)), seeded())
    assert path.read_bytes() == content
    assert all(before[name].equal(tensor) for name, tensor in module.state_dict().items())


def test_a_fit_that_broke_breaks_again(data: Tensor, tmp_path: Path) -> None:
    """Not the cut but the fit ended it: resuming is no way around."""
    training = replace(TRAINING, learning_rate=1e200, clip=None, checkpoint=Checkpoint(tmp_path / "fit.ckpt", steps=1))
    for _ in range(2):
        module = Noisy()
        with pytest.raises(NonFiniteObjective):
            fitted(module, data, training, seeded())
        assert all(tensor.isfinite().all() for tensor in module.state_dict().values())


def test_when_it_is_written(data: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    module = Noisy()
    monkeypatch.setattr("density.saving.files.write", lambda *_: writes.append(module.calls))
    fitted(module, data, replace(TRAINING, checkpoint=Checkpoint(tmp_path / "a", steps=7, minutes=None)), seeded())
    assert writes == [7, 14, 16]
    now = iter(range(10**6))
    # A minute goes by at every look.
    monkeypatch.setattr("density.fitting.checkpoint.time.monotonic", lambda: 60.0 * next(now))
    module, writes[:] = Noisy(), []
    fitted(module, data, replace(TRAINING, checkpoint=Checkpoint(tmp_path / "a", minutes=4)), seeded())
    assert writes == [4, 8, 12, 16, 16]


@pytest.mark.parametrize("rule", [{"steps": 0}, {"minutes": 0.0}, {"minutes": float("nan")}, {"minutes": None}])
def test_rules_out_of_range(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|must be a positive int|needs a rule"):
        Checkpoint("fit.ckpt", **rule)


def test_every_byte_of_the_data_counts() -> None:
    x = torch.arange(12.0).reshape(4, 3)
    y = x.clone()
    y[3, 2] = 11.000001
    assert data_in_words((x,)) != data_in_words((y,))
    assert data_in_words((x,)) == data_in_words((x.T.contiguous().T,))
    assert data_in_words((x,)) != data_in_words((x.reshape(3, 4),))
    assert data_in_words((x > 2, x.bfloat16(), torch.empty(0, 3)))


def _written(data: Tensor, folder: Path, finished: bool) -> Path:
    path = folder / "fit.ckpt"
    module = Noisy(None if finished else 7)
    try:
        fitted(module, data, replace(TRAINING, checkpoint=Checkpoint(path, steps=2)), seeded())
    except Cut:
        assert not finished
    return path


def _refused(
    module: Noisy, data: Tensor, training: Training, generator: Generator | None, path: Path, message: str
) -> None:
    weights, file = {k: v.clone() for k, v in module.state_dict().items()}, path.read_bytes()
    with pytest.raises(CheckpointMismatch, match="delete the file") as raised:
        fitted(module, data, replace(training, checkpoint=Checkpoint(path)), generator)
    assert message in str(raised.value)
    assert module.calls == 0
    assert path.read_bytes() == file
    assert all(weights[name].equal(tensor) for name, tensor in module.state_dict().items())


def test_adam_is_what_the_settings_name(data: Tensor, tmp_path: Path) -> None:
    """A function that makes the same optimiser is the same setting, whatever it is called."""
    path = _written(data, tmp_path, finished=True)
    renamed = replace(TRAINING, optimiser=lambda p, lr: adam(p, lr), checkpoint=Checkpoint(path))
    module = Noisy()
    fitted(module, data, renamed, seeded())
    assert module.calls == 0
