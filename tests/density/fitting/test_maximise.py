"""The fitting loop: it climbs, it keeps the best weights, and it never leaves bad ones behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from density import NonFiniteObjective, Training, adam, constant, cosine, lbfgs, maximise

FULL = Training(batch_size=None, validation=0.0, clip=None)


class Location(nn.Module):
    """−½ a (x − m)²: its maximum over m is the mean of the data."""

    def __init__(self, start: float = 0.0, curvature: float = 1.0) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.full((2,), start, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)
        self.curvature = curvature
        self.modes: list[bool] = []
        self.batches: list[int] = []

    def objective(self, batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        self.modes.append(self.training)
        self.batches.append(len(batch[0]))
        return -0.5 * self.curvature * (batch[0] - self.m).square().sum(-1)


class Breaking(Location):
    """Becomes something else than a number at given calls; counts them."""

    def __init__(self, at: set[int], value: float) -> None:
        super().__init__()
        self.at, self.value, self.calls = at, value, 0
        self.before: list[Tensor] = []

    def objective(self, batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        self.calls += 1
        self.before.append(self.m.detach().clone())
        result = super().objective(batch, generator)
        return result + self.value if self.calls in self.at else result


@pytest.fixture
def data(generator: Generator) -> Tensor:
    return torch.randn(40, 2, generator=generator, dtype=torch.float64) + torch.tensor([3.0, -2.0])


def test_adam_reaches_the_optimum(data: Tensor) -> None:
    module = Location()
    history = maximise(
        module, module.objective, (data,), Training(epochs=600, batch_size=None, learning_rate=0.1, validation=0)
    )
    torch.testing.assert_close(module.m.detach(), data.mean(0), rtol=1e-4, atol=1e-4)
    assert len(history.objective) == 600
    assert history.objective[-1] > history.objective[0]
    assert history.best == 599
    assert history.validation == []
    assert not history.converged
    assert history.stopped == "600 epochs done"
    assert history.seconds > 0


@pytest.mark.parametrize("clip", [None, 100.0])
def test_lbfgs_reaches_the_optimum(clip: float | None, data: Tensor) -> None:
    """Also where the gradient starts far above the clip, which would spoil the line search."""
    module = Location(start=50.0, curvature=30.0)
    settings = Training(
        epochs=5, batch_size=None, learning_rate=1.0, optimiser=lbfgs, schedule=constant, clip=clip, validation=0
    )
    maximise(module, module.objective, (data,), settings)
    torch.testing.assert_close(module.m.detach(), data.mean(0), rtol=1e-9, atol=1e-9)


def test_minibatches_cover_the_rows_once_an_epoch(data: Tensor, generator: Generator) -> None:
    module, seen = Location(), []

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        assert batch[1].equal(batch[0].sum(-1)), "rows of the two tensors parted"
        seen.append(batch[0])
        return module.objective(batch, generator)

    maximise(
        module, objective, (data, data.sum(-1)), Training(epochs=2, batch_size=16, validation=0), generator=generator
    )
    sizes = [len(batch) for batch in seen]
    assert sizes == [16, 16, 8, 16, 16, 8, 40]  # the last is the look at the weights of the last step
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:6])
    assert not first.equal(second), "every epoch has the same order"
    for epoch in (first, second):
        assert epoch.sort(0).values.equal(data.sort(0).values)


def test_the_objective_is_the_mean_over_rows_not_over_batches(data: Tensor) -> None:
    """33 rows in batches of 32: the last one counts once, not 32 times."""
    module, rows = Location(), data[:33].clone()
    rows[:] = 0
    rows[0] = 100
    history = maximise(
        module, module.objective, (rows,), Training(epochs=1, batch_size=32, learning_rate=1e-12, validation=0)
    )
    assert history.objective == [pytest.approx(-0.5 * 2 * 100**2 / 33, rel=1e-6)]


@pytest.mark.parametrize(
    ("n", "batch_size", "validation"), [(3, 128, 0.0), (3, 128, 0.4), (1, 128, 0.9), (2, None, 0.5), (1, 1, 0.0)]
)
def test_few_rows(n: int, batch_size: int | None, validation: float, data: Tensor) -> None:
    module = Location()
    history = maximise(
        module, module.objective, (data[:n],), Training(epochs=3, batch_size=batch_size, validation=validation)
    )
    assert len(history.objective) == 3
    assert len(history.validation) == (3 if int(n * validation) else 0)
    assert module.m.isfinite().all()
    assert module.m.any()


def test_the_best_weights_on_held_out_rows_are_kept(data: Tensor) -> None:
    """The held-out value is scripted; the weights of its best epoch must come back."""
    module = Location()
    script, after = [1.0, 5.0, 2.0, 4.0, 3.0], []

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        if module.training:
            return module.objective(batch, generator)
        after.append(module.m.detach().clone())
        return torch.full((len(batch[0]),), script[len(after) - 1])

    history = maximise(module, objective, (data,), Training(epochs=5, batch_size=None, validation=0.25))
    assert history.validation == script
    assert history.best == 1
    assert module.m.equal(after[1])
    assert not after[4].equal(after[1])
    assert history.rows()[1] == {"step": 1, "objective": history.objective[1], "validation": 5.0}


def test_held_out_rows_are_never_trained_on(data: Tensor, generator: Generator) -> None:
    module, trained, held_out = Location(), [], []

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        (trained if module.training else held_out).append(batch[0])
        return module.objective(batch, generator)

    maximise(module, objective, (data,), Training(epochs=3, batch_size=8, validation=0.25), generator=generator)
    assert [len(batch) for batch in held_out] == [10, 10, 10]
    assert held_out[0].equal(held_out[2])
    assert not (torch.cat(trained).unsqueeze(1) == held_out[0]).all(-1).any()


def test_held_out_rows_are_judged_by_the_same_draws(data: Tensor, generator: Generator) -> None:
    module, draws = Location(), []

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        noise = torch.randn(len(batch[0]), generator=generator, dtype=torch.float64)
        if not module.training:
            draws.append(noise)
        return module.objective(batch, generator) + noise

    maximise(module, objective, (data,), Training(epochs=3, validation=0.25), generator=generator)
    assert draws[0].equal(draws[1])
    assert draws[1].equal(draws[2])


@pytest.mark.parametrize("annealing", [0.0, 0.25])
@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping(patience: int, annealing: float, data: Tensor) -> None:
    module = Location()
    values = iter([1.0, 2.0, 3.0, *([2.5] * 100)])

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        if module.training:
            return module.objective(batch, generator)
        return torch.full((len(batch[0]),), next(values))

    training = Training(epochs=50, validation=0.25, patience=patience, patient_steps=0, annealing=annealing)
    history = maximise(module, objective, (data,), training)
    annealed = 3 if annealing else 0
    assert len(history.objective) == 3 + patience + annealed
    assert history.best == 2
    assert history.converged
    assert not history.climbing
    words = f"done: no improvement on held-out rows for {patience} epochs"
    assert history.stopped == words + (", then annealed for 3 epochs" if annealing else "")


def test_no_patience_never_stops_early(data: Tensor) -> None:
    module = Location()

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return module.objective(batch, generator) if module.training else torch.zeros(len(batch[0]))

    history = maximise(module, objective, (data,), Training(epochs=50, validation=0.25, patience=None))
    assert len(history.objective) == 50
    assert history.best == 0


# Forty rows in batches of 16 take three steps an epoch; with a quarter held out, two steps and one look.
BREAKS = {
    "first call": (0.0, {1}, 1, 0),
    "second step": (0.0, {2}, 1, 0),
    "third epoch": (0.0, {8}, 3, 3),  # the second epoch's weights were never seen good: the first one's are kept
    "after the last step": (0.0, {13}, 4, 9),
    "first call, held out": (0.25, {1}, 1, 0),
    "second epoch, held out": (0.25, {5}, 2, 3),
    "held-out look, first epoch": (0.25, {3}, 1, 0),
    "held-out look, third epoch": (0.25, {9}, 3, 6),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", BREAKS)
def test_a_non_finite_objective_keeps_the_last_good_weights(name: str, value: float, data: Tensor) -> None:
    """``kept`` counts the calls before the one that first saw the weights that come back (of an always rising fit)."""
    validation, at, epoch, kept = BREAKS[name]
    module = Breaking(at, value)
    module.eval()
    with pytest.raises(
        NonFiniteObjective, match=rf"objective became -?(nan|inf) in epoch {epoch}; the last good"
    ) as raised:
        maximise(
            module,
            module.objective,
            (data,),
            Training(epochs=4, batch_size=16, learning_rate=0.05, validation=validation),
        )
    assert module.m.equal(module.before[kept]), [i for i, m in enumerate(module.before) if m.equal(module.m.detach())]
    history = raised.value.history
    finished = [epoch - 1, epoch] if "look" in name or "last" in name else [epoch - 1]
    assert len(history.objective) in finished
    assert history.stopped == "non-finite objective"
    assert history.seconds > 0
    assert not module.training
    assert module.m.grad is None


@pytest.mark.parametrize("validation", [0.0, 0.25])
@pytest.mark.parametrize("epochs", [1, 4])
def test_a_huge_learning_rate_leaves_finite_weights(epochs: int, validation: float, data: Tensor) -> None:
    module = Location()
    settings = Training(
        epochs=epochs,
        batch_size=None,
        learning_rate=1e200,
        validation=validation,
        schedule=constant,
        clip=None,
        optimiser=adam,
    )
    with pytest.raises(NonFiniteObjective, match="Lower the learning rate"):
        maximise(module, module.objective, (data,), settings)
    assert module.m.equal(torch.zeros_like(module.m))


@pytest.mark.parametrize("validation", [0.0, 0.25])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_non_finite_gradient_of_a_finite_objective_does_not_stay(
    clip: float | None, validation: float, data: Tensor
) -> None:
    """√ at 0 is 0 with slope ∞, and a last step must not leave its nan behind unseen."""
    module = Location()

    def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        return -module.m.square().sum().sqrt() * torch.ones(len(batch[0]), dtype=torch.float64)

    with pytest.raises(NonFiniteObjective):
        maximise(module, objective, (data,), Training(epochs=1, batch_size=None, validation=validation, clip=clip))
    assert module.m.equal(torch.zeros_like(module.m))


def test_gradients_are_clipped(data: Tensor) -> None:
    norms: dict[float | None, float] = {}
    for clip in (None, 0.5):
        module = Location()

        def sgd(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
            return torch.optim.SGD(parameters, lr=learning_rate)

        settings = Training(epochs=1, batch_size=None, learning_rate=1.0, clip=clip, optimiser=sgd, validation=0)
        maximise(module, module.objective, (data,), settings)
        norms[clip] = float(module.m.detach().norm())
    assert norms[None] == pytest.approx(float(data.mean(0).norm()))
    assert norms[0.5] == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("schedule", [constant, cosine, lambda progress: 1 - progress])
def test_the_schedule_sets_the_learning_rate(schedule: Callable[[float], float], data: Tensor) -> None:
    rates: list[float] = []

    class Recording(torch.optim.SGD):
        def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])
            return closure()

    module = Location()
    settings = Training(
        epochs=2,
        batch_size=16,
        learning_rate=0.3,
        schedule=schedule,
        annealing=1,
        validation=0,
        optimiser=lambda p, lr: Recording(p, lr=lr),
    )
    maximise(module, module.objective, (data,), settings)
    assert rates == pytest.approx([0.3 * schedule(step / 6) for step in range(6)])


def test_cosine_falls_from_one_to_zero() -> None:
    assert [cosine(t) for t in (0.0, 0.5, 1.0)] == pytest.approx([1, 0.5, 0])
    assert [constant(t) for t in (0.0, 0.5, 1.0)] == [1, 1, 1]


def test_the_same_seed_gives_the_same_weights(data: Tensor) -> None:
    def fitted(seed: int) -> Tensor:
        module = Location()

        def objective(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
            noise = torch.randn(len(batch[0]), 2, generator=generator, dtype=torch.float64)
            return module.objective((batch[0] + noise,), generator)

        before = torch.get_rng_state()
        training = Training(epochs=3, batch_size=8, validation=0.25)
        maximise(module, objective, (data,), training, generator=Generator().manual_seed(seed))
        assert torch.get_rng_state().equal(before), "a fit with a generator moved the global one"
        return module.m.detach()

    assert fitted(0).equal(fitted(0))
    assert not fitted(0).equal(fitted(1))


@pytest.mark.parametrize("mode", [True, False])
def test_modes(mode: bool, data: Tensor) -> None:
    """Steps train, looks evaluate, and the module comes back as it was."""
    module = Location().train(mode)
    maximise(module, module.objective, (data,), Training(epochs=2, batch_size=16, validation=0.25))
    assert module.training is mode
    assert module.modes == [True, True, False] * 2
    assert module.batches == [16, 14, 10] * 2


def test_frozen_parameters_stay(data: Tensor) -> None:
    module = Location()
    copy = deepcopy(module.frozen)
    maximise(module, module.objective, (data,), Training(epochs=2))
    assert module.frozen.equal(copy)
    assert module.frozen.grad is None
    assert module.m.grad is None
    module.m.requires_grad_(False)
    with pytest.raises(ValueError, match="Location has no trainable parameters to fit"):
        maximise(module, module.objective, (data,), Training(epochs=2))


def test_data_is_not_touched(data: Tensor) -> None:
    before, module = data.clone(), Location()
    maximise(module, module.objective, (data,), Training(epochs=2))
    assert data.equal(before)


@pytest.mark.parametrize("progress", [True, False])
def test_no_progress_is_shown_without_a_terminal(
    progress: bool, data: Tensor, capfd: pytest.CaptureFixture[str]
) -> None:
    module = Location()
    maximise(module, module.objective, (data,), Training(epochs=3, progress=progress))
    assert capfd.readouterr() == ("", "")


def test_a_custom_optimiser(data: Tensor) -> None:
    module = Location()
    settings = Training(
        epochs=1,
        batch_size=None,
        learning_rate=1.0,
        validation=0,
        clip=None,
        optimiser=lambda p, lr: torch.optim.SGD(p, lr=lr),
    )
    maximise(module, module.objective, (data,), settings)  # one Newton step of a quadratic of curvature 1
    torch.testing.assert_close(module.m.detach(), data.mean(0), rtol=1e-12, atol=1e-12)
