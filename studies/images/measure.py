"""What `images` measures: bounds on a model's mass of images, and its pictures; of two models, which is better."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from bridge import UniformDequantisation
from density import ExactModel, Kind, LogDensity, Measure
from lvm import LatentVariableModel, LayeredModel
from lvm.evidence import gap, weighted_sandwich
from studies.images.grey_images import GreyImages
from studies.images.models import MODELS, Images, free_parameters
from studies.images.settings import Key, Settings
from studies.kit.compute import place, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

SHOWN = 8  # pictures of each kind


def measure(settings: Settings, task: Task[Key, GreyImages]) -> Row:
    """The columns of a row."""
    if task.key.versus:
        return compare(*task.needs)
    return measure_model(settings, task.data, task.key, *task.makes)


def measure_model(settings: Settings, data: GreyImages, key: Key, path: Path) -> Row:
    """Fit one model and ask it; its claims about every test image, and pictures, go to ``path``."""
    device, dtype = place(settings)
    train, validation, test = (
        torch.as_tensor(rows).to(device, dtype) for rows in (data.train, data.validation, data.test)
    )
    images = Images(data, train, validation, settings, seeded(device, key.seed, "images", "fit"))
    started = time.process_time()
    with seeded_start(key.seed, "images", "start"):
        model, history = MODELS[key.model](images)
    seconds = time.process_time() - started
    draws = seeded(device, key.seed, "images", "draws")
    found = gap(model, test, draws=settings.draws, generator=draws)
    claim, elbo = found.log_density, found.elbo
    density = dequantised_claim(model, test, seeded(device, key.seed, "images", "noise"))
    naive = elbo if density is None else in_unit_box(density, data)
    both = weighted_sandwich(model, settings.simulated, draws=settings.draws, generator=draws)
    save_arrays(
        path,
        value=numbers(claim.value),
        density=np.empty(0) if density is None else numbers(density.value),
        naive=numbers(naive.value),
        **pictures(model, images, test, draws),
    )
    bits = claim.bits_per_dimension(data.features)
    row: Row = {
        "train_rows": len(train),
        "test_rows": len(test),
        "features": data.features,
        "levels": data.levels,
        **in_bits("bits", claim, data),
        "monte_carlo_error": bits.mean_monte_carlo_error,
        "kind": bits.kind.value,
        "measure": claim.measure.value,
        "method": claim.method,
        "dequantised": int(density is not None),
        "unreliable": claim.unreliable / len(test),
        **in_bits("elbo_bits", elbo, data),
        **({} if density is None else in_bits("density_bits", density, data)),
        **in_bits("naive_bits", naive, data),
        "width_bits": both.mean_width / nats_a_bit(data),
        "width_error": both.standard_error / nats_a_bit(data),
        "simulated_bits": -both.lower.mean / nats_a_bit(data),
        "parameters": free_parameters(model),
        "epochs": len(history.objective),
        "stopped": history.stopped,
        "cpu_seconds": round(seconds, 1),
        "cpu_seconds_asking": round(time.process_time() - started - seconds, 1),
        "points": str(path),
    }
    return row


def nats_a_bit(data: GreyImages) -> float:
    """Nats of an image for one bit a dimension."""
    return data.features * math.log(2)


def in_bits(name: str, claim: LogDensity, data: GreyImages) -> Row:
    """Mean bits per dimension of a claim, and their standard error over images."""
    bits = claim.bits_per_dimension(data.features)
    return {name: bits.mean, f"{name}_error": bits.standard_error}


@torch.no_grad()
def dequantised_claim(model: LayeredModel, test: Tensor, generator: Generator) -> LogDensity | None:
    """The exact log-density of test images with noise, the same for every model; None of a model that adds none."""
    if not isinstance(model.link, UniformDequantisation):
        return None
    noisy, _ = model.link.infer_once(test, generator)
    assert isinstance(model.prior, ExactModel)
    return model.prior.log_density(noisy)


def in_unit_box(density: LogDensity, data: GreyImages) -> LogDensity:
    """The density of pixels that were divided by the number of levels, as it stands in tables without a word of it."""
    value = density.value + data.features * math.log(data.levels)
    return LogDensity(value, density.kind, density.method, measure=density.measure)


def numbers(values: Tensor) -> NDArray[np.float64]:
    """On the CPU."""
    return values.double().cpu().numpy()


def compare(a: Path, b: Path) -> Row:
    """By how much the first model's log p is above the second's, image by image, where that can be said.

    Of two densities it is exact, at the same images with the same noise. Two masses are known from below, and their
    difference from no side.
    """
    with np.load(a) as ours, np.load(b) as theirs:
        row: Row = {"test_rows": len(ours["value"]), **paired("naive", ours["naive"] - theirs["naive"])}
        if ours["density"].size and theirs["density"].size:
            first, second = (
                LogDensity(torch.as_tensor(of["density"]), Kind.EXACT, "change of variables") for of in (ours, theirs)
            )
            difference = first - second
            return row | {
                "value": difference.mean,
                "standard_error": difference.standard_error,
                "kind": difference.kind.value,
            }
        lower = [
            LogDensity(torch.as_tensor(of["value"]), Kind.LOWER, "bound", measure=Measure.COUNTING)
            for of in (ours, theirs)
        ]
    try:
        lower[0] - lower[1]
    except ValueError as error:
        return row | {"refused": str(error)}
    raise AssertionError("two lower bounds have a difference")


def paired(name: str, difference: NDArray[np.float64]) -> Row:
    """The mean of differences ``[n]`` and its standard error."""
    return {name: float(difference.mean()), f"{name}_error": float(difference.std(ddof=1) / math.sqrt(len(difference)))}


@torch.no_grad()
def pictures(model: LayeredModel, images: Images, test: Tensor, generator: Generator) -> dict[str, NDArray[np.float32]]:
    """Test images, what their latents give back, and draws: ``[n, H, W]``, from 0 to 1."""
    data = images.data
    shown = test[:SHOWN]
    back = reconstructed(model, shown)
    return {
        "originals": _picture(shown, data),
        "reconstructed": np.empty(0, np.float32) if back is None else _picture(back, data),
        "samples": _picture(model.sample(SHOWN, generator=generator), data),
    }


def reconstructed(model: LayeredModel, x: Tensor) -> Tensor | None:
    """What a model of latents that are fewer than pixels makes of their means at x; None of the others."""
    return model.reconstruct(x) if isinstance(model, LatentVariableModel) else None


def _picture(levels: Tensor, data: GreyImages) -> NDArray[np.float32]:
    _, height, width = data.shape
    grey = (levels / (data.levels - 1)).clamp(0, 1)
    return grey.reshape(-1, height, width).float().cpu().numpy()
