"""What `elbo_gap` measures: of each model log p(x), its ELBO and the gap; of each two, their paired difference."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from bridge.comparison.standing import worst_row
from density import Bound, ExactModel, LogDensity
from lvm import PPCA, GaussianMixture, LatentVariableModel, LinearVAE
from lvm.evidence import LocalFit, annealed, gap, importance, sandwich
from lvm.evidence.gap import Parts
from lvm.evidence.quadrature.adaptive import quadrature
from studies.data.load import Dataset
from studies.elbo_gap.models import MODELS, free_parameters
from studies.elbo_gap.settings import Key, ModelName, Settings
from studies.elbo_gap.unbounded import unbounded
from studies.kit.claims import load_claim, load_elbo, save_claim, train_less_test
from studies.kit.compute import chosen_rows, place, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task
from studies.kit.ties import findings


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    if task.key.versus:
        return compare(*task.needs)
    return measure_model(settings, task.data, task.key.model, task.key.seed, *task.makes)


def measure_model(settings: Settings, data: Dataset, name: ModelName, seed: int, path: Path) -> Row:
    """Everything that the study says of one model; its claim about every test point goes to ``path``.

    Raises:
        InputError: the device cannot be used.
        ValueError, ArithmeticError: the model cannot be fitted to this data.
    """
    device, dtype = place(settings)
    train = torch.as_tensor(data.train[chosen_rows(len(data.train), settings.train_rows, seed, "train rows")])
    chosen = chosen_rows(len(data.test), settings.test_rows, seed, "test rows")
    train, test = train.to(device, dtype), torch.as_tensor(data.test[chosen]).to(device, dtype)
    scales = np.full(len(data.test), data.log_scale) if data.log_scales is None else data.log_scales
    log_scale = torch.as_tensor(scales[chosen]).to(device)
    mean_scale = log_scale.mean().item()
    fit, purpose = MODELS[name]
    started = time.perf_counter()
    with seeded_start(seed, "start", purpose):
        model = fit(train, settings, seeded(device, seed, "fit", purpose))
    fitted = time.perf_counter()
    draws = seeded(device, seed, "draws", purpose)
    row: Row = {
        "train_rows": len(train),
        "test_rows": len(test),
        "features": data.features,
        "unit": data.unit,
        "note": f"{data.note}; the other models are left out, which take none" if data.incomplete else data.note,
        "best": data.best,
        "levels": data.levels,
        "dtype": settings.dtype,
    }
    if isinstance(model, PPCA | LinearVAE):
        row["latents"] = model.prior.features  # fewer than asked for where the data has few columns
    elbo_values = None
    if data.incomplete:
        assert isinstance(model, PPCA | GaussianMixture)
        claim = model.observed.log_density(test)
    elif isinstance(model, Bound):
        strongest, local = None, None
        if isinstance(model, LatentVariableModel) and not isinstance(model, ExactModel):
            strongest, about = _strongest(model, test, settings, mean_scale, draws)
            row |= about
            local = LocalFit(steps=settings.local_steps) if settings.local_steps else None
        found = gap(model, test, draws=settings.elbo_draws, log_density=strongest, local=local, generator=draws)
        claim, elbo, difference = found.log_density, found.elbo, found.difference
        elbo_values = elbo.value.double() + log_scale
        if found.parts is not None:
            row |= _causes(found.parts)
        row |= {
            "elbo": elbo.mean + mean_scale,
            "elbo_standard_error": elbo.standard_error,
            "elbo_monte_carlo_error": elbo.mean_monte_carlo_error,
            "gap": difference.mean,
            "gap_standard_error": difference.standard_error,
            "gap_monte_carlo_error": difference.mean_monte_carlo_error,
            "gap_kind": difference.kind.value,
        }
    else:
        claim = model.log_density(test)
    fitted_in = elbo.value if isinstance(model, Bound) and not isinstance(model, ExactModel) else claim.value
    beside = train[chosen_rows(len(train), len(test), seed, "train beside test")]
    row |= train_less_test(model, beside, fitted_in, settings.elbo_draws, draws)
    claim = replace(claim, value=claim.value.double() + log_scale)
    row |= {
        "median": claim.value.median().item(),
        "worst_share": worst_row(claim.value)[1],
        "unbounded": int(unbounded(name, settings, findings(data))),
        "value": claim.mean,
        "standard_error": claim.standard_error,
        "monte_carlo_error": claim.mean_monte_carlo_error,
        "kind": claim.kind.value,
        "method": claim.method,
        "measure": claim.measure.value,
        "parameters": free_parameters(model),
        "seconds": round(fitted - started, 3),
        "seconds_asking": round(time.perf_counter() - fitted, 3),
    }
    save_claim(path, claim, elbo_values)
    return row


def _causes(parts: Parts) -> Row:
    """What the encoder's family costs, and what it costs that one network serves all points (Cremer et al. 2018)."""
    row: Row = {"unconverged": 1 - parts.converged.double().mean().item()}
    for name, cause in (("approximation", parts.approximation), ("amortisation", parts.amortisation)):
        row |= {
            name: cause.mean,
            f"{name}_error": math.hypot(cause.standard_error, cause.mean_monte_carlo_error),
            f"{name}_kind": cause.kind.value,
        }
    return row


def _strongest(
    model: LatentVariableModel, test: Tensor, settings: Settings, log_scale: float, generator: Generator
) -> tuple[LogDensity, Row]:
    """log p(x) by quadrature up to three latents and by annealing beyond; and what importance weighting says instead.

    Annealing comes with its certificate: the width of the sandwich on points simulated from the model.
    """
    weighted = importance(model, test, draws=settings.draws, generator=generator)
    assert weighted.weights is not None
    size = weighted.weights.effective_sample_size
    about: Row = {
        "weighted": weighted.mean + log_scale,
        "weighted_draws": settings.draws,
        "weighted_monte_carlo_error": weighted.mean_monte_carlo_error,
        "ess_median": size.median().item(),
        "ess_least": size.min().item(),
        "unreliable": weighted.unreliable / len(test),
    }
    if model.prior.features <= 3:
        return quadrature(model, test, tolerance=settings.tolerance, generator=generator), about
    steps, chains = settings.annealing_steps, settings.annealing_chains
    certificate = sandwich(model, settings.simulated, steps=steps, chains=chains, generator=generator)
    about |= {
        "simulated": settings.simulated,
        "sandwich_width": certificate.mean_width,
        "sandwich_standard_error": certificate.standard_error,
    }
    return annealed(model, test, steps=steps, chains=chains, generator=generator), about


def compare(a: Path, b: Path) -> Row:
    """The paired difference of two claims, log p_a(x) − log p_b(x), as :class:`~density.LogDensity` subtracts them.

    Beside it what a naive table would say, which takes the ELBO of a for log p_a(x).
    """
    ours, theirs, elbo = load_claim(a), load_claim(b), load_elbo(a)
    difference = ours - theirs
    row: Row = {
        "test_rows": difference.value.numel(),
        "value": difference.mean,
        "standard_error": difference.standard_error,
        "monte_carlo_error": difference.mean_monte_carlo_error,
        "largest": difference.value.abs().max().item(),
        "kind": difference.kind.value,
        "method": difference.method,
    }
    if elbo is not None:
        naive = elbo - theirs.value
        row |= {"naive": naive.mean().item(), "naive_standard_error": naive.std().item() / math.sqrt(naive.numel())}
    return row
