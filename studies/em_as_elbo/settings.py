"""Settings of `em_as_elbo`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.kit import study
from studies.kit.settings import OF_THE_RUN, POSITIVE, SEEDS, CommonSettings, at_least, different, quick, setting

Problem = Literal["separated", "overlapping", "noisy", "quiet"]
Method = Literal["EM", "expanded EM", "Adam", "L-BFGS", "closed form"]
MIXTURES: tuple[Problem, ...] = ("separated", "overlapping")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Four problems of known maximum, one start for all methods."""

    data: Literal["simulated"] = setting("simulated", OF_THE_RUN)
    """Points from mixtures and PPCA models, one kind easy for EM and one hard."""
    seeds: tuple[int, ...] = setting((0, 1, 2, 3, 4), OF_THE_RUN, quick((0,)), SEEDS)
    """Each seed is other data and another start."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    problems: tuple[Problem, ...] = setting(get_args(Problem), OF_THE_RUN, different("problems"))
    """Which of them."""
    rows: int = setting(1000, quick(500), at_least(50))
    """Points."""
    half_steps: int = setting(12, at_least(1))
    """Iterations of EM that are looked at half step by half step."""
    passes: int = setting(3000, quick(1500), at_least(1))
    """Passes over the data that a method has, at most."""
    learning_rate: float = setting(0.03, POSITIVE)
    """Of Adam, constant; L-BFGS searches along lines."""


@dataclass(frozen=True)
class Key(study.Key):
    """A problem, and the method that climbs it; or EM on it, half step by half step."""

    problem: Problem
    method: Method | Literal["half steps"]


def methods(problem: Problem) -> tuple[Method, ...]:
    """Those that there are for it: a mixture has no closed form."""
    return ("EM", "Adam", "L-BFGS") if problem in MIXTURES else get_args(Method)


def tasks(settings: Settings) -> Iterator[study.Task[Key, None]]:
    """For each seed and problem: EM's half steps, and every method's race."""
    for seed in settings.seeds:
        for problem in settings.problems:
            key = partial(Key, settings.data, "generated", seed, problem)
            yield study.Task(key("half steps"), None)
            for method in methods(problem):
                label = f"{problem}, {method}, seed {seed}" if method in ("Adam", "L-BFGS") else ""
                yield study.Task(key(method), None, label)
