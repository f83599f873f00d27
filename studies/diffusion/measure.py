"""What `diffusion` measures: what each reading of a model says of test points, and which of two is the better one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from bridge import probability_flow
from density import Kind, LogDensity
from density.data.points import Points
from flows import Flow, Hutchinson
from lvm import VAE, HierarchicalVAE
from lvm.evidence import annealed, gap, quadrature
from studies.data.load import Dataset
from studies.data.ring import ring_log_density
from studies.diffusion.grid import grid_claim
from studies.diffusion.line import line_log_density
from studies.diffusion.models import Fits, Fitted
from studies.diffusion.settings import Key, Settings
from studies.kit.claims import load_claim, load_elbo, save_claim
from studies.kit.compute import mean_and_error, parameter_count
from studies.kit.rows import Row
from studies.kit.study import Task

TRUTHS = {"line": line_log_density, "ring": ring_log_density}
LIMIT_DRAWS = 128  # of the limit, for each draw of a chain's terms
TIGHTER = 1e-3  # than the smallest tolerance is the solution that others are compared with
COVERED = 2.0  # Monte Carlo errors
CHAINS = 8  # of annealing, for each image
MANY = 16  # times as many draws for two levels of a toy, whose log p(x) no quadrature gives


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model says of the test points.

    Attributes:
        claim: the strongest about log p(x).
        elbo: ``[n]``; None of a model that has none.
        fitted: which model it is of.
        about: more columns.
    """

    claim: LogDensity
    elbo: Tensor | None
    fitted: Fitted
    about: Row


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    if task.key.versus:
        return compare(*task.needs)
    fits = prepared(settings, task.data, task.key.seed)
    started = time.process_time()
    reading = read(fits, task.key)
    seconds = time.process_time() - started
    (path,) = task.makes
    save_claim(path, reading.claim, reading.elbo)
    return columns(fits, reading, seconds) | {"points": str(path)}


@lru_cache(maxsize=1)  # for all rows of a set
def prepared(settings: Settings, data: Dataset, seed: int) -> Fits:
    """The fits to a set; the network that two models share is fitted here, so that no row's seconds count it."""
    fits = Fits(settings, data, seed)
    _ = fits.diffusion
    return fits


def read(fits: Fits, key: Key) -> Reading:
    """A row's model, and what is asked of it."""
    match key.model:
        case "chain":
            return chain(fits, int(key.number))
        case "annealed":
            return short_chain(fits)
        case "simple":
            return chain(fits, fits.settings.longest_known(fits.data), simple=True)
        case "limit":
            draws = LIMIT_DRAWS * fits.settings.elbo_draws
            model = fits.chain(max(fits.settings.chain))
            claim = model.limit(fits.test, draws=draws, generator=fits.generator("limit"))
            return Reading(claim, claim.value, fits.diffusion, {})
        case "ode":
            return solved(fits, key.number) if key.number else ode(fits)
        case "probes":
            return probes(fits)
        case "matching":
            return density(fits, fits.matching())
        case "likelihood":
            return density(fits, fits.likelihood())
        case "coupling":
            return density(fits, fits.coupling())
        case "hierarchy":
            return hierarchy(fits, fits.hierarchy())
        case _:
            return autoencoder(fits, fits.vae())


def chain(fits: Fits, steps: int, *, simple: bool = False) -> Reading:
    """The ELBO with its parts; log p(x) by grids, or bounded by importance weights, or by the ELBO alone."""
    settings, model, x = fits.settings, fits.chain(steps, simple=simple), fits.test
    generator = fits.generator("chain", str(steps))  # the same draws, so that the loss is all that differs
    with torch.no_grad():
        terms = model.elbo_terms(x, draws=settings.elbo_draws, generator=generator)
    parts = {"reconstruction": terms.reconstruction, "diffusion": terms.steps.sum(0), "prior": terms.prior}
    known = steps <= settings.longest_known(fits.data)
    about: Row = {"steps": steps, "beyond_elbo": int(known)}
    for name, values in parts.items():
        about |= mean_and_error(name, values, fits.data.log_scale if name == "reconstruction" else 0.0)
    if known and fits.toy:
        claim = grid_claim(model, x, settings.grid_tolerance)
    elif known:
        claim = gap(model, x, draws=settings.draws, generator=generator).log_density
    else:
        claim = LogDensity(terms.elbo, Kind.LOWER, "ELBO", measure=model.measure, points=Points.of(x))
    return Reading(claim, terms.elbo, fits.simple if simple else fits.diffusion, about)


def short_chain(fits: Fits) -> Reading:
    """log p(x) of a chain of few steps, bounded by annealing over all of its latents, and its ELBO."""
    settings, x = fits.settings, fits.test
    model, generator = fits.chain(settings.annealed), fits.generator("annealed")
    with torch.no_grad():
        elbo = model.elbo_terms(x, draws=settings.elbo_draws, generator=generator).elbo
    claim = annealed(model.hierarchy(), x, steps=settings.temperatures, chains=CHAINS, generator=generator)
    return Reading(claim, elbo, fits.diffusion, {"steps": settings.annealed})


def ode(fits: Fits) -> Reading:
    """The density of the probability flow, its trace exact."""
    return density(fits, Fitted(probability_flow(fits.chain(1), tolerance=fits.settings.solved_to(fits.data)), 0.0))


