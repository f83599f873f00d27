"""Fit one model to one data set, and ask it for log p(x), its ELBO and the gap."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from density import Bound, ExactModel, LogDensity
from lvm import LatentVariableModel
from lvm.evidence import annealed, gap, importance, sandwich
from lvm.evidence.quadrature import quadrature
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
    dtype, device = getattr(torch, settings.dtype), usable_device(settings.device)
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
        strongest = None
        if isinstance(model, LatentVariableModel) and not isinstance(model, ExactModel):
            strongest, about = _strongest(model, test, settings, data.log_scale, draws)
            row |= about
        found = gap(model, test, draws=settings.elbo_draws, log_density=strongest, generator=draws)
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
    row |= {
        "value": claim.mean,
        "standard_error": claim.standard_error,
        "monte_carlo_error": claim.mean_monte_carlo_error,
        "kind": claim.kind.value,
        "method": claim.method,
        "measure": claim.measure.value,
        "parameters": parameter_count(model),
        "seconds": round(fitted - started, 3),
        "seconds_asking": round(time.perf_counter() - fitted, 3),
    }
    save_claim(path, claim)
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


def usable_device(name: str) -> torch.device:
    """The device of that name, if it can be used here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}). Try --device cpu") from error
    return device
