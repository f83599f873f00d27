"""What `flow_layers` measures: flows of one budget, fitted, timed side by side, and compared point by point."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from density import StandardNormal, Training
from flows import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Flow,
    GaussianAutoregressive,
    Inverse,
    Linear,
    LULinear,
    Permutation,
    QRLinear,
    SplineCoupling,
    Transform,
)
from studies.data.load import Dataset
from studies.flow_layers.settings import Between, Key, Kind, Part, Settings
from studies.kit.compute import adamw, mean_and_error, parameter_count, place, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

ROWS_TIMED = 512
WARM_UP = 3  # calls before any is timed
WIDEST = 4096


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """The columns of a row."""
    if task.key.versus:
        return compare(*task.needs)
    return fit_and_time(settings, task.data, task.key, *task.makes)


def compare(a: Path, b: Path) -> Row:
    """What a flow gains over another one, paired."""
    with np.load(a) as first, np.load(b) as second:
        gain = first["log_p"] - second["log_p"]
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    return {"test_rows": len(gain), "gain": float(gain.mean()), "gain_error": error}


def fit_and_time(settings: Settings, data: Dataset, key: Key, path: Path) -> Row:
    """Fit one flow, judge it on the test rows, and time density and sampling."""
    device, dtype = place(settings)
    train, test = (torch.as_tensor(rows).to(device, dtype) for rows in (data.train, data.test))
    given, asked = (None, None) if data.contexts is None else (torch.as_tensor(c).to(train) for c in data.contexts)
    classes = 0 if given is None else given.shape[1]
    sized = partial(built, settings, train, key.seed, classes=classes)
    budget = parameter_count(sized("kind", "affine", settings.hidden))
    width = width_nearest(budget, lambda hidden: parameter_count(sized(key.part, key.name, hidden)))
    flow = sized(key.part, key.name, width)
    generator = seeded(device, key.seed, "flow_layers", "fit")
    training = Training(
        epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.learning_rate,
        optimiser=adamw(settings.decay), patience=settings.patience, patient_steps=0, annealing=1,
        progress=False,
    )  # fmt: skip
    started = _clock(device)
    history = flow.fit(train, training, context=given, generator=generator)
    seconds = _clock(device) - started
    with torch.no_grad():
        log_p = flow.log_prob(test, context=asked).double() + data.log_scale
        timed = torch.arange(ROWS_TIMED, device=device) % len(train)
        rows, contexts = train[timed], None if given is None else given[timed]
        draws = ROWS_TIMED if given is None else 1  # for every context
        density = _median(lambda: flow.log_prob(rows, context=contexts), settings.repeats, device)
        sample = _median(lambda: flow.sample(draws, context=contexts, generator=generator), settings.repeats, device)
    save_arrays(path, log_p=log_p.cpu().numpy())
    return {
        "given": settings.label if data.contexts is not None else None,
        "features": data.features,
        "epochs": settings.epochs,
        "epochs_done": len(history.objective),
        "width": width,
        "parameters": parameter_count(flow),
        **mean_and_error("log_p", log_p),
        "train_log_p": history.objective[history.best],
        "condition": _condition(flow),
        "density_us": 1e6 * density / ROWS_TIMED,
        "sample_us": 1e6 * sample / ROWS_TIMED,
        "fit_seconds": seconds,
    }


def built(
    settings: Settings, train: Tensor, seed: int, part: Part, name: Between | Kind, hidden: int, classes: int = 0
) -> Flow:
    """The flow of a name, over standardised data, from a start that is the same in every run; given one of classes."""
    features, start = train.shape[1], seeded(torch.device("cpu"), seed, "flow_layers", "permutations")
    between, kind = (name, "affine") if part == "between" else ("lu+actnorm", name)
    with seeded_start(seed, "flow_layers", "start"):
        parts: list[Transform] = [Affine.standardise(train.cpu())]
        for layer in range(settings.layers):
            parts += _between(between, features, start)
            parts.append(_transform(kind, features, layer, (hidden, hidden), classes))
        return Flow(StandardNormal(features), Chain(*parts)).to(train)


def _between(name: str, features: int, generator: Generator) -> list[Transform]:
    if name == "none":
        return []
    if name == "permutation":
        return [Permutation(torch.randperm(features, generator=generator).tolist())]
    if name == "qr":
        return [QRLinear(features)]
    return [LULinear(features)] if name == "lu" else [ActNorm(features), LULinear(features)]


def _transform(kind: str, features: int, layer: int, hidden: tuple[int, ...], classes: int) -> Transform:
    mask = torch.arange(features) % 2 == layer % 2
    if kind == "affine":
        return AffineCoupling(mask, hidden, classes)
    if kind == "spline":
        return SplineCoupling(mask, hidden=hidden, context_features=classes)
    order = range(features) if layer % 2 == 0 else range(features - 1, -1, -1)
    autoregressive = GaussianAutoregressive(features, hidden, order, classes)
    return autoregressive if kind == "maf" else Inverse(autoregressive)


def width_nearest(budget: int, count: Callable[[int], int]) -> int:
    """The width whose number of parameters is nearest to the budget, by bisection."""
    low, high = 1, WIDEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle)
    return min((low, high), key=lambda width: abs(count(width) - budget))


def _condition(flow: Flow) -> float:
    """The worst condition number of the linear layers; nan if there are none."""
    with torch.no_grad():
        numbers = [torch.linalg.cond(m.matrix().double()).item() for m in flow.modules() if isinstance(m, Linear)]
    return max(numbers, default=math.nan)


def _median(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of a call: on a CPU of its processor time, which other work on the machine changes little."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = _clock(device)
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(_clock(device) - started)
    return statistics.median(times)


def _clock(device: torch.device) -> float:
    return time.process_time() if device.type == "cpu" else time.perf_counter()
