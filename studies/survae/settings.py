"""Settings of `survae`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    WIDTHS,
    CommonSettings,
    at_least,
    different,
    one_of,
    quick,
    setting,
)

ToyName = Literal["checkerboard", "corners", "eight-gaussians", "circles", "sets"]
ModelName = Literal["flow", "abs-flow", "sort-flow", "permute-flow"]


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("toys", OF_THE_RUN, one_of(["toys"], "whose densities are known"))
    """Only toys: this study needs data of known density."""
    toys: tuple[ToyName, ...] = setting(get_args(ToyName), OF_THE_RUN, different("toys"))
    """Which of them."""
    train_rows: int = setting(128_000, quick(4000), POSITIVE)
    """Points to fit."""
    test_rows: int = setting(40_000, quick(2000), POSITIVE)
    """Points to judge by."""
    epochs: int = setting(10, quick(2), POSITIVE)
    """Passes over them."""
    batch_size: int = setting(256, POSITIVE)
    """Points in a gradient step."""
    learning_rate: float = setting(2e-3, quick(5e-3), POSITIVE)
    """Of Adam, falling to 0 along half a cosine."""
    layers: int = setting(4, at_least(2, "so that every feature moves"))
    """Affine couplings."""
    hidden: tuple[int, ...] = setting((200, 100), WIDTHS)
    """Widths of hidden layers, couplings and sign models."""
    draws: int = setting(100, quick(10), POSITIVE)
    """Latent draws a test point, of the model that has only a bound."""


@dataclass(frozen=True)
class Key(study.Key):
    """A toy and a model, or what that gains on another one, point by point."""

    toy: ToyName
    model: ModelName
    versus: Literal["flow", ""] = ""


def models_of(toy: ToyName) -> tuple[ModelName, ...]:
    """The flow, then what surjections make of it."""
    return ("flow", "sort-flow", "permute-flow") if toy == "sets" else ("flow", "abs-flow")


def tasks(settings: Settings) -> Iterator[study.Task[Key, None]]:
    """A row for each seed, toy and model, then for each pair of models of one toy."""
    folder = settings.folder("survae") / "points"
    for seed in settings.seeds:
        for toy in settings.toys:
            key = partial(Key, "toys", "generated", seed, toy)
            points = {model: folder / f"{toy}-{model}-{seed}-{settings.digest}.npz" for model in models_of(toy)}
            for model, path in points.items():
                yield study.Task(key(model), None, f"{toy}, {model}", makes=(path,))
            for model in models_of(toy)[1:]:
                yield study.Task(key(model, "flow"), None, needs=(points[model], points["flow"]))
