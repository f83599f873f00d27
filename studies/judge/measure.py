"""What `judge` measures: log p(x) of each model, how it is known and tried; of each two, their paired difference."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from bridge import check_exact
from bridge.comparison.claiming import Entry, ask, parameter_count, rounding
from bridge.comparison.pair import Pair
from bridge.comparison.standing import Standing
from density import Density, ExactModel, LogDensity, Measure, Model
from density.checks import find_reference
from density.data.points import Points
from significance import Statement
from studies.data.likelihoods import likelihoods
from studies.data.load import Dataset
from studies.judge.making import NeedsCompleteRows, made, observed
from studies.judge.own_models import Named, blamed, is_function, missing_package, named
from studies.judge.settings import Key, Settings
from studies.kit.claims import load_claim, save_claim, train_less_test
from studies.kit.compute import chosen_rows, place, seeded
from studies.kit.errors import InputError
from studies.kit.rows import Row
from studies.kit.study import Task

VERDICTS = {True: "holds", False: "FAILS", None: "undecided"}


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to fit and to judge by.

    Attributes:
        train, test: in the coordinates y of fits ``[n, D]``.
        beside: as many training rows as test rows, at most.
        original: the test rows in the units of the data, float64.
        log_scale: what to add to log p(y) of each test row ``[n]``.
        points: which rows are tested on, whatever the units.
    """

    train: Tensor
    test: Tensor
    beside: Tensor
    original: Tensor
    log_scale: Tensor
    points: Points


@lru_cache(maxsize=1)  # for all models of a seed
def split(settings: Settings, data: Dataset, seed: int) -> Split:
    """The rows of a seed, at most as many as the settings allow."""
    device, dtype = place(settings)
    train = torch.as_tensor(data.train[chosen_rows(len(data.train), settings.train_rows, seed, "train rows")])
    kept = chosen_rows(len(data.test), settings.test_rows, seed, "test rows")
    test = torch.as_tensor(data.test[kept]).double()
    train = train.to(device, dtype)
    shift, scale = data.preprocessing.shift, data.preprocessing.scale
    scales = np.full(len(data.test), data.log_scale) if data.log_scales is None else data.log_scales
    return Split(
        train=train,
        test=test.to(device, dtype),
        beside=train[chosen_rows(len(train), len(test), seed, "train beside test")],
        original=test if shift is None or scale is None else test * torch.as_tensor(scale) + torch.as_tensor(shift),
        log_scale=torch.as_tensor(scales[kept]).double(),
        points=Points.of(test),
    )


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    models = named(settings.file)
    if task.key.versus:
        fits = len(models[task.key.model].sources)
        return compared(task.key, task.needs[:fits], task.needs[fits:])
    return judged(settings, task.data, models[task.key.model], task.key.seed, task.makes)


def judged(settings: Settings, data: Dataset, model: Named, seed: int, paths: Sequence[Path]) -> Row:
    """All that the study says of one model; its claims about every test point go to files.

    A model whose library is not there sits out, and one that takes no missing values where there are some: its row
    says so, and no file is written.

    Raises:
        ValueError: what the file's code, or a fit, came upon; with the line of the file.
    """
    rows = split(settings, data, seed)
    about: Row = {
        "train_rows": len(rows.train),
        "test_rows": len(rows.test),
        "features": data.features,
        "unit": data.unit,
        "note": data.note,
        "best": None if data.best is None else float(data.best),
        "best_error": float(data.best_error),
        "levels": data.levels,
    }
    started = time.perf_counter()
    try:
        fits = made(model, rows.train, seed, settings.steps, likelihoods(data.kinds) if data.kinds else None)
        about["seconds"] = round(time.perf_counter() - started, 3)
        about["climbing"] = sum(fit.climbing for fit in fits)
        return about | asked(settings, model, [fit.model for fit in fits], rows, seed, paths)
    except InputError:
        raise
    except NeedsCompleteRows:
        return about | {"refused": "takes no missing values"}
    except Exception as error:  # whatever somebody's code raises
        if (package := missing_package(error)) is not None:
            return about | {"missing": package}
        raise ValueError(blamed(settings.file, error)) from error


