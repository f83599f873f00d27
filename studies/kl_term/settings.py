"""Settings of `kl_term`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from studies.data.load import Dataset, dataset
from studies.kit import study
from studies.kit.settings import OF_THE_RUN, POSITIVE, WIDTHS, Bound, CommonSettings, at_least, quick, setting

SAME = (0.1, 3.0)  # weights of the KL term whose fits are repeated by the decoder's width
WEIGHTS = Bound(
    lambda betas: 1.0 in betas and len(set(betas)) == len(betas) and min(betas) >= 0,
    "expects different weights from 0 up, 1 among them",
)


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    betas: tuple[float, ...] = setting((0.0, 0.1, 0.3, 1.0, 3.0, 10.0), OF_THE_RUN, WEIGHTS)
    """Weights of the KL term; 1 must be among them."""
    latents: int = setting(8, POSITIVE)
    """Latents of the VAE whose KL term is scaled."""
    width: float = setting(0.6, POSITIVE)
    """Standard deviation of its decoder, in standard deviations of a feature."""
    many_latents: int = setting(24, POSITIVE)
    """Latents of the VAE with warm-up, whose decoder learns its width."""
    hidden: tuple[int, ...] = setting((64, 64), WIDTHS)
    """Widths of hidden layers, encoder and decoder."""
    epochs: int = setting(150, quick(20), POSITIVE)
    """Passes over the training rows; with warm-up the first fifth of them is spent on it."""
    same_epochs: int = setting(20, quick(5), POSITIVE)
    """Passes of the fits that are compared weight by weight."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a gradient step."""
    learning_rate: float = setting(2e-3, quick(5e-3), POSITIVE)
    """Of Adam, falling to 0 along half a cosine."""
    draws: int = setting(100, quick(20), at_least(2, "to have a standard error"))
    """Latent draws a test point, of rate, distortion and ELBO."""
    importance_draws: int = setting(1000, quick(100), at_least(2, "to have a standard error"))
    """Latent draws a test point, of the importance-weighted bound."""


@dataclass(frozen=True)
class Key(study.Key):
    """A part of the study, and its case: a weight β of the KL term, or which kind of warm-up."""

    part: Literal["sweep", "width", "warm-up"]
    at: str


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """A row for each weight of the KL term; two that repeat a fit by width; two with and without warm-up."""
    for seed in settings.seeds:
        data = dataset(settings, seed)
        key = partial(Key, data.name, data.hash, seed)
        for at in map("{:g}".format, settings.betas):
            path = settings.arrays("kl_term", f"{at}-{seed}", data.hash)
            yield study.Task(key("sweep", at), data, f"β = {at}, seed {seed}", makes=(path,))
        for at in map("{:g}".format, SAME):
            yield study.Task(key("width", at), data, f"width, {at}")
        yield study.Task(key("warm-up", "none"), data, "warm-up")
        yield study.Task(key("warm-up", "warm-up"), data)  # computed together with the one before
