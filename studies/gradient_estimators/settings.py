"""Settings of `gradient_estimators`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from studies.kit import study
from studies.kit.settings import OF_THE_RUN, POSITIVE, SEEDS, CommonSettings, at_least, different, quick, setting

PLAIN = ("score function", "leave-one-out", "reparametrised", "analytic KL", "sticking the landing", "wrong")
WEIGHTED = ("importance weighted", "doubly reparametrised", "sticking, weighted")  # they aim at the weighted bound
TRAINED = ("leave-one-out", "reparametrised", "sticking the landing", "wrong")
DRAWS = 2  # of estimators that aim at the ELBO: the least that leave-one-out can do with


@dataclass(frozen=True)
class Settings(CommonSettings):
    """A linear VAE and a few points simulated from it, its encoder moved away from the posterior."""

    data: Literal["linear"] = setting("linear", OF_THE_RUN)
    """Simulated from the model itself, whose ELBO and posterior are known in closed form."""
    dtype: Literal["float64"] = "float64"
    """What to compute in."""
    seeds: tuple[int, ...] = setting((0, 1, 2), OF_THE_RUN, quick((0,)), SEEDS)
    """Each seed is another model at other points."""
    offsets: tuple[float, ...] = setting(
        (0.0, 0.01, 0.03, 0.1, 0.3), OF_THE_RUN, quick((0.0, 0.01, 0.1)), different("numbers", least=0)
    )
    """Standard deviations of what is added to every parameter of the encoder, from 0: the posterior."""
    draws: tuple[int, ...] = setting(
        (1, 4, 16, 64, 256), OF_THE_RUN, quick((1, 4, 16, 64)), different("integers", least=1)
    )
    """Draws K of the importance-weighted bound."""
    near: float = setting(0.01, POSITIVE)
    """Offset at which the powers of K are measured: as in the paper, near the posterior."""
    far: float = setting(0.1, POSITIVE)
    """Another one, to see how far the powers hold."""
    repeats: int = setting(2000, quick(500), at_least(2))
    """Independent gradients of each estimator."""
    features: int = setting(6, at_least(2))
    """Width of the data."""
    latents: int = setting(2, at_least(1))
    """Latents."""
    signal: float = setting(2.0, POSITIVE)
    """Length of the first column of W, in units of the noise; the others are shorter."""
    points: int = setting(4, at_least(1))
    """Points in the mean whose gradient is estimated."""
    start: float = setting(0.5, POSITIVE)
    """Offset from which the encoder is trained."""
    rows: int = setting(1000, POSITIVE)
    """Points to train it on."""
    steps: int = setting(1000, quick(400), at_least(1))
    """Steps of Adam."""
    batch_size: int = setting(32, POSITIVE)
    """Points in a step."""
    learning_rate: float = setting(0.02, POSITIVE)
    """Of Adam, constant."""


@dataclass(frozen=True)
class Key(study.Key):
    """An estimator's quality, by its draws and the encoder's offset, or the encoder that it trains."""

    part: Literal["quality", "training"]
    estimator: str
    draws: int | None
    offset: float


def tasks(settings: Settings) -> Iterator[study.Task[Key, None]]:
    """For each seed: every estimator at every offset, the weighted bounds for every K, and trainings."""
    cases = [(name, DRAWS, offset) for name in PLAIN for offset in settings.offsets]
    cases += [
        (name, draws, offset)
        for offset in (settings.near, settings.far)
        for draws in settings.draws
        for name in WEIGHTED
    ]
    for seed in settings.seeds:
        key = partial(Key, settings.data, "generated", seed)
        for name, draws, offset in cases:
            label = f"{name}, K = {draws}, seed {seed}" if draws >= 64 else ""
            yield study.Task(key("quality", name, draws, offset), None, label)
        for name in TRAINED:
            yield study.Task(key("training", name, None, settings.start), None, f"training, {name}, seed {seed}")
