"""Settings of `comparison`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.data.load import Dataset
from studies.data.ring import ring
from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import OF_THE_RUN, POSITIVE, WIDTHS, Bound, CommonSettings, at_least, quick, setting

ModelName = Literal["vae", "flow"]
SEVERAL = at_least(2, "to have a spread")
FEW = Bound(lambda latents: latents in (1, 2, 3), "must be 1, 2 or 3, for quadrature")
TWO_WIDTHS = Bound(lambda sigmas: 2 <= len(set(sigmas)) == len(sigmas), "expects two or more different widths")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Two models, one toy data set."""

    data: Literal["ring"] = setting("ring", OF_THE_RUN)
    """A ring in the plane: the entropy of the data must be known."""
    dtype: Literal["float32", "float64"] = "float64"
    """What to fit in. Theorem and limit are measured in float64 in any case."""
    sigmas: tuple[float, ...] = setting(
        (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), OF_THE_RUN, WIDTHS, TWO_WIDTHS
    )
    """Widths of the Gaussians that tend to deltas, in the units of the data; the ring's radius is about 1."""
    train_rows: int = setting(10_000, quick(2000), at_least(20))
    """Points to fit."""
    test_rows: int = setting(2000, quick(300), SEVERAL)
    """Other points, to judge by."""
    draws: int = setting(500, quick(100), SEVERAL)
    """Latent draws for each test point of the ELBO."""
    repeats: int = setting(100, quick(50), SEVERAL)
    """How often each test point is encoded, and each code decoded, to see whether the result changes."""
    tolerance: float = setting(1e-6, quick(1e-3), POSITIVE)
    """Nats that quadrature may be off at a test point of the VAE."""
    latents: int = setting(2, FEW)
    """Latents of the VAE, 1 to 3, so that log p(x) is known by quadrature."""
    epochs: int = setting(60, quick(40), POSITIVE)
    """Passes over the training rows."""
    batch_size: int = setting(256, POSITIVE)
    """Rows in a gradient step."""
    learning_rate: float = setting(3e-3, quick(5e-3), POSITIVE)
    """Of Adam, falling to 0 along half a cosine."""
    hidden: tuple[int, ...] = setting((32, 32), WIDTHS)
    """Widths of hidden layers of every network."""
    decoder_std: float = setting(0.3, POSITIVE)
    """Where the standard deviation of the VAE's decoder starts, in standard deviations of the data. From 1 the VAE can
    end with latents that it does not use, which is tight for the wrong reason."""
    couplings: int = setting(8, quick(6), at_least(2, "so that every feature moves"))
    """Affine couplings of the flow."""

    def check(self) -> None:
        super().check()
        if self.dequantise is not None:
            raise InputError("--dequantise is for data of integers; the ring is continuous")


@dataclass(frozen=True)
class Key(study.Key):
    """A model; or the flow with Gaussians of width σ for its deltas, by the covariance of the encoder's."""

    model: ModelName | Literal["relaxed flow"]
    encoder: Literal["full", "diagonal", ""] = ""
    sigma: float | Literal[""] = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """For each seed a row for VAE and flow, then one for each width and encoder of the relaxed flow."""
    folder = settings.folder("comparison") / "models"
    for seed in settings.seeds:
        data = ring(settings.train_rows, settings.test_rows, seed)
        key, after = partial(Key, data.name, data.hash, seed), "" if len(settings.seeds) == 1 else f", seed {seed}"
        weights = {
            model: folder / f"{model}-{seed}-{data.hash[:8]}-{settings.digest}.pt" for model in get_args(ModelName)
        }
        for model, path in weights.items():
            yield study.Task(key(model), data, model + after, makes=(path,))
        for encoder in ("full", "diagonal"):
            for sigma in settings.sigmas:
                yield study.Task(key("relaxed flow", encoder, sigma), data, needs=(weights["flow"],))
