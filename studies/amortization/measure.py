"""What `amortization` measures: VAEs by the size of their networks, and the parts of their gap on some images."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor

from density import DiagonalGaussian, Training
from flows import Flow
from lvm import VAE
from lvm.evidence import LocalElbo, LocalFit, annealed, gap, local_elbo
from lvm.vae.gradients import AnalyticKL
from studies.amortization.settings import Key, ModelName, Settings
from studies.data.binary_images import BinaryImages
from studies.kit.binary_vae import (
    couplings,
    cpu_seconds,
    restored,
    saved_fit,
    start_at_log_odds,
    tanh_vae,
    with_coupling_posterior,
)
from studies.kit.compute import mean_and_error, place, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

GAUSSIAN_RATE, FLOW_RATE = 0.1, 0.01  # of the search for a local q: networks bear less than means and widths
Size = Literal["small", "medium", "large"]


@dataclass(frozen=True)
class Capacity:
    """How large the networks of a model are, and whether its q is a flow."""

    encoder: Size = "medium"
    decoder: Size = "medium"
    flow: bool = False


CAPACITIES: dict[ModelName, Capacity] = {
    "baseline": Capacity(),
    "small-encoder": Capacity(encoder="small"),
    "large-encoder": Capacity(encoder="large"),
    "small-decoder": Capacity(decoder="small"),
    "large-decoder": Capacity(decoder="large"),
    "flow-posterior": Capacity(flow=True),
}


def measure(settings: Settings, task: Task[Key, BinaryImages]) -> Row:
    """The columns of a row."""
    if task.key.part == "fit":
        return fit(settings, task.data, task.key, *task.makes)
    return judge(settings, task.data, task.key, *task.needs)


def built(name: ModelName, features: int, settings: Settings) -> VAE:
    """The model before training."""
    capacity = CAPACITIES[name]
    widths = {"small": settings.small, "medium": settings.medium, "large": settings.large}
    model = tanh_vae(features, settings.latents, widths[capacity.encoder], widths[capacity.decoder][::-1])
    return with_coupling_posterior(model, settings.layers, settings.flow_hidden) if capacity.flow else model


def fit(settings: Settings, data: BinaryImages, key: Key, path: Path) -> Row:
    """Maximise the ELBO; the weights go to a file."""
    device, _ = place(settings)
    with seeded_start(key.seed, "start", key.model):
        model = built(key.model, data.train.shape[1], settings)
    start_at_log_odds(model, data.train)
    training = Training(settings.epochs, settings.batch_size, settings.learning_rate, annealing=1, progress=False)
    generator = seeded(device, key.seed, "fit", key.model)
    return saved_fit(model, data.train, settings, training, AnalyticKL(), generator, path)


def judge(settings: Settings, data: BinaryImages, key: Key, path: Path) -> Row:
    """log p(x), the ELBO of the encoder's q, and of the best local q of two families, Gaussian and flow."""
    device, dtype = place(settings)
    model = restored(built(key.model, data.train.shape[1], settings), path, settings)
    images = data.train if key.part == "train" else data.test
    # In random order, the same for all models.
    picked = torch.randperm(len(images), generator=seeded(torch.device("cpu"), key.seed, "points", key.part))
    x = torch.as_tensor(images[picked[: settings.points].numpy()]).to(device, dtype)
    started = time.process_time()
    generator = seeded(device, key.seed, "draws", key.model, key.part)
    steps, chains = settings.annealing_steps, settings.annealing_chains
    log_p = annealed(model, x, steps=steps, chains=chains, generator=generator)
    found = gap(model, x, draws=settings.draws, log_density=log_p, generator=generator)
    best = {family: best_local(model, x, family, settings, generator) for family in ("gaussian", "flow")}
    own = best["flow" if CAPACITIES[key.model].flow else "gaussian"].value
    row: Row = {
        "rows": len(x),
        "log_p_kind": log_p.kind.value,
        "method": log_p.method,
        "chains_agree": 1 - log_p.unreliable / len(x),
    }
    values = {
        "log_p": log_p.value,
        "elbo": found.elbo.value,
        "gap": found.difference.value,
        "amortisation": own - found.elbo.value,
        "approximation": log_p.value - own,
        "approximation_gaussian": log_p.value - best["gaussian"].value,
        "approximation_flow": log_p.value - best["flow"].value,
    }
    for column, value in values.items():
        row |= mean_and_error(column, value)
    for family, local in best.items():
        row |= {
            f"best_{family}": local.value.mean().item(),
            f"converged_{family}": local.converged.double().mean().item(),
            f"left_{family}": local.gain.mean().item(),
        }
    return row | {"cpu_seconds": cpu_seconds(started)}


def best_local(model: VAE, x: Tensor, family: str, settings: Settings, generator: Generator) -> LocalElbo:
    """The ELBO of each image's own q, of Gaussians or of flows of them."""
    own: DiagonalGaussian | Flow = DiagonalGaussian(settings.latents)
    if family == "flow":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # couplings start as the identity; what their hidden layers start from hardly matters
            own = Flow(own, couplings(settings.latents, settings.layers, settings.local_hidden))
    rate = FLOW_RATE if family == "flow" else GAUSSIAN_RATE
    local = LocalFit(own, settings.local_steps, settings.local_draws, rate, progress=False)
    return local_elbo(model, x, local, draws=settings.draws, generator=generator)
