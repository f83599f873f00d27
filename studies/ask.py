"""Fit one model to one data set, and ask it for log p(x), its ELBO and the gap."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator

from density import Bound, ExactModel
from lvm.evidence import gap
from studies.claims import load_claim, save_claim
from studies.errors import InputError
from studies.models import MODELS, parameter_count
from studies.results import Row
from studies.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data import Dataset
    from studies.elbo_gap import ModelName, Settings


def fit_and_ask(settings: Settings, data: Dataset, name: ModelName, seed: int, path: Path) -> Row:
    """Everything that the study says of one model; its claim about every test point goes to ``path``.

    Networks start from torch's own generator, seeded here and put back: the start is then the same on every device.

    Raises:
        InputError: the device cannot be used.
        ValueError, ArithmeticError: the model cannot be fitted to this data.
    """
    torch.set_num_threads(settings.threads)
    dtype, device = getattr(torch, settings.dtype), _device(settings.device)
    train = torch.as_tensor(data.train).to(device, dtype)
    test = torch.as_tensor(data.test).to(device, dtype)
    fit, purpose = MODELS[name]
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "start", purpose))
        model = fit(train, settings, Generator(device).manual_seed(derived_seed(seed, "fit", purpose)))
    fitted = time.perf_counter()
    draws = Generator(device).manual_seed(derived_seed(seed, "draws", purpose))
    row: Row = {
        "train_rows": len(train),
        "test_rows": len(test),
        "features": data.features,
        "unit": data.unit,
        "note": data.note,
        "best": data.best,
        "dtype": settings.dtype,
    }
    if isinstance(model, Bound):
        # 1,000 draws and more to bound log p(x); where it is known, only the ELBO needs draws.
        count = settings.elbo_draws if isinstance(model, ExactModel) else settings.draws
        found = gap(model, test, draws=count, generator=draws)
        claim, elbo, difference = found.log_density, found.elbo, found.difference
        row |= {
            "elbo": elbo.mean + data.log_scale,
            "elbo_standard_error": elbo.standard_error,
            "elbo_monte_carlo_error": elbo.mean_monte_carlo_error,
            "gap": difference.mean,
            "gap_standard_error": difference.standard_error,
            "gap_monte_carlo_error": difference.mean_monte_carlo_error,
            "gap_kind": difference.kind.value,
        }
    else:
        claim = model.log_density(test)
    claim = replace(claim, value=claim.value.double() + data.log_scale)
    weights = claim.weights
    row |= {
        "value": claim.mean,
        "standard_error": claim.standard_error,
        "monte_carlo_error": claim.mean_monte_carlo_error,
        "kind": claim.kind.value,
        "method": claim.method,
        "measure": claim.measure.value,
        "ess_median": None if weights is None else weights.effective_sample_size.median().item(),
        "ess_least": None if weights is None else weights.effective_sample_size.min().item(),
        "unreliable": None if weights is None else 1 - weights.reliable.double().mean().item(),
        "parameters": parameter_count(model),
        "seconds": round(fitted - started, 3),
        "seconds_asking": round(time.perf_counter() - fitted, 3),
    }
    save_claim(path, claim)
    return row


def compare(a: Path, b: Path) -> Row:
    """The paired difference of two claims, log p_a(x) − log p_b(x), as :class:`~density.LogDensity` subtracts them."""
    difference = load_claim(a) - load_claim(b)
    return {
        "test_rows": difference.value.numel(),
        "value": difference.mean,
        "standard_error": difference.standard_error,
        "monte_carlo_error": difference.mean_monte_carlo_error,
        "largest": difference.value.abs().max().item(),
        "kind": difference.kind.value,
        "method": difference.method,
    }


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}). Try --device cpu") from error
    return device
