"""Settings of `diffusion`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

from studies.data.load import Dataset, load
from studies.data.ring import ring
from studies.diffusion.line import line
from studies.kit import study
from studies.kit.settings import (
    ADDED_LATER,
    OF_THE_RUN,
    POSITIVE,
    SOME_WIDTHS,
    Bound,
    CommonSettings,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

SetName = Literal["line", "ring", "digits", "mnist"]
TOYS: tuple[SetName, ...] = ("line", "ring")  # of known density
SEVERAL = at_least(2, "to have a standard error")
TOLERANCES = Bound(lambda values: all(0 < value < 1 for value in values), "expects numbers of nats between 0 and 1")
gpu = partial(preset, "gpu")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("diffusion", OF_THE_RUN, one_of(["diffusion"], "which --sets names"))
    """Only diffusion: --sets says which."""
    preset: Literal["cpu", "gpu"] = setting("cpu", OF_THE_RUN)
    """gpu: MNIST and larger networks, for one GPU."""
    sets: tuple[SetName, ...] = setting(
        ("line", "ring", "digits"), OF_THE_RUN, quick(("ring",)), gpu(("mnist",)), different("sets")
    )
    """line (three bumps, D = 1), ring (D = 2), digits (8 × 8); from the data directory mnist."""
    device: str = setting("cpu", gpu("cuda"))
    """Where to compute: cpu, cuda, cuda:1, ..."""
    toy_rows: int = setting(4000, quick(1000), at_least(100))
    """Points of a toy to fit."""
    points: int = setting(300, quick(100), SEVERAL)
    """Test points of a toy."""
    images: int = setting(60, quick(20), gpu(1000), SEVERAL)
    """Test images, at most."""
    fit_steps: int = setting(4000, quick(600), gpu(50_000), POSITIVE)
    """Steps of a gradient fit, at most."""
    likelihood_steps: int = setting(60, quick(4), POSITIVE)
    """Steps of the maximum-likelihood fit of a continuous flow, each of which solves an equation and its gradient."""
    batch_size: int = setting(256, gpu(512), POSITIVE)
    """Rows in a step."""
    learning_rate: float = setting(4e-3, gpu(5e-4), POSITIVE)
    """Of Adam, until it is annealed."""
    hidden: tuple[int, ...] = setting((64, 64), quick((32, 32)), SOME_WIDTHS)
    """Hidden widths of a toy's network."""
    image_hidden: tuple[int, ...] = setting((128, 128), gpu((1024, 1024, 1024)), SOME_WIDTHS)
    """Hidden widths of an image's network."""
    ends: tuple[float, ...] = setting((-8.0, 6.0), Bound(lambda ends: len(ends) == 2 and ends[0] < ends[1],
                                                        "expects a first and a larger last number"))  # fmt: skip
    """γ = log σ²/α² at the ends of the cosine schedule."""
    chain: tuple[int, ...] = setting((1, 2, 4, 10, 30, 100, 1000), quick((1, 10, 100)), different("numbers", 1))
    """Numbers of steps T by which the network is read as a chain; it is trained at the largest."""
    most_on_planes: int = setting(30, quick(10), POSITIVE)
    """Steps of a chain whose log p(x) grids in two dimensions still give."""
    most_weighted: int = setting(100, POSITIVE)
    """Steps of a chain of images whose log p(x) importance weighting bounds; of longer ones the ELBO does."""
    annealed: int = setting(10, ADDED_LATER, POSITIVE)
    """Steps of the chain of images whose log p(x) annealing bounds, over all of its latents together."""
    temperatures: int = setting(100, ADDED_LATER, POSITIVE)
    """Steps of annealing, of 8 runs for each image."""
    draws: int = setting(64, quick(16), SEVERAL)
    """Draws of a latent, or of a chain's, of the importance-weighted bound."""
    elbo_draws: int = setting(2, POSITIVE)
    """Draws of each term of the ELBO of a chain, at every point; of the limit 128 times as many."""
    grid_tolerance: float = setting(1e-4, POSITIVE)
    """Nats that grids may be off at a point."""
    tolerances: tuple[float, ...] = setting((1e-1, 1e-3, 1e-6), quick((1e-3, 1e-6)), TOLERANCES)
    """Nats, of the solver, each compared with a solution to a thousandth of the smallest one."""
    image_tolerance: float = setting(1e-4, POSITIVE)
    """Nats, of the solver, of images."""
    repeats: int = setting(8, quick(4), SEVERAL)
    """Evaluations of Hutchinson's estimate, of one probe each."""
    layers: int = setting(4, at_least(2))
    """Of the coupling flow; its width follows from the network's number of parameters."""
    latents: int = setting(16, gpu(64), POSITIVE)
    """Of the VAE of images; of a toy it has as many as there are dimensions."""

    def presets(self) -> tuple[str, ...]:
        return super().presets() + (("gpu",) if self.preset == "gpu" else ())

    def widths(self, data: Dataset) -> tuple[int, ...]:
        """Hidden widths of a network of such data."""
        return self.hidden if data.name in TOYS else self.image_hidden

    def solved_to(self, data: Dataset) -> float:
        """Tolerance of the solver where it is no matter of the row."""
        return min(self.tolerances) if data.name in TOYS else self.image_tolerance

    def longest_known(self, data: Dataset) -> int:
        """The longest chain about whose log p(x) more than the ELBO is known."""
        if data.features == 1:
            return max(self.chain)
        most = self.most_on_planes if data.name in TOYS else self.most_weighted
        return max((steps for steps in self.chain if steps <= most), default=min(self.chain))


