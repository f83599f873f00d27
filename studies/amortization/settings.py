"""Settings of `amortization`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.data.binary_images import BinaryImages, binary_images
from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    SOME_WIDTHS,
    CommonSettings,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

ModelName = Literal["baseline", "small-encoder", "large-encoder", "small-decoder", "large-decoder", "flow-posterior"]
Part = Literal["train", "test"]
LARGE = "large images"  # the preset for those of 28 × 28 pixels
BINARY = one_of(["digits", "mnist-binary", "mnist", "fashion-mnist"], "since this study is about binary images")
large_images = partial(preset, LARGE)
SEVERAL = at_least(2, "to have a standard error")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("digits", OF_THE_RUN, BINARY)
    """digits; or, from the data directory, mnist-binary, mnist or fashion-mnist (pixels above half are 1)."""
    seeds: tuple[int, ...] = setting(
        (0, 1, 2), OF_THE_RUN, quick((0,)), large_images((0,)), different("integers", least=0)
    )
    """Each seed is a whole repetition: split, starts, draws."""
    models: tuple[ModelName, ...] = setting(get_args(ModelName), OF_THE_RUN, different("models"))
    """Which of them."""
    latents: int = setting(8, quick(6), large_images(50), at_least(2))
    """Latent features."""
    small: tuple[int, ...] = setting((8,), large_images((50,)), SOME_WIDTHS)
    """Hidden widths of a small network, from the data's side."""
    medium: tuple[int, ...] = setting((64, 64), large_images((200, 200)), SOME_WIDTHS)
    """Of a network of the baseline."""
    large: tuple[int, ...] = setting((256, 256), large_images((500, 500)), SOME_WIDTHS)
    """Of a large network."""
    epochs: int = setting(300, quick(30), large_images(20), POSITIVE)
    """Passes over the training images."""
    batch_size: int = setting(100, POSITIVE)
    """Images in a step."""
    learning_rate: float = setting(1e-3, POSITIVE)
    """Of Adam, falling to 0 along half a cosine."""
    layers: int = setting(4, at_least(2))
    """Affine couplings of a flow."""
    flow_hidden: tuple[int, ...] = setting((32,), large_images((100,)), SOME_WIDTHS)
    """Hidden widths of a coupling in the encoder."""
    local_hidden: tuple[int, ...] = setting((16,), SOME_WIDTHS)
    """Hidden widths of a coupling in the q of one image."""
    points: int = setting(50, quick(16), SEVERAL)
    """Images, at random from each part, whose own q is sought."""
    local_steps: int = setting(400, quick(60), POSITIVE)
    """Steps of Adam for the q of an image."""
    local_draws: int = setting(16, quick(8), POSITIVE)
    """Latent draws in each of them."""
    draws: int = setting(1000, quick(500), SEVERAL)
    """Latent draws for each final ELBO."""
    annealing_steps: int = setting(200, quick(30), large_images(400), POSITIVE)
    """Of annealed importance sampling, which bounds log p(x)."""
    annealing_chains: int = setting(16, quick(8), SEVERAL)
    """For each image."""

    def presets(self) -> tuple[str, ...]:
        return super().presets() + (() if self.data == "digits" else (LARGE,))


@dataclass(frozen=True)
class Key(study.Key):
    """A model's fit, or its gap on training or test images."""

    model: ModelName
    part: Part | Literal["fit"]


def tasks(settings: Settings) -> Iterator[study.Task[Key, BinaryImages]]:
    """For each seed and model a fit, then the gap and its parts on training and on test images."""
    folder = settings.folder("amortization") / "models"
    for seed in settings.seeds:
        data = binary_images(settings, seed)
        for model in settings.models:
            key = partial(Key, data.name, data.hash, seed, model)
            weights = folder / f"{model}-{seed}-{settings.digest}.weights"
            yield study.Task(key("fit"), data, f"{model}, fit", makes=(weights,))
            for part in get_args(Part):
                yield study.Task(key(part), data, f"{model}, {part}", needs=(weights,))
