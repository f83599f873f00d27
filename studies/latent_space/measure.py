"""What `latent_space` measures: what projections by PPCA, VAE and flow keep of neighbourhoods and classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from density import PerFeatureScale, StandardNormal, Training
from flows import Flow, first_half, glow, random_rotation
from lvm import PPCA, VAE
from studies.data.load import Dataset
from studies.kit.compute import Standardised, mean_and_error, save_arrays, seeded, seeded_start
from studies.kit.rows import Row
from studies.kit.study import Task
from studies.latent_space.settings import Key, Settings


def measure(settings: Settings, task: Task[Key, Dataset]) -> Row:
    """Project training and test rows, and say what is kept; the projected test rows go to a file."""
    key, data, rows, k = task.key, task.data, standardised(settings, task.data), settings.neighbours
    project = projection(settings, rows, key)
    with torch.no_grad():
        train, test = project(rows.train), project(rows.test)
    trust, kept = trustworthiness(rows.test, test, k), trustworthiness(test, rows.test, k)
    (path,) = task.makes
    row: Row = {
        "test_rows": len(rows.test),
        "features": data.features,
        "epochs": settings.epochs,
        **mean_and_error("trustworthiness", trust),
        **mean_and_error("continuity", kept),
        "points": str(path),
        "classes": math.nan,
        "classes_error": math.nan,
    }
    labels = np.empty(0) if data.test_labels is None else data.test_labels
    if data.train_labels is not None:
        kinds, truth = (torch.as_tensor(np.asarray(of)).to(test.device) for of in (data.train_labels, labels))
        right = (voted(train, kinds, test, k) == truth).double()
        row |= mean_and_error("classes", right)
    if key.model == "flow":
        row["round_trip"] = round_trip(fitted_flow(settings, rows, key.seed), rows.test)
    named = np.array(data.classes)[labels] if data.classes else labels
    save_arrays(path, z=test[:, :2].float().cpu().numpy(), labels=named)
    return row


@lru_cache(maxsize=1)  # for all rows of a seed
def standardised(settings: Settings, data: Dataset) -> Standardised:
    """In units of the training rows' spread."""
    return Standardised.of(settings, data.train, data.test)


def projection(settings: Settings, rows: Standardised, key: Key) -> Callable[[Tensor], Tensor]:
    """The map to the latent dimensions of a model, ``[n, D]`` to ``[n, dimensions]``.

    PPCA and VAE by the mean of z given x; the flow by its latent, whole, or on its own leading principal directions.
    """
    features, dimensions = rows.train.shape[1], key.dimensions
    match key.model:
        case "data":
            return lambda x: x
        case "ppca":
            ppca = PPCA(features, dimensions)
            ppca.fit(rows.train)
            return ppca.encode
        case "vae":
            with seeded_start(key.seed, "latent_space", "vae", str(dimensions)):
                scale = PerFeatureScale(features)
                vae = VAE.gaussian(features, dimensions, hidden=settings.hidden, scale=scale, standardise=False)
            fit(vae, settings, rows, key.seed, "vae", str(dimensions))
            return vae.encode
        case "flow":
            whitened = fitted_flow(settings, rows, key.seed).transform
            if dimensions == features:
                return lambda x: whitened(x)[0]
            with torch.no_grad():
                z = whitened(rows.train)[0]
            centred = (z - z.mean(0)).double()
            _, axes = torch.linalg.eigh(centred.mT @ centred)
            leading = axes.flip(1)[:, :dimensions].to(z)
            return lambda x: whitened(x)[0] @ leading


@lru_cache(maxsize=1)  # for every number of dimensions
def fitted_flow(settings: Settings, rows: Standardised, seed: int) -> Flow:
    """The flow of a seed."""
    rotations = seeded(torch.device("cpu"), seed, "latent_space", "rotations")
    with seeded_start(seed, "latent_space", "flow"):
        flow = glow(
            rows.train.shape[1],
            settings.flow_layers,
            settings.flow_hidden,
            masks=first_half,
            linear=random_rotation(rotations),
            whiten=False,
            base=StandardNormal,
        )
    fit(flow, settings, rows, seed, "flow")
    return flow


def fit(model: VAE | Flow, settings: Settings, rows: Standardised, seed: int, *purpose: str) -> None:
    """Train a model as the settings say."""
    training = Training(
        settings.epochs, settings.batch_size, settings.learning_rate, annealing=1, patience=settings.patience,
        patient_steps=0, progress=False,
    )  # fmt: skip
    model.fit(rows.train, training, generator=seeded(rows.train.device, seed, "latent_space", *purpose))


@torch.no_grad()
def round_trip(flow: Flow, x: Tensor) -> float:
    """How far x comes back from where its latent is, at most."""
    return (flow.transform.inverse(flow.transform(x)[0])[0] - x).abs().max().item()


def trustworthiness(data: Tensor, embedded: Tensor, k: int) -> Tensor:
    r"""How far the k neighbours that each point has in the embedding were neighbours before, in [0, 1]: ``[n]``.

    .. math:: 1 - \frac{2}{k(2n - 3k - 1)} \sum_{j \in N_k(i)} \max(0,\ r(i, j) - k)

    with r the rank of j among the neighbours of i in the data (Venna & Kaski 2001); its mean is their measure. With the
    arguments exchanged it is the continuity. O(n²D + n² log n).
    """
    n = len(data)
    k = min(k, (n - 1) // 2)
    ranks = _distances(data).argsort(1).argsort(1) + 1
    near = _distances(embedded).topk(k, largest=False).indices
    excess = (ranks.gather(1, near) - k).clamp_min(0).sum(1).double()
    return 1 - 2 * excess / (k * (2 * n - 3 * k - 1))


def voted(train: Tensor, labels: Tensor, test: Tensor, k: int) -> Tensor:
    """The class that most of the k nearest training rows have, for every test row; the lowest of equals."""
    near = torch.cdist(test.double(), train.double()).topk(min(k, len(train)), largest=False).indices
    kinds, index = labels.unique(return_inverse=True)
    votes = torch.nn.functional.one_hot(index[near], len(kinds)).sum(1)
    return kinds[votes.argmax(1)]


def _distances(x: Tensor) -> Tensor:
    return torch.cdist(x.double(), x.double()).fill_diagonal_(math.inf)
