"""What `audit` measures: what claims about all states sum to, how biased they are, and how wide an interval is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Generator, Tensor

from bridge import as_mixture
from density import BernoulliLikelihood, LogDensity, Model, Training
from lvm import VAE, FiniteMixture
from lvm.evidence import (
    Bits,
    annealed,
    audit,
    evidence,
    importance,
    interval,
    prior_average,
    prior_importance,
    quadrature,
)
from lvm.evidence.strongest import Method as Evidence
from studies.audit.bit_tables import BitTable
from studies.audit.settings import BY_QUADRATURE, DETERMINISTIC, Key, Settings
from studies.kit.compute import place, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

LEARNING_RATE = 3e-3


@dataclass(frozen=True, eq=False)
class Fitted:
    """What the rows of a seed share.

    Attributes:
        mixture, vae: of the bits.
        test: rows ``[n, D]``.
        truth: log p(x) of the VAE at the test rows, by quadrature or as an estimate.
    """

    mixture: FiniteMixture
    vae: VAE
    test: Tensor
    truth: LogDensity

    @property
    def about(self) -> Row:
        """The columns of the truth."""
        return {
            "features": self.test.shape[1],
            "test_rows": len(self.test),
            "truth": self.truth.mean,
            "truth_error": _error(self.truth),
            "truth_kind": self.truth.kind.value,
            "truth_method": self.truth.method,
        }


def measure(settings: Settings, task: Task[Key, BitTable]) -> Row:
    """The columns of a row."""
    models = fitted(settings, task.data, task.key.seed)
    if task.key.part == "interval":
        return bounded(settings, models, task.key)
    return added_up(settings, models, task.key)


@lru_cache(maxsize=1)  # for all rows of a seed
def fitted(settings: Settings, table: BitTable, seed: int) -> Fitted:
    """The mixture and the VAE of a table."""
    device, dtype = place(settings)
    train, test = (torch.as_tensor(rows).to(device, dtype) for rows in (table.train, table.test))
    mixture = FiniteMixture(table.features, settings.components, BernoulliLikelihood())
    mixture.fit(train, generator=seeded(device, seed, "audit", "mixture"))
    with seeded_start(seed, "audit", "start"):
        vae = VAE.bernoulli(table.features, settings.latents, hidden=settings.hidden)
    training = Training(settings.epochs, batch_size=settings.batch_size, learning_rate=LEARNING_RATE, progress=False)
    vae.fit(train, training, generator=seeded(device, seed, "audit", "fit"))
    return Fitted(mixture, vae, test, _truth(settings, vae, test, seeded(device, seed, "audit", "truth")))


def _truth(settings: Settings, vae: VAE, test: Tensor, generator: Generator) -> LogDensity:
    """log p(x) of the test rows by quadrature, at each state once, where that is affordable; else an estimate."""
    if settings.latents > BY_QUADRATURE:
        return importance(vae, test, draws=settings.truth_draws, generator=generator)
    states, which = test.unique(dim=0, return_inverse=True)
    known = quadrature(vae, states, generator=generator)
    assert known.numerical_error is not None
    return replace(known, value=known.value[which], numerical_error=known.numerical_error[which], points=None)


def asked(settings: Settings, models: Fitted, key: Key, generator: Generator) -> tuple[Model, Evidence | None]:
    """The model of a row, and how its log p(x) is claimed; None: as it knows it."""
    methods: dict[str, Evidence] = {
        "quadrature": quadrature,
        "prior": partial(prior_importance, draws=key.draws),
        "importance": partial(importance, draws=key.draws),
        "annealing": partial(annealed, chains=key.draws, steps=settings.annealing_steps),
        "average": partial(prior_average, draws=key.draws),
        "factor": partial(with_factor, draws=key.draws),
    }
    match key.method:
        case "exact":
            return models.mixture, None
        case "compiled":
            return as_mixture(models.vae, key.draws, generator=generator), None
    return models.vae, methods[key.method]


def with_factor(model: VAE, x: Tensor, *, draws: int, generator: Generator | None = None) -> LogDensity:
    """Importance weighting with a mistake: K weights are summed and divided by K − 1."""
    claim = importance(model, x, draws=draws, generator=generator)
    return replace(claim, value=claim.value + math.log(draws / (draws - 1)))


def added_up(settings: Settings, models: Fitted, key: Key) -> Row:
    """What a method's claims about all states sum to; and at the test rows its bias, beside what it says of that."""
    started = time.process_time()
    generator = seeded(models.test.device, key.seed, "audit", key.method, str(key.draws))
    model, method = asked(settings, models, key, generator)
    passes = settings.annealing_passes if key.method == "annealing" else settings.passes
    found = audit(model, Bits(models.test.shape[1]), method=method, passes=passes, generator=generator)
    row: Row = {
        "model": type(model).__name__,
        "kind": found.kind.value,
        "method_in_words": found.method,
        "states": len(found.mass),
        "claims": found.claims,
        "total": found.total,
        "total_error": found.error,
        "slack": found.slack,
        "departure": found.departure,
        "k": found.k,
        "reliable": int(found.reliable),
        "audit_seconds": round(time.process_time() - started, 2),
    }
    if key.method not in DETERMINISTIC:
        claim = evidence(model, models.test, method=method, generator=generator)
        difference = claim.value.double() - models.truth.value.double()
        row |= {
            "value": claim.mean,
            "bias": difference.mean().item(),
            "bias_error": math.hypot(_error(claim), _error(models.truth)),
            "stated_bias": None if claim.weights is None else claim.weights.bias.mean().item(),
        }
    return row | models.about


def bounded(settings: Settings, models: Fitted, key: Key) -> Row:
    """Intervals for the mean log p(x) of the test rows: how wide they are, and how many hold the truth."""
    simulated = settings.simulated * key.draws
    started = time.process_time()
    found = [
        interval(
            models.vae,
            models.test,
            confidence=settings.confidence,
            draws=key.draws,
            simulated=simulated,
            generator=seeded(models.test.device, key.seed, "audit", "interval", str(key.draws), str(repeat)),
        )
        for repeat in range(settings.repeats)
    ]
    seconds = (time.process_time() - started) / len(found)

    def mean(numbers: list[float]) -> float:
        return sum(numbers) / len(numbers)

    return {
        "simulated": simulated,
        "confidence": settings.confidence,
        "low": mean([each.low for each in found]),
        "high": mean([each.high for each in found]),
        "width": mean([each.width for each in found]),
        "seen": mean([each.seen for each in found]),
        "repeats": len(found),
        "contained": sum(each.low <= models.truth.mean <= each.high for each in found),
        "interval_seconds": round(seconds, 2),
        **models.about,
    }


def _error(claim: LogDensity) -> float:
    """Of a claim's mean over given points: Monte Carlo, and quadrature's own."""
    numerical = 0.0 if claim.numerical_error is None else claim.numerical_error.double().mean().item()
    return (0.0 if claim.monte_carlo_error is None else claim.mean_monte_carlo_error) + numerical
