"""The course of a fit: constant first, annealed from the best weights, and the same for every budget that is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn

from density import History, Training, constant, cosine, maximise
from density.fitting.course import Course, usual_steps

SHORT = Training(epochs=12, batch_size=None, learning_rate=0.1, validation=0.25, patient_steps=0, progress=False)


class Scripted(nn.Module):
    """A location whose held-out value is written down beforehand; keeps its weights before every step and look."""

    def __init__(self, script: list[float]) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.script, self.seen, self.stepped = script, list[Tensor](), list[Tensor]()
        self.rates, self.rows = list[float](), list[int]()

    def objective(self, batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        if self.training:
            self.stepped.append(self.m.detach().clone())
            self.rows.append(len(batch[0]))
            return -0.5 * (batch[0] - self.m).square().sum(-1)
        self.seen.append(self.m.detach().clone())
        at = len(self.seen) - 1
        return torch.full((len(batch[0]),), self.script[min(at, len(self.script) - 1)], dtype=torch.float64)

    def sgd(self, parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """Descent that writes its rates down."""
        module = self

        class Recording(torch.optim.SGD):
            def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
                module.rates.append(self.param_groups[0]["lr"])
                return super().step(closure)  # type: ignore[return-value,arg-type]

        return Recording(parameters, lr=learning_rate)

    def fit(self, data: Tensor, training: Training) -> History:
        settings = replace(training, optimiser=self.sgd)
        return maximise(self, self.objective, (data,), settings, generator=Generator().manual_seed(1))


@pytest.fixture
def data(generator: Generator) -> Tensor:
    return torch.randn(40, 2, generator=generator, dtype=torch.float64) + torch.tensor([3.0, -2.0])


def test_the_rate_is_constant_and_then_annealed(data: Tensor) -> None:
    module = Scripted([0.0])
    maximise(
        module, module.objective, (data,), replace(SHORT, epochs=8, batch_size=20, validation=0, optimiser=module.sgd)
    )
    expected = [0.1] * 12 + [0.1 * cosine(step / 4) for step in range(4)]
    assert module.rates == pytest.approx(expected, rel=1e-12)


def test_annealing_begins_at_the_best_weights_once_patience_has_ended(data: Tensor) -> None:
    """Best after 6 of 8 epochs: annealed for 6/3, or three at least, epochs from there."""
    module = Scripted([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0, 5.0, 5.5, 7.0, 6.5])
    history = module.fit(data, replace(SHORT, epochs=100, patience=2))
    assert module.rates == pytest.approx([0.1] * 8 + [0.1 * cosine(step / 3) for step in range(3)], rel=1e-12)
    assert module.stepped[8].equal(module.seen[5])
    assert not module.seen[7].equal(module.seen[5])
    assert history.best == 9
    assert module.m.equal(module.seen[9])
    assert history.converged
    assert not history.climbing
    assert history.stopped == "done: no improvement on held-out rows for 2 epochs, then annealed for 3 epochs"


def test_the_length_of_annealing_is_a_share_of_what_led_to_the_best_weights(data: Tensor) -> None:
    module = Scripted([*map(float, range(30)), 0.0])
    history = module.fit(data, replace(SHORT, epochs=1000, patience=5, annealing=0.4))
    assert len(history.objective) == 35 + 20


def test_a_fit_that_ran_out_says_so(data: Tensor) -> None:
    """Of twelve epochs nine are constant; the last of them was best, so that patience had not ended."""
    module = Scripted([*map(float, range(9)), 5.0])
    history = module.fit(data, replace(SHORT, patience=3))
    assert len(history.objective) == 12
    assert history.climbing
    assert not history.converged
    assert history.stopped == "12 epochs done, still climbing: more steps would help"
    assert "still climbing" in repr(history)


def test_where_the_budget_ends_before_patience_all_of_it_is_used(data: Tensor) -> None:
    """Best after 15 of 18 constant epochs: annealed from there in all six that are left."""
    module = Scripted([*map(float, range(15)), 5.0])
    history = module.fit(data, replace(SHORT, epochs=24, patience=10))
    assert module.rates[18:] == pytest.approx([0.1 * cosine(step / 6) for step in range(6)], rel=1e-12)
    assert module.stepped[18].equal(module.seen[14])
    assert history.climbing


@pytest.mark.parametrize("change", [{"patience": None}, {"validation": 0.0}])
def test_only_what_watches_can_say_climbing(change: dict[str, float], data: Tensor) -> None:
    history = Scripted([*map(float, range(20))]).fit(data, replace(SHORT, **change))  # type: ignore[arg-type]
    assert len(history.objective) == 12
    assert not history.climbing
    assert not history.converged
    assert history.stopped == "12 epochs done"


@pytest.mark.parametrize("change", [{"annealing": 0.0}, {"schedule": constant}])
def test_without_annealing_patience_just_stops(change: dict[str, float], data: Tensor) -> None:
    module = Scripted([1.0, 2.0, 1.0])
    history = module.fit(data, replace(SHORT, patience=3, **change))  # type: ignore[arg-type]
    assert module.rates == [0.1] * 5
    assert len(history.objective) == 5
    assert history.stopped == "done: no improvement on held-out rows for 3 epochs"


def test_patience_lasts_some_steps_at_least(data: Tensor) -> None:
    module = Scripted([1.0, 0.0])  # thirty rows in batches of 10: three steps an epoch
    history = module.fit(data, replace(SHORT, epochs=100, batch_size=10, patience=2, patient_steps=20, annealing=0))
    assert len(history.objective) == 1 + 7


@pytest.mark.parametrize("averaging", [None, 0.9])
@pytest.mark.parametrize("annealing", [0.0, 0.25, 0.5])
def test_more_epochs_change_nothing_once_patience_has_ended(
    annealing: float, averaging: float | None, data: Tensor
) -> None:
    """Step by step the same: a net that learns its rows by heart, so that held-out rows end it."""

    def fitted(epochs: int) -> tuple[list[Tensor], History]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 2)).double()
        target = torch.randn(40, 2, generator=Generator().manual_seed(5), dtype=torch.float64)
        training = Training(
            epochs=epochs, batch_size=8, learning_rate=0.02, validation=0.25, patience=5, patient_steps=0,
            annealing=annealing, averaging=averaging, progress=False,
        )  # fmt: skip
        history = maximise(
            net,
            lambda batch, generator: -(net(batch[0]) - batch[1]).square().sum(-1),
            (data, target),
            training,
            generator=Generator().manual_seed(1),
        )
        return [p.detach() for p in net.parameters()], history

    (short, one), (long, other) = fitted(100), fitted(200)
    assert one.converged
    assert other.converged
    assert one.objective == other.objective
    assert one.validation == other.validation
    assert all(a.equal(b) for a, b in zip(short, long, strict=True))


@pytest.mark.parametrize(("settings", "epochs"), [({"epochs": 7}, 7), ({"steps": 20}, 7), ({}, -(-1845 // 3))])
def test_the_budget(settings: dict[str, int], epochs: int) -> None:
    """Three steps an epoch of one row: steps are rounded up to whole epochs."""
    course = Course(Training(**settings), rows=1, length=3, held_out=True)  # type: ignore[arg-type]
    assert course.end == epochs
    assert usual_steps(1) == 1845


def test_refit_takes_the_steps_that_did_best_with_all_rows_from_the_same_start(data: Tensor) -> None:
    """Thirty rows train in three steps an epoch, then forty in four: six constant epochs and three annealed are 4.5
    and 2.25 of those, rounded up."""
    module = Scripted([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0])
    history = module.fit(data, replace(SHORT, epochs=100, batch_size=10, patience=2, refit=True))
    assert len(history.objective) == 8 + 3
    assert history.converged
    first = 3 * (8 + 3)
    assert len(module.stepped) == first + 4 * (5 + 3)
    assert module.rates[first:] == pytest.approx([0.1] * 20 + [0.1 * cosine(step / 12) for step in range(12)])
    assert module.stepped[first].equal(torch.zeros(2, dtype=torch.float64))
    assert module.m.equal(module.seen[-1])  # the last weights, which were looked at


def test_the_average_is_judged_and_kept(data: Tensor) -> None:
    """β_t = min(β, t/(t + 9)), computed here anew from the weights before every step."""
    module = Scripted([*map(float, range(12))])
    module.fit(data, replace(SHORT, averaging=0.5, annealing=0))
    mean = torch.zeros(2, dtype=torch.float64)
    for step, weights in enumerate(module.stepped[1:]):
        decay = min(0.5, step / (step + 9))
        mean = decay * mean + (1 - decay) * weights
        torch.testing.assert_close(module.seen[step], mean, rtol=1e-12, atol=1e-12)
    assert module.m.equal(module.seen[-1])


def test_a_fit_that_falls_from_the_start_ends_with_patience_where_it_stands(data: Tensor) -> None:
    module = Scripted([1.0, 2.0, 1.5, 1.0, 0.5])
    history = module.fit(data, replace(SHORT, epochs=8, annealing=1, patience=2))
    assert module.rates == pytest.approx([0.1 * cosine(step / 8) for step in range(4)], rel=1e-12)
    assert module.m.equal(module.seen[1])
    assert history.converged
    assert not history.climbing


@pytest.mark.parametrize(("best", "climbing"), [(60, True), (5, False)])
def test_a_fit_climbs_only_if_its_best_is_recent(best: int, climbing: bool) -> None:
    course = Course(Training(epochs=100), rows=450, length=4, held_out=True)
    for epoch in range(1, 101):
        course.judged(epoch <= best)
    assert course.ended
    assert course.climbing is climbing


def test_large_batches_make_passes_and_not_as_many_steps() -> None:
    small, whole = (Course(Training(batch_size=size), 4500, length, True) for size, length in ((128, 36), (None, 1)))
    assert small.end == -(-usual_steps(4500) // 36)
    assert (whole.end, whole.waits) == (200, 20)


def test_refit_needs_rates_that_do_not_depend_on_the_end() -> None:
    with pytest.raises(ValueError, match="refit repeats the steps that did best"):
        Training(annealing=1, refit=True)