def asked(
    settings: Settings, model: Named, fits: Sequence[Model], rows: Split, seed: int, paths: Sequence[Path]
) -> Row:
    """What fitted models say: about test rows, of training rows beside them, and when they are tried."""
    started = time.perf_counter()
    entries, claims, about = [], [], Row()
    for number, (fit, source) in enumerate(zip(fits, model.sources, strict=True)):
        like = find_reference(fit)
        like = rows.test if like is None else like
        draws = seeded(like.device, seed, "judge", "draws", model.name, str(number))
        in_units = not model.to_fit and not is_function(source)  # fitted elsewhere, to the data as it is
        x = (rows.original if in_units else rows.test).to(like)
        asked_about = observed(fit).log_density(x) if bool(x.isnan().any()) else fit
        (entry,) = ask({model.name: asked_about}, x, None, None, settings.elbo_draws, draws)
        if number == 0 and not in_units:
            about |= train_less_test(fit, rows.beside.to(like), comparable(entry, fit), settings.elbo_draws, draws)
        if number == 0 and not settings.trust:
            about |= tried(fit, draws)
        entries.append(entry)
        claims.append(of_data(entry.claims[0], None if in_units else rows.log_scale, rows.points))
    gaps = tuple(gap for entry in entries for gap in entry.gaps)
    standing = Standing.of(Entry(model.name, tuple(claims), gaps, parameter_count(fits[0])))
    for path, claim in zip(paths, claims, strict=True):
        save_claim(path, claim)
    return {
        "fits": standing.fits,
        "kind": standing.kind.value,
        "method": standing.method,
        "measure": claims[0].measure.value,
        **stated(standing.fitted, standing.anew),
        "monte_carlo_error": standing.monte_carlo_error,
        "median": standing.median,
        "worst_row": standing.worst_row,
        "worst_share": standing.worst_share,
        "without_worst": standing.without_worst,
        "unreliable": standing.unreliable,
        "gap": standing.gap,
        "gap_error": standing.gap_error,
        "gap_kind": None if standing.gap_kind is None else standing.gap_kind.value,
        "parameters": standing.parameters,
        **about,
        "seconds_asking": round(time.perf_counter() - started, 3),
    }


def comparable(entry: Entry, fit: Model) -> Tensor:
    """log p of each test row ``[n]`` where the model knows it, else its ELBO: what training rows are compared by."""
    value = entry.claims[0].value.double()
    return value if isinstance(fit, ExactModel) or not entry.gaps else value - entry.gaps[0].value.double()


def of_data(claim: LogDensity, log_scale: Tensor | None, points: Points) -> LogDensity:
    """A claim in the units of the data, in float64 on the CPU; what it was rounded to is an error of it."""
    slack = rounding(claim).cpu()
    if claim.numerical_error is not None:
        slack = slack + claim.numerical_error.double().cpu()
    value = claim.value.double().cpu()
    sampling = claim.monte_carlo_error
    return replace(
        claim,
        value=value if log_scale is None else value + log_scale,
        monte_carlo_error=None if sampling is None else sampling.double().cpu(),
        numerical_error=slack,
        points=points,
    )


def stated(fitted: Statement, anew: Statement | None) -> Row:
    """The columns of what is said of these fits, and of fits made anew."""
    return {
        "value": fitted.mean,
        "standard_error": fitted.error,
        "freedom": fitted.freedom,
        "slack": fitted.slack,
        "anew_error": math.nan if anew is None else anew.error,
        "anew_freedom": math.nan if anew is None else anew.freedom,
        "anew_fits_error": math.nan if anew is None else anew.fits_error,
        "anew_fits_freedom": math.nan if anew is None else anew.fits_freedom,
    }


def tried(model: Model, generator: Generator) -> Row:
    """What :func:`~bridge.check_exact` finds of a density of continuous data; nothing of other models."""
    if not isinstance(model, Density) or model.measure is not Measure.LEBESGUE:
        return {}
    try:
        found = check_exact(model, generator)
    except Exception as error:  # a density without a sampler, or whatever somebody's sampler raises
        return {"tried": "not tried", "laws": f"{type(error).__name__}: {error}"}
    failed = [f"{check.name}: {check.words}" for check in found.checks if check.passed is not True]
    return {
        "tried": VERDICTS[found.passed],
        "mass": found.mass,
        "mass_error": found.error,
        "laws": "; ".join(failed),
    }


def compared(key: Key, ours: Sequence[Path], theirs: Sequence[Path]) -> Row:
    """The paired difference of two models, not judged yet; nothing of two that have different measures."""
    first, second = (
        Entry(name, tuple(load_claim(path) for path in paths))
        for name, paths in ((key.model, ours), (key.versus, theirs))
    )
    if first.measure != second.measure:
        return {"comparable": 0}
    pair = Pair.of(first, second, margin=0.0)
    row: Row = {
        "comparable": 1,
        "test_rows": pair.points,
        "equal": int(pair.equal),
        "worst_share": pair.worst_share,
        "loose": "; ".join(pair.loose),
    }
    if pair.fitted is None:
        return row
    return row | {
        "kind": pair.fitted.kind.value,
        **stated(pair.fitted, pair.anew),
        "monte_carlo_error": math.sqrt(pair.sampling) * pair.fitted.error,
    }
