"""Settings of `mnist`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from studies.data.binary_images import BinaryImages, binary_images
from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    SOME_WIDTHS,
    WIDTHS,
    Bound,
    CommonSettings,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

ModelName = Literal["vae", "iwae-5", "iwae-50", "flow-posterior", "flow-prior", "flow-both"]
CPU_MODELS: tuple[ModelName, ...] = ("vae", "iwae-5", "flow-posterior", "flow-prior", "flow-both")
BINARY = one_of(["mnist-binary", "digits"], "since this study is about binary pixels")
NONE_TWICE = Bound(lambda models: len(set(models)) == len(models), "expects different models")
SEVERAL = at_least(2, "to have a standard error")
full = partial(preset, "full")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("mnist-binary", OF_THE_RUN, quick("digits"), BINARY)
    """mnist-binary (statically binarised MNIST, from the data directory) or digits (each pixel above half)."""
    preset: Literal["cpu", "full"] = setting("cpu", OF_THE_RUN)
    """full: the long schedule for one GPU, with all models judged on all test images."""
    device: str = setting("cpu", full("cuda"))
    """Where to compute: cpu, cuda, cuda:1, ..."""
    models: tuple[ModelName, ...] = setting(CPU_MODELS, OF_THE_RUN, full(get_args(ModelName)), different("models"))
    """Which of them."""
    whole: tuple[ModelName, ...] = setting(("vae", "iwae-5"), OF_THE_RUN, full(get_args(ModelName)), NONE_TWICE)
    """Those judged on every test image; the others on one share, drawn at random and the same for all."""
    share: int = setting(1000, quick(100), POSITIVE)
    """Test images in a share. The order is random: the first thousand of the file are 8 to 10 nats harder than most."""
    latents: int = setting(50, quick(8), at_least(2))
    """Latent features."""
    hidden: tuple[int, ...] = setting((200, 200), quick((64, 64)), SOME_WIDTHS)
    """Widths of the tanh layers of encoder and decoder."""
    start_epochs: int = setting(80, quick(40), full(600), POSITIVE)
    """Passes over the training images by one VAE, K = 1 and constant learning rate, which all models start from."""
    epochs: int = setting(60, quick(20), full(600), POSITIVE)
    """Further passes by each model, its learning rate falling to 0 along half a cosine."""
    batch_size: int = setting(100, full(500), POSITIVE)
    """Images in a step."""
    learning_rate: float = setting(1e-3, full(2e-3), POSITIVE)
    """Of Adam."""
    layers: int = setting(4, quick(2), at_least(2))
    """Affine couplings of a flow, which starts as the identity."""
    flow_hidden: tuple[int, ...] = setting((100,), quick((32,)), WIDTHS)
    """Widths of the hidden layers of each coupling."""
    draws: int = setting(5000, quick(500), SEVERAL)
    """Latent draws of every test image."""
    simulated: int = setting(100, quick(50), SEVERAL)
    """Images simulated from each model, on which log p(x) is also bounded from above."""
    annealing_steps: int = setting(200, quick(30), POSITIVE)
    """Of annealed importance sampling, there."""
    annealing_chains: int = setting(16, quick(8), SEVERAL)
    """For each simulated image."""

    def presets(self) -> tuple[str, ...]:
        return super().presets() + (("full",) if self.preset == "full" else ())


@dataclass(frozen=True)
class Key(study.Key):
    """A model and what is done with it: its fit, its bound on a share of the images, its sandwich, its difference."""

    model: ModelName | Literal["start"]
    part: Literal["fit", "bound", "sandwich", "difference"]
    share: int = 0
    versus: Literal["vae", ""] = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, BinaryImages]]:
    """The common start; each model's fit, its bounds, a row for each share of test images, and its sandwich.

    Last, on the first share, what each model gains on the plain VAE, paired.
    """
    folder = settings.folder("mnist") / "points"
    for seed in settings.seeds:
        data = binary_images(settings, seed)
        key = partial(Key, data.name, data.hash, seed)
        start = folder / f"start-{seed}-{settings.digest}.weights"
        yield study.Task(key("start", "fit"), data, "the common start", makes=(start,))
        first: dict[str, Path] = {}
        for model in settings.models:
            fitted = folder / f"{model}-{seed}-{settings.digest}.weights"
            yield study.Task(key(model, "fit"), data, f"{model}, fit", makes=(fitted,), needs=(start,))
            shares = -(-len(data.test) // settings.share) if model in settings.whole else 1
            for share in range(shares):
                points = folder / f"{model}-{seed}-{share}-{settings.digest}.npz"
                first.setdefault(model, points)
                label = f"{model}, share {share + 1} of {shares}"
                yield study.Task(key(model, "bound", share), data, label, makes=(points,), needs=(fitted,))
            yield study.Task(key(model, "sandwich"), data, f"{model}, sandwich", needs=(fitted,))
        for model in settings.models:
            if model != "vae" and "vae" in first:
                needs = (first[model], first["vae"])
                yield study.Task(key(model, "difference", versus="vae"), data, needs=needs)
