"""Settings of `linear_vae`, and the rows that a run consists of."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from studies.data.load import Dataset, dataset
from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import POSITIVE, CommonSettings, at_least, quick, setting

Part = Literal["optimum", "path", "collapse", "rotation"]
PATHS = {"closed form": "ELBO in closed form", "sampled": "ELBO from one draw"}


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    dtype: Literal["float32", "float64"] = "float64"
    """What to compute in; in single precision the ELBO is too flat at its maximum to tell close axes apart."""
    latents: int = setting(8, at_least(2, "for a plane to rotate in"))
    """Latents of the linear VAE and of PPCA; of data with no more columns, one less than it has."""
    rounds: int = setting(300, POSITIVE)
    """L-BFGS rounds, of 20 steps each, to the optimum."""
    steps: int = setting(3000, quick(600), at_least(2, "for a path to have two ends"))
    """Full-batch Adam steps of a training path."""
    learning_rate: float = setting(0.03, POSITIVE)
    """Of Adam, falling to 0 along half a cosine; in units of the data's overall standard deviation."""
    noises: int = setting(10, quick(4), POSITIVE)
    """Fixed noise variances σ² at which columns may collapse."""
    angles: int = setting(10, quick(4), at_least(2, "for a curve to have two ends"))
    """Rotations of the latent between 0 and 45 degrees."""
    draws: int = setting(400, quick(100), at_least(2, "to have a standard error"))
    """Latent draws a point, to measure by sampling what a rotation costs."""

    @property
    def checkpoints(self) -> int:
        """Points of a training path: eight a factor of ten."""
        return 1 + int(8 * math.log10(self.steps))

    def latents_of(self, data: Dataset) -> int:
        """How many latents data of so many columns allows, if not as many as asked for."""
        return min(self.latents, data.features - 1)


@dataclass(frozen=True)
class Key(study.Key):
    """A part of the study, and which point of its curve."""

    part: Part
    index: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """The optimum; both training paths; columns against σ²; rotations. Each point of a curve is a row."""
    counts: dict[Part, int] = {"optimum": 1, "path": len(PATHS) * settings.checkpoints}
    counts |= {"collapse": settings.noises, "rotation": settings.angles}
    for seed in settings.seeds:
        data = dataset(settings, seed)
        if data.features < 3:
            raise InputError(f"'{data.name}' has {data.features} columns; a linear VAE of two latents needs 3 or more")
        latents = settings.latents_of(data)
        if latents < settings.latents and seed == settings.seeds[0]:
            print(f"note: {latents} latents, since '{data.name}' has {data.features} columns", file=sys.stderr)
        key = partial(Key, data.name, data.hash, seed)
        for part, count in counts.items():
            for index in range(count):  # of a part all rows are computed with the first
                yield study.Task(key(part, index), data, "" if index else f"{part}, seed {seed}")
