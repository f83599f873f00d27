"""The loop of EM by itself: a climb of one number, where every step is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from density import Checkpoint, CheckpointMismatch
from density.fitting.checkpoint import Logbook
from density.parallel.random_streams import Randomness
from lvm.em import Climbed, Degenerate, Limits, climb
from lvm.em_parameters import Parameters


@dataclass(frozen=True, eq=False)
class Height(Parameters):
    """One number, which every M-step halves the distance of to the integer above it."""

    at: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.at,)

    def having(self, *tensors: Tensor) -> Height:
        return Height(*tensors)


class Cut(Exception):
    """What ends a fit at a moment."""


def climbed(
    limits: Limits,
    starts: list[float] | None = None,
    *,
    checkpoint: Checkpoint | None = None,
    seed: int = 0,
    before_step: Callable[[], None] = lambda: None,
) -> Climbed[Height]:
    """From given starts, or from random ones; below 0 an M-step fails."""
    generator = Generator().manual_seed(seed)
    given = iter(starts or [])

    def start() -> Height:
        value = torch.tensor(next(given)) if starts else torch.rand((), generator=generator)
        return Height(value.double())

    def expect(here: Height) -> tuple[float, float]:
        return here.at.item(), here.at.ceil().item()

    def maximise(here: Height, top: float) -> Height:
        before_step()
        if bool(here.at < 0):
            raise Degenerate(f"{here.at.item()} is below 0")
        return Height((here.at + top) / 2)

    log = Logbook(checkpoint, "climb", {"limits": repr(limits)}, Randomness(generator, torch.device("cpu")))
    return climb(start, expect, maximise, limits, log, Height(torch.zeros((), dtype=torch.float64)))


def test_it_takes_the_steps_that_it_is_given() -> None:
    found = climbed(Limits(steps=3, progress=False), [0.5])
    assert found.history.objective == [0.5, 0.75, 0.875, 0.9375]
    assert found.parameters is not None
    assert found.parameters.at.item() == 0.9375
    assert (found.history.converged, found.history.stopped, found.history.best) == (False, "3 iterations done", 3)
    assert found.error is None


@pytest.mark.parametrize(("tolerance", "values"), [(0.1, 4), (0.0625, 4), (0.06, 5), (0.0, 55)])
def test_it_stops_where_the_objective_no_longer_changes(tolerance: float, values: int) -> None:
    found = climbed(Limits(steps=1000, tolerance=tolerance, progress=False), [0.5])
    assert len(found.history.objective) == values
    assert found.history.converged
    assert found.history.stopped == f"the mean log-likelihood changed by at most {tolerance:g}"


def test_the_best_of_several_starts_is_kept_and_the_first_of_equal_ones() -> None:
    found = climbed(Limits(steps=1, restarts=4, progress=False), [0.5, 2.5, 1.5, 2.5])
    assert found.history.objective == [2.5, 2.75]
    assert found.history.stopped == "1 iterations done"


def test_starts_that_fail_are_counted_and_others_kept() -> None:
    found = climbed(Limits(steps=2, restarts=3, progress=False), [-0.5, 0.5, -1.0])
    assert found.error is None
    assert found.history.stopped == "2 iterations done; the likelihood has no maximum in 2 of 3 starts"
    lost = climbed(Limits(steps=2, restarts=2, progress=False), [-3.0, -0.5])
    assert lost.error == "-0.5 is below 0"
    assert lost.parameters is not None
    assert (lost.parameters.at.item(), lost.history.objective) == (-0.5, [-0.5])
    assert lost.history.stopped == "the likelihood has no maximum; the likelihood has no maximum in 2 of 2 starts"


@pytest.mark.parametrize("limits", [Limits(steps=9, restarts=3, progress=False), Limits(steps=2, restarts=9)])
def test_cut_anywhere_it_ends_as_if_it_had_not_been(limits: Limits, tmp_path: Path) -> None:
    expected = climbed(limits)
    checkpoint = Checkpoint(tmp_path / "climb.ckpt", steps=2)
    lives, left = 0, 0

    def until_cut() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut

    while True:
        lives, left = lives + 1, 5
        try:
            found = climbed(limits, checkpoint=checkpoint, before_step=until_cut)
        except Cut:
            continue
        break
    assert lives > 4
    left = 0
    again = climbed(limits, checkpoint=checkpoint, before_step=until_cut)  # has ended: no step is taken
    assert expected.parameters is not None
    for other in (found, again):
        assert other.parameters is not None
        assert torch.equal(other.parameters.at, expected.parameters.at)
        assert {**asdict(other.history), "seconds": 0} == {**asdict(expected.history), "seconds": 0}
    with pytest.raises(CheckpointMismatch, match="limits"):
        climbed(Limits(steps=1), checkpoint=checkpoint)
    with pytest.raises(CheckpointMismatch, match="seed"):
        climbed(limits, checkpoint=checkpoint, seed=1)


def resting(
    ways: Callable[[Height, float], list[Height]],
    *,
    steps: int = 100,
    tolerance: float = 1e-6,
    checkpoint: Checkpoint | None = None,
    before_step: Callable[[], None] = lambda: None,
) -> Climbed[Height]:
    """From 0, where a step goes half the way to 1; there, or wherever ways lead, it rests."""

    def maximise(here: Height, top: float) -> Height:
        before_step()
        return Height((here.at + top) / 2)

    def expect(here: Height) -> tuple[float, float]:
        return here.at.item(), max(here.at.ceil().item(), 1.0)

    def start() -> Height:
        return Height(torch.zeros((), dtype=torch.float64))

    log = Logbook(checkpoint, "climb", {}, Randomness(None, torch.device("cpu")))
    limits = Limits(steps=steps, tolerance=tolerance, progress=False)
    return climb(start, expect, maximise, limits, log, start(), ways_up=ways)


def above(*rises: float, most: float = 10.0) -> Callable[[Height, float], list[Height]]:
    """Ways up by so much, below some height."""
    return lambda here, top: [Height(here.at + rise) for rise in rises if here.at < most]


def test_where_it_rests_it_takes_the_highest_way_up() -> None:
    found = resting(above(0.25, 0.5, -3.0, most=1.5))
    assert found.history.converged
    assert found.history.stopped == "the mean log-likelihood changed by at most 1e-06, after leaving 1 saddle point"
    assert found.history.objective[-1] == pytest.approx(2, abs=1e-5)
    assert any(value == pytest.approx(1.5, abs=1e-5) for value in found.history.objective)
    assert all(later > before for before, later in pairwise(found.history.objective))


def test_what_is_no_higher_is_no_way_up() -> None:
    for ways in (above(), above(0.0, -1.0), above(1e-6), above(1e-12)):
        found = resting(ways)
        assert found.history.converged
        assert found.history.stopped == "the mean log-likelihood changed by at most 1e-06"
    little = resting(above(1e-10), tolerance=0.0)  # a rise, but of rounding
    assert little.history.converged
    assert "saddle" not in little.history.stopped


def test_ways_up_without_end_are_left_at_the_last_step() -> None:
    found = resting(above(0.3, most=1e9), steps=80)
    assert not found.history.converged
    assert found.history.stopped.startswith("80 iterations done, ")
    assert found.history.stopped.endswith(" saddle points")
    assert len(found.history.objective) == 81


def test_ways_up_are_taken_again_after_a_cut(tmp_path: Path) -> None:
    expected = resting(above(0.5, most=4.0))
    assert "saddle points" in expected.history.stopped
    left = 0

    def until_cut() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut

    while True:
        left = 7
        try:
            found = resting(
                above(0.5, most=4.0), checkpoint=Checkpoint(tmp_path / "a.ckpt", steps=1), before_step=until_cut
            )
        except Cut:
            continue
        break
    assert {**asdict(found.history), "seconds": 0} == {**asdict(expected.history), "seconds": 0}
