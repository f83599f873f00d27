"""Settings of `decomposition`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from studies.data.load import Dataset, dataset
from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import POSITIVE, WIDTHS, CommonSettings, at_least, quick, setting

Part = Literal["PPCA", "VAE", "gaussians", "learning"]


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    hidden: tuple[int, ...] = setting((64, 64), WIDTHS)
    """Widths of hidden layers, encoder and decoder of the VAE with 2 latents."""
    epochs: int = setting(150, quick(15), POSITIVE)
    """Passes over the training rows, at most."""
    patience: int = setting(30, POSITIVE)
    """Epochs without improvement on held-out training rows before a fit stops."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a gradient step."""
    learning_rate: float = setting(2e-3, quick(5e-3), POSITIVE)
    """Of Adam, falling to 0 along half a cosine."""
    training_grid: int = setting(60, quick(30), POSITIVE)
    """Nodes along each latent, ± 5, shifted at random in every step, of the likelihood that trains a decoder."""
    iwae_draws: int = setting(16, at_least(2))
    """Draws of the importance-weighted bound that trains a decoder."""
    points: int = setting(60, quick(15), at_least(2))
    """Test points, at random, of the paths and the best Gaussians."""
    steps: int = setting(11, at_least(2))
    """Values of t on the path from prior to posterior."""
    grid: int = setting(400, quick(200), at_least(2))
    """Nodes along each latent of the VAE's path."""
    draws: int = setting(200, quick(50), at_least(2))
    """Latent draws a point, where an ELBO is sampled."""
    tolerance: float = setting(1e-4, quick(1e-3), POSITIVE)
    """Nats that quadrature may be off at a point."""
    pictures: int = setting(2, at_least(2))
    """Points whose posterior is drawn: at the median of the encoder's divergence and above."""


@dataclass(frozen=True)
class Key(study.Key):
    """A part of the study, and the place of a row in it."""

    part: Part
    index: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """Both paths, a row for each t; the three Gaussians; three trainings of one decoder."""
    counts: dict[Part, int] = {"PPCA": settings.steps, "VAE": settings.steps, "gaussians": 3, "learning": 3}
    for seed in settings.seeds:
        data = dataset(settings, seed)
        if data.features < 3:
            raise InputError(f"'{data.name}' has {data.features} columns; PPCA of two latents needs 3 or more")
        key = partial(Key, data.name, data.hash, seed)
        pictures = settings.arrays("decomposition", f"{seed}", data.hash)
        for part, count in counts.items():
            makes = (pictures,) if part == "gaussians" else ()
            for index in range(count):
                label = "" if index else f"{part}, seed {seed}"  # the rows of a part are computed together
                yield study.Task(key(part, index), data, label, makes=makes)
