"""What `flow_layers` computes: flows of one budget, fitted, and timed side by side."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

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
    MaskedLinear,
    Permutation,
    QRLinear,
    SplineCoupling,
    Transform,
)
from studies.kit.compute import usable_device
from studies.kit.rows import Row, write_whole
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data.load import Dataset
    from studies.flow_layers import Settings

ROWS_TIMED = 512
WARM_UP = 3  # calls before any is timed
WIDEST = 4096


@dataclass(frozen=True, eq=False)
class Found:
    """Training and test rows, and how many nats they are from the units of the data."""

    settings: Settings
    train: Tensor
    test: Tensor
    log_scale: float
    seed: int


def prepared(settings: Settings, data: Dataset, seed: int) -> Found:
    """The rows, on the device."""
    torch.set_num_threads(settings.threads)
    device, dtype = usable_device(settings.device), getattr(torch, settings.dtype)
    train, test = (torch.as_tensor(rows).to(device, dtype) for rows in (data.train, data.test))
    return Found(settings, train, test, data.log_scale, seed)


def fit_and_time(found: Found, part: str, name: str, path: Path) -> Row:
    """Fit one flow, judge it on the test rows, and time density and sampling."""
    settings, features = found.settings, found.train.shape[1]
    budget = parameter_count(_built(found, "kind", "affine", settings.hidden))
    width = _width(lambda hidden: parameter_count(_built(found, part, name, hidden)), budget)
    flow = _built(found, part, name, width)
    generator = Generator(found.train.device).manual_seed(derived_seed(found.seed, "flow_layers", "fit"))
    training = Training(
        epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=settings.learning_rate,
        optimiser=_decoupled(settings.decay), patience=settings.patience, progress=False,
    )  # fmt: skip
    device = found.train.device
    started = _clock(device)
    history = flow.fit(found.train, training, generator=generator)
    seconds = _clock(device) - started
    with torch.no_grad():
        log_p = flow.log_prob(found.test).double() + found.log_scale
        rows = found.train[torch.arange(ROWS_TIMED, device=found.train.device) % len(found.train)]
        density = _median(lambda: flow.log_prob(rows), settings.repeats, device)
        sample = _median(lambda: flow.sample(ROWS_TIMED, generator=generator), settings.repeats, device)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, log_p=log_p.cpu().numpy())
    write_whole(path, buffer.getvalue())
    return {
        "features": features,
        "epochs": settings.epochs,
        "epochs_done": len(history.objective),
        "width": width,
        "parameters": parameter_count(flow),
        "log_p": log_p.mean().item(),
        "log_p_error": (log_p.std() / math.sqrt(len(log_p))).item(),
        "train_log_p": history.objective[history.best],
        "condition": _condition(flow),
        "density_us": 1e6 * density / ROWS_TIMED,
        "sample_us": 1e6 * sample / ROWS_TIMED,
        "fit_seconds": seconds,
    }


def _built(found: Found, part: str, name: str, hidden: int) -> Flow:
    """The flow of a name, over standardised data, from a start that is the same in every run."""
    features, settings = found.train.shape[1], found.settings
    between, kind = (name, "affine") if part == "between" else ("lu+actnorm", name)
    start = Generator().manual_seed(derived_seed(found.seed, "flow_layers", "permutations"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(found.seed, "flow_layers", "start"))
        parts: list[Transform] = [Affine.standardise(found.train.cpu())]
        for layer in range(settings.layers):
            parts += _between(between, features, start)
            parts.append(_transform(kind, features, layer, (hidden, hidden)))
        return Flow(StandardNormal(features), Chain(*parts)).to(found.train)


def _between(name: str, features: int, generator: Generator) -> list[Transform]:
    if name == "none":
        return []
    if name == "permutation":
        return [Permutation(torch.randperm(features, generator=generator).tolist())]
    if name == "qr":
        return [QRLinear(features)]
    return [LULinear(features)] if name == "lu" else [ActNorm(features), LULinear(features)]


def _transform(kind: str, features: int, layer: int, hidden: tuple[int, ...]) -> Transform:
    mask = torch.arange(features) % 2 == layer % 2
    if kind == "affine":
        return AffineCoupling(mask, hidden)
    if kind == "spline":
        return SplineCoupling(mask, hidden=hidden)
    order = range(features) if layer % 2 == 0 else range(features - 1, -1, -1)
    autoregressive = GaussianAutoregressive(features, hidden, order)
    return autoregressive if kind == "maf" else Inverse(autoregressive)


def parameter_count(flow: nn.Module) -> int:
    """Free parameters; a masked weight does not count."""
    masked = sum(int((~layer.mask).sum()) for layer in flow.modules() if isinstance(layer, MaskedLinear))
    return sum(parameter.numel() for parameter in flow.parameters()) - masked


def _width(count: Callable[[int], int], budget: int) -> int:
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


def _decoupled(decay: float) -> Callable[[list[nn.Parameter], float], Optimizer]:
    def adamw(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
        fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay, fused=fused)

    return adamw
