"""Settings of `flow_layers`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.data.load import Dataset, dataset
from studies.kit import study
from studies.kit.settings import (
    NOT_NEGATIVE,
    OF_THE_RUN,
    POSITIVE,
    CommonSettings,
    at_least,
    different,
    quick,
    setting,
)

Part = Literal["between", "kind"]
Between = Literal["none", "permutation", "lu", "qr", "lu+actnorm"]
Kind = Literal["affine", "spline", "maf", "iaf"]
REFERENCE: dict[Part, Between | Kind] = {"between": "none", "kind": "affine"}  # what the others of a part gain over


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    between: tuple[Between, ...] = setting(get_args(Between), OF_THE_RUN, different("names"))
    """Layers to put before each affine coupling."""
    kinds: tuple[Kind, ...] = setting(get_args(Kind), OF_THE_RUN, different("names"))
    """Transforms to put after LU and ActNorm."""
    layers: int = setting(6, quick(3), at_least(2, "so that every feature moves"))
    """Couplings or autoregressive layers."""
    hidden: int = setting(64, POSITIVE)
    """Width of the two hidden layers of LU, ActNorm and affine coupling; it sets the budget of parameters, and every
    other flow gets the width that comes nearest to it."""
    epochs: int = setting(100, quick(4), POSITIVE)
    """Passes over the training rows, at most."""
    patience: int = setting(20, POSITIVE)
    """Epochs without improvement on held-out training rows before a fit stops."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a gradient step."""
    learning_rate: float = setting(1e-3, quick(3e-3), POSITIVE)
    """Of AdamW, falling to 0 along half a cosine."""
    decay: float = setting(1.0, NOT_NEGATIVE)
    """Weight decay (decoupled, as in AdamW)."""
    repeats: int = setting(15, quick(3), POSITIVE)
    """Timings of density and sampling, of which the median counts."""

    def names(self, part: Part) -> tuple[Between | Kind, ...]:
        """The flows of a part."""
        return self.between if part == "between" else self.kinds


@dataclass(frozen=True)
class Key(study.Key):
    """A flow by the layer between its couplings, or by its transform; or what it gains over another one."""

    part: Part
    name: Between | Kind
    versus: Between | Kind | Literal[""] = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """A row for each layer between couplings, and for each transform; then each against the first, paired."""
    for seed in settings.seeds:
        data = dataset(settings, seed)
        key = partial(Key, data.name, data.hash, seed)
        for part, first in REFERENCE.items():
            paths = {
                name: settings.arrays("flow_layers", f"{part}-{name}-{seed}", data.hash)
                for name in settings.names(part)
            }
            for name, path in paths.items():
                yield study.Task(key(part, name), data, f"{part} {name}, seed {seed}", makes=(path,))
            for name in paths:
                if name != first and first in paths:
                    yield study.Task(key(part, name, first), data, needs=(paths[name], paths[first]))
