"""The models of `survae`: one flow, and what surjections put before it."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor, nn

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
from density import ConditionalBernoulli, StandardNormal, Training, mlp
from flows import Affine, AffineCoupling, Chain, Logit, Transform
from studies.data.raw import Array
from studies.data.survae_patterns import toys
from studies.kit.rows import Row, write_whole
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.survae import ModelName, Settings, ToyName

EDGE = 4.0  # of the bounded toys
MARGIN = 1e-6  # a logit ends before the edge, where single precision would round onto it
GRID = np.linspace(-4.2, 4.2, 211)


def build(name: ModelName, features: int, bounded: bool, settings: Settings) -> TightLayeredModel | LooseLayeredModel:
    """A model of points in D dimensions; the couplings are alike in all of them."""
    couplings: list[Transform] = [
        AffineCoupling(torch.arange(features) % 2 == layer % 2, settings.hidden) for layer in range(settings.layers)
    ]
    prior = StandardNormal(features)
    if name == "abs-flow":
        folds = [
            Abs(features, [column], ConditionalBernoulli(mlp(features, 1, settings.hidden), 1, features))
            for column in range(features)
        ]
        to_reals = [Affine(0.0, EDGE * (1 + MARGIN)), Logit()] if bounded else [InverseSoftplus()]
        return layered(prior, LinkChain(*folds, DeltaLink(Chain(*to_reals, *couplings))))
    if name == "sort-flow":
        return layered(prior, LinkChain(Sort(features), DeltaLink(Chain(Spacings(features), *couplings))))
    edge = EDGE * (1 + MARGIN)
    box = [Affine(-edge, 2 * edge), Logit()] if bounded else []
    flow = DeltaLink(Chain(*box, *couplings))
    if name == "permute-flow":
        return layered(prior, LinkChain(StochasticPermutation(features), flow))
    return layered(prior, flow)


def fit_and_judge(settings: Settings, toy_name: ToyName, name: ModelName, seed: int, path: Path) -> Row:
    """Fit one model to one toy and compare it with the truth, point by point; its density on a grid goes to a file."""
    torch.set_num_threads(settings.threads)
    toy = toys()[toy_name]
    dtype = getattr(torch, settings.dtype)
    source = np.random.default_rng(derived_seed(seed, "points", toy_name))
    points = toy.sample(settings.train_rows + settings.test_rows, source)
    train, test = points[: settings.train_rows], points[settings.train_rows :]
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "start", toy_name, name))
        model = build(name, points.shape[1], toy.bounded, settings)
    generator = Generator(settings.device).manual_seed(derived_seed(seed, "fit", toy_name, name))
    model.fit(torch.as_tensor(train).to(settings.device, dtype), training(settings), generator=generator)
    fitted = time.perf_counter()
    claim = model.log_density(
        torch.as_tensor(test).to(settings.device, dtype), draws=settings.draws, generator=generator
    )
    truth = toy.log_density(test)
    shortfall = truth - claim.value.double().cpu().numpy()
    grid = _on_grid(model, dtype, settings.device) if points.shape[1] == 2 else np.empty(0)
    _save(path, shortfall, grid)
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


def _on_grid(model: nn.Module, dtype: torch.dtype, device: str) -> Array:
    """The density at the nodes of the picture, 0 outside the support."""
    assert isinstance(model, TightLayeredModel)
    nodes = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 2) + 1e-4
    inside = np.abs(nodes).max(1) < EDGE
    density = np.zeros(len(nodes))
    with torch.no_grad():
        x: Tensor = torch.as_tensor(nodes[inside]).to(device, dtype)
        density[inside] = model.log_prob(x).exp().double().cpu().numpy()
    return density.reshape(len(GRID), len(GRID))


def _save(path: Path, shortfall: Array, grid: Array) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, shortfall=shortfall, grid=grid)
    write_whole(path, buffer.getvalue())


def compare(a: Path, b: Path) -> Row:
    """How much better the first is than the second: paired, nats."""
    with np.load(a) as first, np.load(b) as second:
        gain = second["shortfall"] - first["shortfall"]
    return {"excess": float(-gain.mean()), "excess_error": float(gain.std() / np.sqrt(len(gain)))}


def training(settings: Settings) -> Training:
    """Adam on all rows, falling to 0 along half a cosine; the last weights are kept."""
    return Training(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        validation=0,
        progress=False,
    )
