"""Settings of `naive_monte_carlo`, and the rows that a run consists of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import OF_THE_RUN, POSITIVE, Bound, CommonSettings, at_least, different, quick, setting

Method = Literal["average", "prior", "encoder"]
MOST = {"average": 2048, "prior": math.inf, "encoder": 2048}  # draws beyond which nothing is left to see


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Linear models with exact log p(x), and points simulated from them."""

    data: Literal["linear"] = setting("linear", OF_THE_RUN)
    """Simulated from the models themselves, whose log p(x) and posterior are known."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    latents: tuple[int, ...] = setting(
        (1, 2, 3, 4, 6, 8, 10), OF_THE_RUN, quick((1, 2, 4, 6)), different("integers", least=1)
    )
    """Latent dimensions q."""
    draws: tuple[int, ...] = setting(
        (2, 8, 32, 128, 512, 2048, 8192, 32768),
        OF_THE_RUN,
        quick((2, 8, 32, 128, 512, 2048)),
        different("integers", least=2),
    )
    """Draws K for each point."""
    features: int = 32
    """Width of the data."""
    signal: float = setting(2.0, POSITIVE)
    """Standard deviation of what each latent adds to x, in units of the noise."""
    correlation: float = setting(0.6, Bound(lambda share: 0 <= share < 1, "must be in [0, 1)"))
    """Between the columns of W in each pair, so that a diagonal encoder is not exact."""
    points: int = setting(256, quick(128), at_least(2))
    """How many x, each with draws of its own."""

    def check(self) -> None:
        """Also that there are features for all latents."""
        super().check()
        if max(self.latents) > self.features:
            raise InputError(f"--features must be at least the largest of --latents; got {self.features}")


@dataclass(frozen=True)
class Key(study.Key):
    """A number of latents, and an estimate of log p(x) by a number of draws."""

    latents: int
    method: Method
    draws: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, None]]:
    """A row for each seed, latent dimension, estimator and number of draws."""
    for seed in settings.seeds:
        for latents in settings.latents:
            for method in get_args(Method):
                for draws in settings.draws:
                    if draws <= MOST[method]:
                        key = Key(settings.data, "generated", seed, latents, method, draws)
                        label = f"{latents} latents, {draws} draws, {method}" if draws > 2048 else ""
                        yield study.Task(key, None, label)
