"""What `mnist` measures: one VAE to start from, and what the last part of training makes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bridge.hybrids import with_flow_prior
from density import StandardNormal, Training, constant
from flows import Flow
from lvm import VAE
from lvm.evidence import gap, importance, latent_usage, sandwich
from lvm.vae.estimator import GradientEstimator
from lvm.vae.gradients import AnalyticKL, DoublyReparametrised
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
from studies.kit.compute import place, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task
from studies.mnist.settings import Key, Settings


@dataclass(frozen=True)
class Last:
    """The last part of training: what is learnt from, and where flows are."""

    estimator: GradientEstimator
    prior: bool = False
    posterior: bool = False


LAST: dict[str, Last] = {
    "vae": Last(AnalyticKL()),
    "iwae-5": Last(DoublyReparametrised(5)),
    "iwae-50": Last(DoublyReparametrised(50)),
    "flow-posterior": Last(AnalyticKL(), posterior=True),
    "flow-prior": Last(AnalyticKL(), prior=True),
    "flow-both": Last(AnalyticKL(), prior=True, posterior=True),
}


def measure(settings: Settings, task: Task[Key, BinaryImages]) -> Row:
    """The columns of a row."""
    match task.key.part:
        case "fit":
            return fit(settings, task.data, task.key, *task.makes, *task.needs)
        case "bound":
            return judge(settings, task.data, task.key, *task.needs, *task.makes)
        case "sandwich":
            return certify(settings, task.data, task.key, *task.needs)
        case "difference":
            return compare(*task.needs)


def plain(features: int, settings: Settings) -> VAE:
    """Burda et al.'s model of one stochastic layer."""
    return tanh_vae(features, settings.latents, settings.hidden, settings.hidden[::-1])


def with_flows(name: str, model: VAE, settings: Settings) -> VAE:
    """The plain VAE with the flows of a model around its parts; they start as the identity."""
    last, d = LAST[name], settings.latents
    if last.posterior:
        model = with_coupling_posterior(model, settings.layers, settings.flow_hidden)
    if last.prior:
        model = with_flow_prior(model, Flow(StandardNormal(d), couplings(d, settings.layers, settings.flow_hidden)))
    return model


def fit(settings: Settings, data: BinaryImages, key: Key, path: Path, start: Path | None = None) -> Row:
    """Train the VAE that all models start from or, from there, the last part of one model; its weights go to a file.

    At the start the biases of its pixels are their log-odds in the training images.
    """
    device, _ = place(settings)
    training = Training(settings.epochs, settings.batch_size, settings.learning_rate, annealing=1)
    estimator: GradientEstimator = AnalyticKL()
    if start is None:
        training = replace(training, epochs=settings.start_epochs, schedule=constant)
        with seeded_start(key.seed, "start", key.model):
            model = plain(data.train.shape[1], settings)
        start_at_log_odds(model, data.train)
    else:
        estimator = LAST[key.model].estimator
        model = restored(plain(data.train.shape[1], settings), start, settings)
        with seeded_start(key.seed, "start", key.model):
            model = with_flows(key.model, model, settings)
    generator = seeded(device, key.seed, "fit", key.model)
    return saved_fit(model, data.train, settings, training, estimator, generator, path)


def fitted(settings: Settings, data: BinaryImages, key: Key, path: Path) -> VAE:
    """The model whose weights :func:`fit` wrote."""
    return restored(with_flows(key.model, plain(data.train.shape[1], settings), settings), path, settings)


def judge(settings: Settings, data: BinaryImages, key: Key, weights: Path, path: Path) -> Row:
    """Bound, ELBO and the gap between them on one share of the test images; every image's numbers go to a file."""
    (device, dtype), model = place(settings), fitted(settings, data, key, weights)
    rows = data.test[key.share * settings.share : (key.share + 1) * settings.share]
    x = torch.as_tensor(rows).to(device, dtype)
    started = time.process_time()
    generator = seeded(device, key.seed, "draws", key.model, str(key.share))
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
    if not (LAST[key.model].prior or LAST[key.model].posterior):
        row["active"] = int(latent_usage(model, x).active.sum())
    save_arrays(path, value=claim.value.cpu().numpy(), elbo=elbo.value.cpu().numpy())
    return row


def compare(a: Path, b: Path) -> Row:
    """How much higher bounds, ELBOs and gaps of a are than those of b at the same images.

    That says nothing exact of log p(x): either bound may be the looser one.
    """
    with np.load(a) as first, np.load(b) as second:
        value, elbo = (first[name] - second[name] for name in ("value", "elbo"))
    row: Row = {"test_rows": len(value)}
    for name, difference in {"value": value, "elbo": elbo, "gap": value - elbo}.items():
        error = "standard_error" if name == "value" else f"{name}_standard_error"
        row |= {name: float(difference.mean()), error: float(difference.std(ddof=1) / np.sqrt(len(difference)))}
    return row


def certify(settings: Settings, data: BinaryImages, key: Key, weights: Path) -> Row:
    """On images simulated from a model: annealing's upper bound, less both lower ones."""
    (device, _), model = place(settings), fitted(settings, data, key, weights)
    started = time.process_time()
    generator = seeded(device, key.seed, "sandwich", key.model)
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
