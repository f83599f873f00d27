"""The models of `amortization`, and the parts of their gap on some images."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Generator, Tensor

from density import DiagonalGaussian, Training
from flows import Flow
from lvm import VAE
from lvm.evidence import LocalElbo, LocalFit, annealed, gap, local_elbo
from lvm.vae.gradients import AnalyticKL
from studies.kit.binary_vae import (
    couplings,
    cpu_seconds,
    restored,
    saved_fit,
    start_at_log_odds,
    tanh_vae,
    with_coupling_posterior,
)
from studies.kit.compute import place, seeded_start
from studies.kit.rows import Row
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.amortization import ModelName, Part, Settings
    from studies.data.binary_images import BinaryImages

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


def built(name: ModelName, features: int, settings: Settings) -> VAE:
    """The model before training."""
    capacity = CAPACITIES[name]
    widths = {"small": settings.small, "medium": settings.medium, "large": settings.large}
    model = tanh_vae(features, settings.latents, widths[capacity.encoder], widths[capacity.decoder][::-1])
    return with_coupling_posterior(model, settings.layers, settings.flow_hidden) if capacity.flow else model


def fit(settings: Settings, data: BinaryImages, seed: int, name: ModelName, path: Path) -> Row:
    """Maximise the ELBO; the weights go to a file."""
    device, _ = place(settings)
    with seeded_start(seed, "start", name):
        model = built(name, data.train.shape[1], settings)
    start_at_log_odds(model, data.train)
    training = Training(settings.epochs, settings.batch_size, settings.learning_rate, progress=False)
    generator = Generator(device).manual_seed(derived_seed(seed, "fit", name))
    return saved_fit(model, data.train, settings, training, AnalyticKL(), generator, path)


def ask(settings: Settings, data: BinaryImages, seed: int, name: ModelName, part: Part, path: Path) -> Row:
    """log p(x), the ELBO of the encoder's q, and of the best local q of two families, Gaussian and flow."""
    device, _ = place(settings)
    model = restored(built(name, data.train.shape[1], settings), path, settings)
    images = data.train if part == "train" else data.test  # both in random order, and the same for all models
    picked = torch.randperm(len(images), generator=Generator().manual_seed(derived_seed(seed, "points", part)))
    x = torch.as_tensor(images[picked[: settings.points].numpy()]).to(device, getattr(torch, settings.dtype))
    started = time.process_time()
    generator = Generator(device).manual_seed(derived_seed(seed, "draws", name, part))
    steps, chains = settings.annealing_steps, settings.annealing_chains
    log_p = annealed(model, x, steps=steps, chains=chains, generator=generator)
    found = gap(model, x, draws=settings.draws, log_density=log_p, generator=generator)
    best = {family: _best(model, x, family, settings, generator) for family in ("gaussian", "flow")}
    own = best["flow" if CAPACITIES[name].flow else "gaussian"].value
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
        row |= {column: value.mean().item(), f"{column}_error": value.std().item() / math.sqrt(len(x))}
    for family, local in best.items():
        row |= {
            f"best_{family}": local.value.mean().item(),
            f"converged_{family}": local.converged.double().mean().item(),
            f"left_{family}": local.gain.mean().item(),
        }
    return row | {"cpu_seconds": cpu_seconds(started)}


def _best(model: VAE, x: Tensor, family: str, settings: Settings, generator: Generator) -> LocalElbo:
    d = settings.latents
    gaussian = DiagonalGaussian(d)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # couplings start as the identity; what their hidden layers start from hardly matters
        flow = Flow(gaussian, couplings(d, settings.layers, settings.local_hidden))
    own, rate = (flow, FLOW_RATE) if family == "flow" else (gaussian, GAUSSIAN_RATE)
    local = LocalFit(own, settings.local_steps, settings.local_draws, rate, progress=False)
    return local_elbo(model, x, local, draws=settings.draws, generator=generator)
