"""What `survae` measures: one flow, and what surjections put before it, against densities that are known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bridge import (
    Abs,
    DeltaLink,
    InverseSoftplus,
    LinkChain,
    LooseLayeredModel,
    Sort,
    Spacings,
    StochasticPermutation,
    TightLayeredModel,
    layered,
)
from density import ConditionalBernoulli, Density, StandardNormal, Training, mlp
from flows import Affine, AffineCoupling, Chain, Logit, Transform
from studies.data.raw import Array
from studies.data.survae_patterns import toys
from studies.kit.compute import place, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.seeds import derived_seed
from studies.kit.study import Task
from studies.survae.settings import Key, ModelName, Settings

EDGE = 4.0  # of the bounded toys
MARGIN = 1e-6  # a logit ends before the edge, where single precision would round onto it
GRID = np.linspace(-4.2, 4.2, 211)


def measure(settings: Settings, task: Task[Key, None]) -> Row:
    """The columns of a row."""
    return compare(*task.needs) if task.key.versus else judge(settings, task.key, *task.makes)


def build(name: ModelName, features: int, bounded: bool, settings: Settings) -> TightLayeredModel | LooseLayeredModel:
    """A model of points in D dimensions; the couplings are alike in all of them."""
    couplings: list[Transform] = [
        AffineCoupling(torch.arange(features) % 2 == layer % 2, settings.hidden) for layer in range(settings.layers)
    ]
    prior, edge = StandardNormal(features), EDGE * (1 + MARGIN)
    box = [Affine(-edge, 2 * edge), Logit()] if bounded else []
    match name:
        case "flow":
            return layered(prior, DeltaLink(Chain(*box, *couplings)))
        case "abs-flow":
            folds = [
                Abs(features, [column], ConditionalBernoulli(mlp(features, 1, settings.hidden), 1, features))
                for column in range(features)
            ]
            to_reals = [Affine(0.0, edge), Logit()] if bounded else [InverseSoftplus()]
            return layered(prior, LinkChain(*folds, DeltaLink(Chain(*to_reals, *couplings))))
        case "sort-flow":
            return layered(prior, LinkChain(Sort(features), DeltaLink(Chain(Spacings(features), *couplings))))
        case "permute-flow":
            return layered(prior, LinkChain(StochasticPermutation(features), DeltaLink(Chain(*box, *couplings))))


def judge(settings: Settings, key: Key, path: Path) -> Row:
    """Fit one model to one toy and compare it with the truth, point by point; its density on a grid goes to a file."""
    (device, dtype), toy = place(settings), toys()[key.toy]
    source = np.random.default_rng(derived_seed(key.seed, "points", key.toy))
    points = toy.sample(settings.train_rows + settings.test_rows, source)
    train, test = points[: settings.train_rows], points[settings.train_rows :]
    started = time.perf_counter()
    with seeded_start(key.seed, "start", key.toy, key.model):
        model = build(key.model, points.shape[1], toy.bounded, settings)
    training = Training(
        settings.epochs, settings.batch_size, settings.learning_rate, annealing=1, validation=0, progress=False
    )
    generator = seeded(device, key.seed, "fit", key.toy, key.model)
    model.fit(torch.as_tensor(train).to(device, dtype), training, generator=generator)
    fitted = time.perf_counter()
    x = torch.as_tensor(test).to(device, dtype)
    claim = model.log_density(x, draws=settings.draws, generator=generator)
    shortfall = toy.log_density(test) - claim.value.double().cpu().numpy()
    grid = on_grid(model, x) if isinstance(model, TightLayeredModel) and points.shape[1] == 2 else np.empty(0)
    save_arrays(path, shortfall=shortfall, grid=grid)
    return {
        "train_rows": len(train),
        "test_rows": len(test),
        "features": points.shape[1],
        "entropy": float(toy.entropy),
        "nats": -claim.mean,
        "standard_error": claim.standard_error,
        "monte_carlo_error": claim.mean_monte_carlo_error,
        "kind": claim.kind.value,
        "method": claim.method,
        "excess": float(shortfall.mean()),
        "excess_error": float(shortfall.std() / np.sqrt(len(test))),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": fitted - started,
        "points": str(path),
    }


@torch.no_grad()
def on_grid(model: Density, like: Tensor) -> Array:
    """The density at the nodes of the picture, 0 outside the support."""
    nodes = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 2) + 1e-4
    inside = np.abs(nodes).max(1) < EDGE
    density = np.zeros(len(nodes))
    density[inside] = model.log_prob(torch.as_tensor(nodes[inside]).to(like)).exp().double().cpu().numpy()
    return density.reshape(len(GRID), len(GRID))


def compare(a: Path, b: Path) -> Row:
    """How much better the first is than the second: paired, nats."""
    with np.load(a) as first, np.load(b) as second:
        gain = second["shortfall"] - first["shortfall"]
    error = float(gain.std() / np.sqrt(len(gain)))
    return {"test_rows": len(gain), "excess": float(-gain.mean()), "excess_error": error}
