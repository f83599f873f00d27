"""Settings of `defaults`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.defaults.tables import SHIPPED, Split, Table, split
from studies.kit import study
from studies.kit.settings import OF_THE_RUN, POSITIVE, CommonSettings, different, quick, setting

Ours = Literal["real-nvp", "glow", "maf", "nsf", "spline-maf"]
Arm = Literal[
    "glow, rotations", "glow, normal base", "nsf, rotations", "spline-maf, no LU", "spline-maf, normal base",
    "spline-maf, dropout", "spline-maf, decay", "spline-maf, averaged", "spline-maf, slow", "spline-maf, cosine",
    "spline-maf, twice the steps", "spline-maf, not whitened", "spline-maf, tanh", "glow, not whitened",
    "spline-maf, wide", "spline-maf, deep", "spline-maf, bound 3", "spline-maf, bound 10",
    "spline-maf, marginals first", "spline-maf, random orders", "nsf, random masks", "nsf, halves",
]  # fmt: skip
Peer = Literal["zuko NSF", "zuko MAF", "nflows NSF", "nflows MAF", "zuko NSF, early stopping"]
Classical = Literal["gaussian", "mixture"]
Model = Ours | Peer | Classical | Arm
Versus = Model | Literal["", "best", "second"]

AFFINE: tuple[Ours, ...] = ("real-nvp", "glow", "maf")
SPLINES: tuple[Ours, ...] = ("nsf", "spline-maf")
# What each arm differs from in one setting.
ARMS: dict[Arm, Ours] = {arm: ("glow" if arm.startswith("glow") else "nsf" if arm.startswith("nsf") else "spline-maf")
                         for arm in get_args(Arm)}  # fmt: skip


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    tables: tuple[Table, ...] = setting(SHIPPED, OF_THE_RUN, quick(("rings",)), different("tables"))
    """Which tables; those that are not shipped are read from the data directory."""
    builders: tuple[Ours, ...] = setting(get_args(Ours), OF_THE_RUN, different("names"))
    """Flows of this library, by their builders."""
    peers: tuple[Peer, ...] = setting(get_args(Peer), OF_THE_RUN, quick(("nflows MAF",)))
    """Flows of other libraries, which have to be installed; "early stopping" is the usual loop, the others get ours."""
    classical: tuple[Classical, ...] = setting(get_args(Classical), OF_THE_RUN)
    """The full Gaussian, and a mixture of ten, by maximum likelihood."""
    arms: tuple[Arm, ...] = setting((), OF_THE_RUN)
    """What the builders' defaults were chosen among, each in one setting another than a builder; none unless named."""
    hidden: int = setting(64, quick(16), POSITIVE)
    """Width of the two hidden layers of every network."""
    learning_rate: float = setting(3e-3, POSITIVE)
    """Of the constant part; 1e-3 with early stopping."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a gradient step."""
    most_steps: int = setting(6000, quick(200), POSITIVE)
    """Steps of a fit, at most; fewer where there are few rows."""


@dataclass(frozen=True)
class Key(study.Key):
    """A model on a table; or one against another, row by row, and the best of one side against that of the other."""

    model: Versus
    versus: Versus = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, Split]]:
    """A row for each model of a table and seed, then for each comparison."""
    for seed in settings.seeds:
        for name in settings.tables:
            data = split(name, seed, settings.data_directory)
            key = partial(Key, name, data.hash, seed)
            models: tuple[Model, ...] = (*settings.classical, *settings.builders, *settings.peers, *settings.arms)
            points = {model: settings.arrays("defaults", f"{name}-{model}-{seed}", data.hash) for model in models}
            for model, path in points.items():
                yield study.Task(key(model), data, f"{name}, {model}, seed {seed}", makes=(path,))
            for ours in settings.builders:
                for other in settings.classical:
                    yield study.Task(key(ours, other), data, needs=(points[ours], points[other]))
            for arm in settings.arms:
                if ARMS[arm] in points:
                    yield study.Task(key(arm, ARMS[arm]), data, needs=(points[arm], points[ARMS[arm]]))
            sides = [tuple(points[model] for model in side) for side in (settings.builders, settings.peers)]
            if all(sides):
                for place in ("best", "second"):
                    yield study.Task(key(place, place), data, needs=(*sides[0], *sides[1]))
