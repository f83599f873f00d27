"""Settings of `latent_space`, and the rows that a run consists of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.data.load import Dataset, dataset
from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import OF_THE_RUN, POSITIVE, WIDTHS, CommonSettings, different, quick, setting

ModelName = Literal["ppca", "vae", "flow"]


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    models: tuple[ModelName, ...] = setting(get_args(ModelName), OF_THE_RUN, different("models"))
    """Which projections to make."""
    dimensions: tuple[int, ...] = setting((2, 4, 8), OF_THE_RUN, different("numbers", least=1))
    """Numbers of latent dimensions; 2 is drawn, or 1. Of narrow data those that are fewer than its columns."""
    neighbours: int = setting(7, POSITIVE)
    """Nearest neighbours that count as a neighbourhood, and that vote for a class."""
    hidden: tuple[int, ...] = setting((128, 128), WIDTHS)
    """Widths of hidden layers, encoder and decoder."""
    epochs: int = setting(200, quick(15), POSITIVE)
    """Passes over the training rows, at most."""
    patience: int = setting(30, POSITIVE)
    """Epochs without improvement on held-out training rows before a fit stops."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a gradient step."""
    learning_rate: float = setting(1e-3, quick(4e-3), POSITIVE)
    """Of Adam, falling to 0 along half a cosine."""
    flow_layers: int = setting(6, POSITIVE)
    """Steps of activation norm, LU layer and affine coupling."""
    flow_hidden: tuple[int, ...] = setting((64,), WIDTHS)
    """Widths of hidden layers, couplings."""

    def dimensions_of(self, features: int) -> tuple[int, ...]:
        """The numbers of dimensions that data of so many columns allows: fewer than it has.

        >>> Settings().dimensions_of(5), Settings().dimensions_of(2)
        ((2, 4), (1,))
        """
        fewer = tuple(dimensions for dimensions in self.dimensions if dimensions < features)
        return fewer or (features - 1,)


@dataclass(frozen=True)
class Key(study.Key):
    """A projection, or the data as it is, and the number of dimensions that it has."""

    model: ModelName | Literal["data"]
    dimensions: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """A row for the data itself, for every model and number of dimensions, and for the flow with all of them."""
    for seed in settings.seeds:
        data = dataset(settings, seed)
        chosen = settings.dimensions_of(data.features)
        if chosen != settings.dimensions != Settings.dimensions:
            raise InputError(f"'{data.name}' has {data.features} columns; choose fewer --dimensions")
        if chosen != settings.dimensions and seed == settings.seeds[0]:
            shown = ", ".join(map(str, chosen))
            print(f"note: dimensions {shown}, since '{data.name}' has {data.features} columns", file=sys.stderr)
        key = partial(Key, data.name, data.hash, seed)
        keys = [key("data", data.features)]
        for model in settings.models:
            keys += [key(model, dimensions) for dimensions in chosen]
            keys += [key(model, data.features)] if model == "flow" else []
        for made in keys:
            path = settings.arrays("latent_space", f"{made.model}-{made.dimensions}-{seed}", data.hash)
            yield study.Task(made, data, f"{made.model}, {made.dimensions} dimensions, seed {seed}", makes=(path,))
