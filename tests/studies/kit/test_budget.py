"""Studies within a budget: what is started, what is not, and what one that fails costs the others."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from studies import budget
from studies.__main__ import main
from studies.budget import Options, stated, within, worst, write
from studies.kit.errors import InputError
from studies.kit.registry import every_study
from studies.kit.run import parsed
from studies.kit.study import Study
from studies.turns import NOT_STARTED, Turn, in_turns

STATED = {"elbo_gap": 200.0, "judge": 400.0, "kl_term": 100.0, "survae": 250.0, "mnist": 50.0}


class Machine:
    """Takes so many seconds for a second stated, on a clock of its own."""

    def __init__(self, pace: float) -> None:
        self.pace, self.now, self.started = pace, 0.0, list[str]()

    def start(self, package: str, arguments: Sequence[str]) -> int:
        name = package.removeprefix("studies.")
        self.started.append(name)
        self.now += self.pace * STATED[name]
        return 0

    def clock(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "stated", lambda study: STATED[study.name])


@pytest.mark.parametrize(
    ("pace", "started"),
    [
        (1.0, ["elbo_gap", "kl_term", "mnist"]),  # judge and survae would pass the end, those after them do not
        (0.5, ["elbo_gap", "judge", "kl_term", "mnist"]),  # judge fits what is left at this pace, survae does not
        (0.25, ["elbo_gap", "judge", "kl_term", "survae", "mnist"]),
        (3.0, ["elbo_gap"]),
    ],
)
def test_what_is_started(pace: float, started: list[str]) -> None:
    machine = Machine(pace)
    table = within(Options("400s", studies=tuple(STATED)), machine.start, machine.clock)
    assert machine.started == started
    assert [row["study"] for row in table] == list(STATED)
    assert [row["study"] for row in table if row["ended"] != NOT_STARTED] == started
    assert worst(table) == 0


def test_all_studies_have_their_turn_in_the_order_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "stated", stated)
    table = within(Options("1000h", "cuda"), lambda *_: 0)
    assert sorted(row["study"] for row in table) == [study.name for study in every_study()]
    assert table[0]["study"] == "elbo_gap"
    given = {row["study"]: row["arguments"] for row in table}
    assert {name for name in given if "--preset" in given[name]} == {"mnist", "images", "diffusion"}


def test_one_that_breaks_costs_the_others_nothing(tmp_path: Path) -> None:
    def start(package: str, arguments: Sequence[str]) -> int:
        if package == "studies.judge":
            raise TypeError("a, b")
        return {"studies.kl_term": 2}.get(package, 0)

    options = Options("8m", studies=("elbo_gap", "judge", "kl_term"), output=tmp_path)
    table = within(options, start)
    write(table, options)
    with (tmp_path / "budget.csv").open() as file:
        assert list(csv.DictReader(file)) == table
    ends = [row["ended"] for row in table]
    assert ends == ["all is well", "broke off: TypeError: a, b", "the request makes no sense"]
    assert [worst(table), worst(table[::2]), worst(table[:1])] == [1, 2, 0]


def test_what_is_under_way_at_the_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(package: str, arguments: Sequence[str]) -> int:
        try:
            time.sleep(20)
        except KeyboardInterrupt:
            return 130
        return 0

    monkeypatch.setattr(budget, "stated", lambda study: 0.1)
    (row,) = within(Options("0.2s", studies=("mnist",)), start)
    assert row["ended"] == "cut off, rows are kept"
    assert float(row["seconds"]) < 10


def test_only_the_end_of_the_budget_cuts_off_one_turn_alone() -> None:
    def wait() -> int:
        time.sleep(20)
        return 0

    def interrupted() -> int:
        raise KeyboardInterrupt

    outcomes = list(in_turns([Turn("long", 0.1, wait), Turn("late", 0.1, wait)], 0.2))
    assert [outcome.ended for outcome in outcomes] == ["cut off, rows are kept", NOT_STARTED]
    with pytest.raises(KeyboardInterrupt):
        next(in_turns([Turn("stopped", 0.1, interrupted)], math.inf))


@pytest.mark.parametrize("wrong", ["", "8 minutes", "-1m", "0m"])
def test_budgets_that_are_none(wrong: str) -> None:
    with pytest.raises(InputError, match="--budget expects a positive time"):
        within(Options(wrong))


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--budget", "8m", "--studies", "nothing"]) == 2
    assert "no study nothing" in capsys.readouterr().err


def test_an_option_given_counts_as_chosen_where_its_value_is_the_default() -> None:
    def settings(*arguments: str) -> Any:  # noqa: ANN401 - with settings of its own
        return parsed(Study("studies.mnist"), ["--preset", "full", *arguments])

    assert (settings().device, settings("--device", "cpu").device) == ("cuda", "cpu")
    assert settings("--device", "cpu").epochs == settings().epochs == 600
    judge = Study("studies.judge")
    assert parsed(judge, ["--quick", "--steps", "2000"]) == parsed(judge, ["--quick", "--steps", "2000", "--trust"])
