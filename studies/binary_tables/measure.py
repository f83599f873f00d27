"""What `binary_tables` measures: test log p of a model, of which kind, and by how much it differs, row by row."""

from __future__ import annotations

from functools import lru_cache

from density import LogDensity
from density.contract import Bound
from lvm import AmortisedModel
from lvm.evidence import interval
from studies.binary_tables.models import Fits, Fitted, log_p_of
from studies.binary_tables.settings import FEW_COLUMNS, Key, ModelName, Settings
from studies.binary_tables.source import BinaryTable
from studies.data.binary.debd import DEBD
from studies.kit.compute import mean_and_error
from studies.kit.rows import Row
from studies.kit.study import Task


def measure(settings: Settings, task: Task[Key, BinaryTable]) -> Row:
    """The columns of a row."""
    fits = prepared(settings, task.data, task.key.seed)
    return described(fits, task.key.model)


@lru_cache(maxsize=len(DEBD))  # for all rows of a table and seed; tables take turns
def prepared(settings: Settings, table: BinaryTable, seed: int) -> Fits:
    """Fits to a table."""
    return Fits(settings, table, seed)


def fitted(fits: Fits, model: ModelName) -> Fitted:
    """A model by name."""
    match model:
        case "mixture":
            return fits.mixture
        case "ELBO":
            return fits.by_elbo
        case "compiled":
            return fits.compiled
        case "IWAE":
            return fits.weighted
        case "through":
            return fits.through
        case "flow":
            return fits.with_flow
        case "hierarchy":
            return fits.hierarchy


def described(fits: Fits, model: ModelName) -> Row:
    """What a model says of the test rows, beside the mixture, the compiled twin, and the truth if there is one."""
    found, table = fitted(fits, model), fits.table
    value = found.claim.value.double()
    row: Row = {
        "features": table.features,
        "train_rows": len(table.split.train),
        "test_rows": len(fits.test),
        "kind": found.claim.kind.value,
        "method": found.claim.method,
        **mean_and_error("log_p", value),
        "monte_carlo_error": _monte_carlo(found.claim),
        "unreliable": found.claim.unreliable,
        "valid": found.course.valid,
        "size": found.course.size,
        "fit_seconds": round(found.course.seconds, 1),
    }
    if model != "mixture":
        row |= mean_and_error("over_mixture", value - fits.mixture.claim.value.double())
    if model == "through":
        row |= mean_and_error("over_twin", value - fits.compiled.claim.value.double())
    if model == "compiled":
        row |= mean_and_error("over_bound", value - fits.by_elbo.claim.value.double())
    if table.truth is not None:
        row |= mean_and_error("over_truth", value - log_p_of(table.truth, fits.test))
    if isinstance(found.model, AmortisedModel) and table.features <= FEW_COLUMNS:
        row |= between(fits, model, found.model)
    return row


def between(fits: Fits, name: ModelName, model: Bound) -> Row:
    """Both ends of the mean log p of the test rows, at the confidence of the settings."""
    s = fits.settings
    found = interval(
        model,
        fits.test,
        confidence=s.confidence,
        draws=s.draws,
        simulated=s.simulated,
        generator=fits.generator("interval", name),
    )
    return {"confidence": s.confidence, "low": found.low, "high": found.high}


def _monte_carlo(claim: LogDensity) -> float:
    return 0.0 if claim.monte_carlo_error is None else claim.mean_monte_carlo_error
