"""The models of `mnist`: one VAE to start from, and what the last part of training makes of it."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator

from bridge.hybrids import with_flow_prior
from density import StandardNormal, Training, constant, cosine
from density.fitting.optimisers import Schedule
from flows import Flow
from lvm import VAE
from lvm.evidence import gap, importance, latent_usage, sandwich
from lvm.vae.gradients import AnalyticKL, DoublyReparametrised, GradientEstimator
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
from studies.kit.rows import Row, write_whole
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data.binary_images import BinaryImages
    from studies.mnist import ModelName, Settings


@dataclass(frozen=True)
class Last:
    """The last part of training: what is learnt from, and where flows are."""

    estimator: GradientEstimator
    prior: bool = False
    posterior: bool = False


LAST: dict[ModelName, Last] = {
    "vae": Last(AnalyticKL()),
    "iwae-5": Last(DoublyReparametrised(5)),
    "iwae-50": Last(DoublyReparametrised(50)),
    "flow-posterior": Last(AnalyticKL(), posterior=True),
    "flow-prior": Last(AnalyticKL(), prior=True),
    "flow-both": Last(AnalyticKL(), prior=True, posterior=True),
}


def plain(features: int, settings: Settings) -> VAE:
    """Burda et al.'s model of one stochastic layer."""
    return tanh_vae(features, settings.latents, settings.hidden, settings.hidden[::-1])


def with_flows(name: ModelName, model: VAE, settings: Settings) -> VAE:
    """The plain VAE with the flows of a model around its parts; they start as the identity."""
    last = LAST[name]
    if last.posterior:
        model = with_coupling_posterior(model, settings.layers, settings.flow_hidden)
    if last.prior:
        d = settings.latents
        model = with_flow_prior(model, Flow(StandardNormal(d), couplings(d, settings.layers, settings.flow_hidden)))
    return model


def fit_start(settings: Settings, data: BinaryImages, seed: int, path: Path) -> Row:
    """Train the VAE that all models start from; its pixels' biases begin at their log-odds in the training images."""
    with seeded_start(seed, "start", "start"):
        model = plain(data.train.shape[1], settings)
    start_at_log_odds(model, data.train)
    return _fit(model, settings, data, seed, "start", path, settings.start_epochs, constant, AnalyticKL())


def fit_last(settings: Settings, data: BinaryImages, seed: int, name: ModelName, start: Path, path: Path) -> Row:
    """The last part of the training of one model, from the common start."""
    model = restored(plain(data.train.shape[1], settings), start, settings)
    with seeded_start(seed, "start", name):
        model = with_flows(name, model, settings)
    return _fit(model, settings, data, seed, name, path, settings.epochs, cosine, LAST[name].estimator)


def _fit(
    model: VAE,
    settings: Settings,
    data: BinaryImages,
    seed: int,
    name: str,
    path: Path,
    epochs: int,
    schedule: Schedule,
    estimator: GradientEstimator,
) -> Row:
    training = Training(epochs, settings.batch_size, settings.learning_rate, schedule=schedule)
    generator = Generator(settings.device).manual_seed(derived_seed(seed, "fit", name))
    return saved_fit(model, data.train, settings, training, estimator, generator, path)


def ask(
    settings: Settings, data: BinaryImages, seed: int, name: ModelName, share: int, fitted: Path, path: Path
) -> Row:
    """Bound, ELBO and the gap between them on one share of the test images; every image's numbers go to a file."""
    device, _ = place(settings)
    model = restored(with_flows(name, plain(data.train.shape[1], settings), settings), fitted, settings)
    rows = data.test[share * settings.share : (share + 1) * settings.share]
    x = torch.as_tensor(rows).to(device, getattr(torch, settings.dtype))
    started = time.process_time()
    generator = Generator(device).manual_seed(derived_seed(seed, "draws", name, str(share)))
    found = gap(model, x, draws=settings.draws, generator=generator)
    claim, elbo, difference = found.log_density, found.elbo, found.difference
    assert claim.weights is not None
    row: Row = {
        "test_rows": len(x),
        "draws": settings.draws,
        "value": claim.mean,
        "standard_error": claim.standard_error,
        "monte_carlo_error": claim.mean_monte_carlo_error,
        "kind": claim.kind.value,
        "method": claim.method,
        "ess_median": claim.weights.effective_sample_size.median().item(),
        "unreliable": claim.unreliable / len(x),
        "elbo": elbo.mean,
        "elbo_standard_error": elbo.standard_error,
        "gap": difference.mean,
        "gap_standard_error": difference.standard_error,
        "cpu_seconds": cpu_seconds(started),
    }
    if not (LAST[name].prior or LAST[name].posterior):
        row["active"] = int(latent_usage(model, x).active.sum())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, value=claim.value.cpu().numpy(), elbo=elbo.value.cpu().numpy())
    write_whole(path, buffer.getvalue())
    return row


def compare(a: Path, b: Path) -> Row:
    """How much higher bounds, ELBOs and gaps of a are than those of b at the same images.

    That says nothing exact of log p(x): either bound may be the looser one.
    """
    with np.load(a) as first, np.load(b) as second:
        value, elbo = (first[name] - second[name] for name in ("value", "elbo"))
    row: Row = {"test_rows": len(value)}
    for name, difference in {"value": value, "elbo": elbo, "gap": value - elbo}.items():
        error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        row |= {
            name: float(difference.mean()),
            "standard_error" if name == "value" else f"{name}_standard_error": error,
        }
    return row


def certify(settings: Settings, data: BinaryImages, seed: int, name: ModelName, fitted: Path) -> Row:
    """On images simulated from a model: annealing's upper bound, less both lower ones."""
    device, _ = place(settings)
    model = restored(with_flows(name, plain(data.train.shape[1], settings), settings), fitted, settings)
    started = time.process_time()
    generator = Generator(device).manual_seed(derived_seed(seed, "sandwich", name))
    steps, chains = settings.annealing_steps, settings.annealing_chains
    both = sandwich(model, settings.simulated, steps=steps, chains=chains, generator=generator)
    weighted = importance(model, both.x, draws=settings.draws, generator=generator)
    width = both.upper - weighted
    return {
        "test_rows": settings.simulated,
        "draws": settings.draws,
        "value": width.mean,
        "standard_error": width.standard_error,
        "annealed": both.mean_width,
        "annealed_standard_error": both.standard_error,
        "kind": width.kind.value,
        "method": width.method,
        "cpu_seconds": cpu_seconds(started),
    }
