"""Settings of `images`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal, get_args

from studies.images.grey_images import GreyImages, ImageSet, grey_images
from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    SOME_WIDTHS,
    CommonSettings,
    all_or_at_least,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

ModelName = Literal[
    "gaussian", "ppca", "mixture", "nvp", "nvp-wide", "glow", "vae", "hierarchical", "glow-prior",
]  # fmt: skip
DENSITIES: tuple[ModelName, ...] = ("gaussian", "ppca", "mixture", "nvp", "nvp-wide", "glow")  # of dequantised pixels
SMALL = 256  # pixels below which an image is small
SEVERAL = at_least(2, "to have a standard error")
gpu = partial(preset, "gpu")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("images", OF_THE_RUN, one_of(["images"], "which --sets names"))
    """Only images: --sets says which."""
    preset: Literal["cpu", "gpu"] = setting("cpu", OF_THE_RUN)
    """gpu: all of MNIST, larger networks and the long schedule, for one GPU."""
    sets: tuple[ImageSet, ...] = setting(
        ("digits", "mnist"), OF_THE_RUN, quick(("digits",)), gpu(("mnist",)), different("sets")
    )
    """digits (8 × 8, 17 levels); from the data directory mnist (28 × 28, 256 levels), mnist-binary (2 levels),
    frey-faces (28 × 20, 256 levels)."""
    models: tuple[ModelName, ...] = setting(get_args(ModelName), OF_THE_RUN, different("models"))
    """Which of them."""
    device: str = setting("cpu", gpu("cuda"))
    """Where to compute: cpu, cuda, cuda:1, ..."""
    train_rows: int = setting(5000, gpu(0), all_or_at_least(100))
    """Images to fit, at most, drawn at random, a tenth of them held out; 0: all."""
    test_rows: int = setting(1000, quick(100), gpu(0), all_or_at_least(20))
    """Images to judge by, at most, drawn at random; 0: all."""
    small_steps: int = setting(1500, quick(60), POSITIVE)
    """Steps of a gradient fit, at most, of images of less than 256 pixels."""
    steps: int = setting(1000, quick(60), gpu(6000), POSITIVE)
    """Steps of a gradient fit, at most, of larger images."""
    batch_size: int = setting(64, gpu(256), POSITIVE)
    """Images in a step."""
    learning_rate: float = setting(2e-3, gpu(1e-3), POSITIVE)
    """Of Adam, until it is annealed."""
    flow_levels: int = setting(2, gpu(3), POSITIVE)
    """Levels of the multi-scale flow."""
    flow_steps: int = setting(4, gpu(8), POSITIVE)
    """Its steps at each level."""
    flow_channels: tuple[int, ...] = setting((32, 32), quick((16, 16)), gpu((96, 96)), SOME_WIDTHS)
    """Hidden channels of its couplings."""
    vector_layers: int = setting(4, at_least(2))
    """Layers of the vector coupling flows; their width follows from the multi-scale flow's number of parameters."""
    wide: int = setting(64, quick(32), gpu(512), POSITIVE)
    """Hidden width of the wide vector coupling flow."""
    latents: int = setting(32, quick(8), gpu(64), at_least(2))
    """Latents of VAEs and PPCA; of the hierarchical VAE at the bottom, half as many above."""
    channels: tuple[int, ...] = setting((16, 32), quick((8, 16)), gpu((64, 128)), SOME_WIDTHS)
    """Channels of the VAEs' networks, from the image up."""
    mixtures: int = setting(2, quick(1), gpu(5), POSITIVE)
    """Discretised logistics of a pixel, mixed."""
    prior_layers: int = setting(6, quick(2), at_least(2))
    """Layers of the flow that is a prior."""
    components: int = setting(10, POSITIVE)
    """Components of the mixture."""
    ridge: float = setting(0.01, POSITIVE)
    """What is added to the diagonal of its covariances, as a share of the mean variance of the data."""
    draws: int = setting(50, quick(10), SEVERAL)
    """Latent draws of every image of the importance-weighted bound."""
    simulated: int = setting(100, quick(20), SEVERAL)
    """Images simulated from each model, on which its mass is also bounded from above."""

    def presets(self) -> tuple[str, ...]:
        return super().presets() + (("gpu",) if self.preset == "gpu" else ())

    def steps_of(self, data: GreyImages) -> int:
        """Steps of a gradient fit of these images."""
        return self.small_steps if data.features < SMALL else self.steps


@dataclass(frozen=True)
class Key(study.Key):
    """A model of some images; or two, image by image."""

    model: ModelName
    versus: ModelName | Literal[""] = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, GreyImages]]:
    """A row for each set of images, seed and model, then for each two models of the same images."""
    for name in settings.sets:
        for seed in settings.seeds:
            data = grey_images(
                name,
                seed,
                settings.data_directory,
                train=settings.train_rows,
                test=settings.test_rows,
                download=settings.download,
            )
            key = partial(Key, data.name, data.hash, seed)
            points = {
                model: settings.arrays("images", f"{name}-{model}-{seed}", data.hash) for model in settings.models
            }
            for model, path in points.items():
                yield study.Task(key(model), data, f"{name}, {model}, seed {seed}", makes=(path,))
            for a, b in combinations(points, 2):
                yield study.Task(key(b, a), data, needs=(points[b], points[a]))
