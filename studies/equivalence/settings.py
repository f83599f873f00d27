"""Settings of `equivalence`, and the rows that a run consists of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    SEEDS,
    WIDTHS,
    Bound,
    CommonSettings,
    at_least,
    different,
    quick,
    setting,
)

FlowName = Literal["linear", "coupling", "glow", "maf", "iaf"]
SEVERAL_POSITIVE = Bound(
    lambda widths: len(set(widths)) == len(widths) > 1 and all(0 < width < math.inf for width in widths),
    "expects two or more different positive widths",
)


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Random flows at random points."""

    data: Literal["random"] = setting("random", OF_THE_RUN)
    """The theorem holds at any point and any parameters; both are random."""
    seeds: tuple[int, ...] = setting((0, 1, 2), OF_THE_RUN, quick((0,)), SEEDS)
    """Each seed is another flow at other points."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    flows: tuple[FlowName, ...] = setting(get_args(FlowName), OF_THE_RUN, different("flows"))
    """Which architectures."""
    sigmas: tuple[float, ...] = setting(
        (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1), OF_THE_RUN, quick((1e-3, 1e-2, 1e-1)), SEVERAL_POSITIVE
    )
    """Widths of the Gaussians that tend to deltas, in the units of the data, whose scale is about 1."""
    features: int = setting(3, at_least(2))
    """Width of the data."""
    layers: int = setting(4, at_least(2))
    """Of each flow but the linear one."""
    hidden: tuple[int, ...] = setting((16, 16), WIDTHS)
    """Widths of hidden layers."""
    spread: float = 0.2
    """Standard deviation of what is added to every parameter of a new flow, so that it is no identity."""
    points: int = setting(128, quick(64), at_least(2))
    """How many points."""
    steps: int = setting(200, quick(30), at_least(1))
    """Steps of Adam on all points."""
    learning_rate: float = setting(0.01, POSITIVE)
    """Of Adam."""
    width: float = setting(0.1, POSITIVE)
    """σ of the training that is meant to differ: Gaussians instead of deltas."""


@dataclass(frozen=True)
class Key(study.Key):
    """A flow and what is measured of it: the theorem, a training, or the limit at one σ."""

    flow: FlowName
    part: Literal["theorem", "path", "limit"]
    sigma: float | None = None


def tasks(settings: Settings) -> Iterator[study.Task[Key, None]]:
    """For each seed and flow: the theorem, a training, and a row for each σ."""
    for seed in settings.seeds:
        for flow in settings.flows:
            key = partial(Key, settings.data, "generated", seed, flow)
            yield study.Task(key("theorem"), None)
            yield study.Task(key("path"), None, f"training, {flow}, seed {seed}")
            for sigma in settings.sigmas:
                yield study.Task(key("limit", sigma), None)
