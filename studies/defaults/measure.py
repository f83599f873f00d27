"""What `defaults` measures: a model's log p of test rows and what it cost; of two models, the paired difference."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from density import Gaussian, StandardNormal, Training, maximise
from density.fitting.course import usual_steps
from density.history import History
from flows import (
    ActNorm,
    Chain,
    ElementwiseSpline,
    Flow,
    RationalQuadratic,
    first_half,
    glow,
    halves,
    maf,
    neural_spline_flow,
    random_masks,
    random_orders,
    random_rotation,
    real_nvp,
    spline_maf,
)
from lvm import GaussianMixture
from studies.defaults.peers import MAKERS, peer
from studies.defaults.settings import Key, Model, Settings
from studies.defaults.tables import Split
from studies.kit.compute import mean_and_error, parameter_count, place, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task

COUPLINGS, SPLINE_COUPLINGS, LAYERS, SPLINE_LAYERS = 8, 5, 5, 3
COMPONENTS = 10


def measure(settings: Settings, task: Task[Key, Split]) -> Row:
    """The columns of a row."""
    key = task.key
    if key.model in ("best", "second"):
        middle = len(settings.builders)
        return of_sides(task.needs[:middle], task.needs[middle:], int(key.model == "second"))
    if key.versus:
        return difference(*(_values(path) for path in task.needs))
    return fitted(settings, task.data, key, *task.makes)


def fitted(settings: Settings, data: Split, key: Key, path: Path) -> Row:
    """Fit one model and judge it; log p of every test row goes to ``path``, beside the mean over held-out ones."""
    device, dtype = place(settings)
    train, test = (torch.as_tensor(rows).to(device, dtype) for rows in (data.train, data.test))
    generator = seeded(device, key.seed, "defaults", "fit")
    started = time.process_time()
    with seeded_start(key.seed, "defaults", "start"):
        model, history = _fit(key.model, train, settings, generator)
    seconds = time.process_time() - started
    with torch.no_grad():
        values, on_train = model.log_prob(test).double(), model.log_prob(train).double()
    held_out = history.validation[history.best] if history.validation else float("nan")
    save_arrays(path, log_p=values.cpu().numpy(), held_out=held_out)
    return {
        "features": data.train.shape[1],
        "train_rows": len(train),
        **mean_and_error("log_p", values),
        "train_log_p": on_train.mean().item(),
        "held_out": held_out,
        "median": values.median().item(),
        "worst": values.min().item(),
        "parameters": parameter_count(model),
        "epochs_done": len(history.objective),
        "climbing": int(history.climbing),
        "stopped": history.stopped,
        "cpu_seconds": round(seconds, 2),
    }


def _fit(name: Any, x: Tensor, settings: Settings, generator: Generator) -> tuple[Any, History]:  # noqa: ANN401
    features, hidden = x.shape[1], settings.hidden
    training = Training(
        steps=min(usual_steps(len(x)), settings.most_steps),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        progress=False,
    )
    if name == "gaussian":
        gaussian = Gaussian(features)
        return gaussian, gaussian.fit(x)
    if name == "mixture":
        mixture = GaussianMixture(features, COMPONENTS)
        return mixture, mixture.fit(x, generator=generator)
    if name in MAKERS:
        model = peer(name, features, hidden).to(x)
        if name.endswith("early stopping"):
            training = replace(training, annealing=0.0, learning_rate=1e-3)
        history = maximise(model, lambda batch, _: model.log_prob(batch[0]), (x,), training, generator=generator)
        return model.eval(), history
    candidate = CANDIDATES[name]
    flow = candidate.build(features, (hidden, hidden), generator)
    return flow, flow.fit(x, candidate.training(training), generator=generator)


class Candidate(NamedTuple):
    """A flow of ours: how it is built of width, hidden widths and a generator, and what it changes of the training."""

    build: Callable[[int, tuple[int, int], Generator], Flow]
    training: Callable[[Training], Training] = lambda training: training


def _spline_maf(change: Callable[[Training], Training]) -> Candidate:
    return Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden), change)


CANDIDATES: dict[Model, Candidate] = {
    "real-nvp": Candidate(lambda d, hidden, _: real_nvp(d, COUPLINGS, hidden)),
    "glow": Candidate(lambda d, hidden, _: glow(d, COUPLINGS, hidden)),
    "maf": Candidate(lambda d, hidden, _: maf(d, LAYERS, hidden)),
    "nsf": Candidate(lambda d, hidden, _: neural_spline_flow(d, SPLINE_COUPLINGS, hidden)),
    "spline-maf": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden)),
    "glow, rotations": Candidate(
        lambda d, hidden, rng: glow(d, COUPLINGS, hidden, masks=first_half, linear=random_rotation(rng))
    ),
    "nsf, rotations": Candidate(
        lambda d, hidden, rng: neural_spline_flow(
            d, SPLINE_COUPLINGS, hidden, masks=first_half, linear=random_rotation(rng)
        )
    ),
    "glow, normal base": Candidate(lambda d, hidden, _: glow(d, COUPLINGS, hidden, base=StandardNormal)),
    "spline-maf, no LU": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, linear=None)),
    "spline-maf, normal base": Candidate(
        lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, base=StandardNormal)
    ),
    "spline-maf, dropout": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, dropout=0.1)),
    "spline-maf, decay": _spline_maf(lambda training: replace(training, weight_decay=0.1)),
    "spline-maf, averaged": _spline_maf(lambda training: replace(training, averaging=0.99)),
    "spline-maf, slow": _spline_maf(lambda training: replace(training, learning_rate=1e-3)),
    "spline-maf, cosine": _spline_maf(lambda training: replace(training, annealing=1.0)),
    "spline-maf, not whitened": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, whiten=False)),
    "spline-maf, tanh": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, activation=nn.Tanh)),
    "glow, not whitened": Candidate(lambda d, hidden, _: glow(d, COUPLINGS, hidden, whiten=False)),
    "spline-maf, wide": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, (2 * hidden[0], 2 * hidden[1]))),
    "spline-maf, deep": Candidate(lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS + 2, hidden)),
    "spline-maf, bound 3": Candidate(
        lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, spline=RationalQuadratic(bound=3.0))
    ),
    "spline-maf, bound 10": Candidate(
        lambda d, hidden, _: spline_maf(d, SPLINE_LAYERS, hidden, spline=RationalQuadratic(bound=10.0))
    ),
    "spline-maf, marginals first": Candidate(
        lambda d, hidden, _: Flow(spline_maf(d, SPLINE_LAYERS, hidden), Chain(ActNorm(d), ElementwiseSpline(d)))
    ),
    "spline-maf, random orders": Candidate(
        lambda d, hidden, rng: spline_maf(d, SPLINE_LAYERS, hidden, orders=random_orders(rng))
    ),
    "nsf, random masks": Candidate(
        lambda d, hidden, rng: neural_spline_flow(d, SPLINE_COUPLINGS, hidden, masks=random_masks(rng))
    ),
    "nsf, halves": Candidate(lambda d, hidden, _: neural_spline_flow(d, SPLINE_COUPLINGS, hidden, masks=halves)),
    "spline-maf, twice the steps": _spline_maf(lambda training: replace(training, steps=2 * (training.steps or 0))),
}


def difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> Row:
    """The mean of log p by the first minus log p by the second, row by row, and its error."""
    return {"test_rows": len(first), **mean_and_error("difference", torch.from_numpy(first - second))}


def of_sides(ours: tuple[Path, ...], theirs: tuple[Path, ...], place: int) -> Row:
    """The model of each side that stands in that place by its held-out rows, one against the other on test rows."""
    chosen = [_ranked(side)[min(place, len(side) - 1)] for side in (ours, theirs)]
    return {"ours": chosen[0].stem, "theirs": chosen[1].stem, **difference(*(_values(path) for path in chosen))}


def _ranked(paths: tuple[Path, ...]) -> list[Path]:
    return sorted(paths, key=lambda path: -float(np.load(path)["held_out"]))


def _values(path: Path) -> NDArray[np.float64]:
    with np.load(path) as arrays:
        return np.asarray(arrays["log_p"], np.float64)