def solved(fits: Fits, tolerance: float) -> Reading:
    """The same to another tolerance: how far off it is from a far tighter one, and how far off it says that it is."""
    reference = tight(fits).value
    started = time.process_time()
    claim = probability_flow(fits.chain(1), tolerance=tolerance).log_density(fits.test)
    ms = 1000 * (time.process_time() - started) / len(fits.test)
    stated = claim.numerical_error
    assert stated is not None
    return Reading(
        claim, None, fits.diffusion, {"tolerance": tolerance, "ms": ms, **errors(claim.value - reference, stated)}
    )


def errors(off: Tensor, stated: Tensor) -> Row:
    """How far numbers are off, and how far they say that they are."""
    return {
        **mean_and_error("off", off),
        "worst_off": off.abs().max().item(),
        "worst_stated": stated.max().item(),
        "covered": (off.abs() <= stated).double().mean().item(),
    }


@lru_cache(maxsize=1)  # for all tolerances of a set
def tight(fits: Fits) -> LogDensity:
    """What other solutions are compared with."""
    return probability_flow(fits.chain(1), tolerance=TIGHTER * min(fits.settings.tolerances)).log_density(fits.test)


def probes(fits: Fits) -> Reading:
    """Hutchinson's estimate by single probes, repeated: its noise, and the error that it states."""
    reference, repeats = ode(fits).claim.value, fits.settings.repeats
    model = probability_flow(
        fits.chain(1), trace=Hutchinson(repeats=repeats), tolerance=fits.settings.solved_to(fits.data)
    )
    started = time.process_time()
    claim = model.log_density(fits.test, generator=fits.generator("probes"))
    ms = 1000 * (time.process_time() - started) / len(fits.test)
    off, stated = claim.value - reference, claim.monte_carlo_error
    assert stated is not None
    about: Row = {
        "ms": ms,
        **errors(off, COVERED * stated),
        "off_rms": off.square().mean().sqrt().item(),
        "stated_rms": stated.square().mean().sqrt().item(),
        "noise": math.sqrt(repeats) * stated.square().mean().sqrt().item(),
    }
    return Reading(claim, None, fits.diffusion, about)


def density(fits: Fits, fitted: Fitted) -> Reading:
    """log p(x) of a flow."""
    assert isinstance(fitted.model, Flow)
    return Reading(fitted.model.log_density(fits.test), None, fitted, {})


def autoencoder(fits: Fits, fitted: Fitted) -> Reading:
    """The ELBO, and log p(x) by quadrature of one or two latents, by importance weights of more."""
    model, settings = fitted.model, fits.settings
    assert isinstance(model, VAE)
    generator = fits.generator("vae", "ask")
    known = quadrature(model, fits.test, tolerance=settings.grid_tolerance, generator=generator) if fits.toy else None
    found = gap(model, fits.test, draws=settings.draws, log_density=known, generator=generator)
    return Reading(found.log_density, found.elbo.value, fitted, {})


def hierarchy(fits: Fits, fitted: Fitted) -> Reading:
    """The ELBO, and log p(x) bounded by importance weights."""
    model, draws = fitted.model, fits.settings.draws * (MANY if fits.toy else 1)
    assert isinstance(model, HierarchicalVAE)
    found = gap(model, fits.test, draws=draws, generator=fits.generator("hierarchy", "ask"))
    return Reading(found.log_density, found.elbo.value, fitted, {})


def columns(fits: Fits, reading: Reading, seconds: float) -> Row:
    """What every reading has."""
    claim, shift = reading.claim, fits.data.log_scale
    numerical = claim.numerical_error
    row: Row = {
        "train_rows": len(fits.train),
        "test_rows": len(fits.test),
        "features": fits.data.features,
        **mean_and_error("value", claim.value, shift),
        "kind": claim.kind.value,
        "method": claim.method,
        "monte_carlo_error": claim.mean_monte_carlo_error,
        "numerical_error": 0.0 if numerical is None else numerical.max().item(),
        "parameters": parameter_count(reading.fitted.model),
        "cpu_seconds": round(reading.fitted.seconds, 1),
        "ms": 1000 * (seconds - reading.fitted.seconds * (reading.fitted is not fits.diffusion)) / len(fits.test),
        **reading.about,
    }
    if reading.elbo is not None:
        row |= {**mean_and_error("elbo", reading.elbo, shift), **mean_and_error("gap", claim.value - reading.elbo)}
    if fits.data.name in TRUTHS:
        truth = torch.as_tensor(TRUTHS[fits.data.name](fits.test.cpu().numpy())).to(claim.value)
        row |= mean_and_error("below", truth - claim.value)
    return row


def compare(a: Path, b: Path) -> Row:
    """By how much the first model's log p(x) is above the second's, point by point, where that can be said.

    Beside it what a column says in which models with an ELBO are there with it, and others with their density.
    """
    first, second = load_claim(a), load_claim(b)
    elbos = load_elbo(a), load_elbo(b)
    ours, theirs = (claim.value if elbo is None else elbo for claim, elbo in zip((first, second), elbos, strict=True))
    row: Row = {"test_rows": len(ours), **mean_and_error("naive", ours - theirs)}
    try:
        difference = first - second
    except ValueError as error:
        return row | {"refused": str(error)}
    numerical = difference.numerical_error
    return row | {
        **mean_and_error("value", difference.value),
        "kind": difference.kind.value,
        "spread": difference.value.std().item(),
        "worst": difference.value.abs().max().item(),
        "numerical_error": 0.0 if numerical is None else numerical.mean().item(),
        "monte_carlo_error": difference.mean_monte_carlo_error,
    }