@dataclass(frozen=True)
class Key(study.Key):
    """A model of a set, or a way to read one; or two, point by point.

    Models are "chain" (of so many steps), "annealed" (the same of few steps, of images), "limit", "ode" (by default, or
    to a tolerance), "probes", "simple" (the chain of which more than the ELBO is known, by the simple loss),
    "matching", "likelihood", "coupling", "vae" and "hierarchy".
    """

    model: str
    versus: str = ""
    number: float = 0  # steps, or a tolerance


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """A row for each set, seed and reading of each model, then for each two of the models."""
    for name in settings.sets:
        for seed in settings.seeds:
            data = points(settings, name, seed)
            key = partial(Key, data.name, data.hash, seed)
            compared: dict[str, Path] = {}
            for model, number in readings(settings, data):
                label = f"{name}, {model}{f' {number:g}' if number else ''}, seed {seed}"
                path = settings.arrays("diffusion", f"{name}-{model}-{number:g}-{seed}", data.hash)
                if number == (settings.longest_known(data) if model == "chain" else 0):
                    compared[model] = path
                yield study.Task(key(model, number=number), data, label, makes=(path,))
            for a, b in combinations([model for model in compared if model != "probes"], 2):
                yield study.Task(key(b, a), data, needs=(compared[b], compared[a]))


def readings(settings: Settings, data: Dataset) -> Iterator[tuple[str, float]]:
    """Models of such data, and by which number."""
    for steps in settings.chain:
        yield "chain", steps
    if data.name not in TOYS:  # there grids know more
        yield "annealed", 0
    yield from [("limit", 0), ("ode", 0)]
    if data.features > 1:  # else one probe is the trace
        yield "probes", 0
    yield "simple", 0
    if data.name in TOYS:
        for tolerance in settings.tolerances:
            yield "ode", tolerance
        yield from [("matching", 0), ("likelihood", 0)]
    if data.features > 1:  # else there is nothing to couple
        yield "coupling", 0
    yield from [("vae", 0), ("hierarchy", 0)]


def points(settings: Settings, name: SetName, seed: int) -> Dataset:
    """The rows of a set, with at most as many to test on as the settings say."""
    match name:
        case "line":
            return line(settings.toy_rows, settings.points, seed)
        case "ring":
            return ring(settings.toy_rows, settings.points, seed)
        case _:
            return load(name, seed, directory=settings.data_directory, download=settings.download)
