"""What `latent_space` computes: projections by PPCA, VAE and flow, and what of neighbourhoods and classes they keep."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Generator, Tensor

from density import Training
from flows import Flow, glow
from lvm import PPCA, VAE
from studies.kit.compute import usable_device
from studies.kit.rows import Row, write_whole
from studies.kit.seeds import derived_seed

if TYPE_CHECKING:
    from studies.data.load import Dataset
    from studies.latent_space import Settings


@dataclass(frozen=True, eq=False)
class Found:
    """Standardised rows, their classes where they have any, and the flow, which every number of dimensions shares."""

    settings: Settings
    train: Tensor
    test: Tensor
    train_labels: Tensor | None
    test_labels: Tensor | None
    seed: int

    def generator(self, *purpose: str) -> Generator:
        return Generator(self.train.device).manual_seed(derived_seed(self.seed, "latent_space", *purpose))

    def training(self) -> Training:
        s = self.settings
        return Training(
            epochs=s.epochs, batch_size=s.batch_size, learning_rate=s.learning_rate, patience=s.patience, progress=False
        )

    @cached_property
    def flow(self) -> Flow:
        features, s = self.train.shape[1], self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, "latent_space", "flow"))
            start = Generator().manual_seed(derived_seed(self.seed, "latent_space", "rotations"))
            flow = glow(features, s.flow_layers, s.flow_hidden, generator=start)
        flow.fit(self.train, self.training(), generator=self.generator("flow"))
        return flow


def prepared(settings: Settings, data: Dataset, seed: int) -> Found:
    """Standardise by the training rows."""
    torch.set_num_threads(settings.threads)
    device, dtype = usable_device(settings.device), getattr(torch, settings.dtype)
    mean, std = data.train.mean(0), data.train.std(0)
    train, test = (torch.as_tensor((rows - mean) / std).to(device, dtype) for rows in (data.train, data.test))
    classes, of_test = (
        None if y is None else torch.as_tensor(np.asarray(y)).to(device) for y in (data.train_labels, data.test_labels)
    )
    return Found(settings, train, test, classes, of_test, seed)


def judge(found: Found, model: str, dimensions: int, path: Path) -> Row:
    """Project training and test rows, and say what is kept; the projected test rows go to a file."""
    with torch.no_grad():
        train, test, more = project(found, model, dimensions)
    k = found.settings.neighbours
    trust, kept = trustworthiness(found.test, test, k), trustworthiness(test, found.test, k)
    row: Row = {
        "features": found.train.shape[1],
        "epochs": found.settings.epochs,
        "trustworthiness": trust.mean().item(),
        "trustworthiness_error": _error(trust),
        "continuity": kept.mean().item(),
        "continuity_error": _error(kept),
        "points": str(path),
        **more,
    }
    if found.train_labels is not None and found.test_labels is not None:
        right = (voted(train, found.train_labels, test, k) == found.test_labels).double()
        row |= {"classes": right.mean().item(), "classes_error": _error(right)}
    else:
        row |= {"classes": math.nan, "classes_error": math.nan}
    labels = np.empty(0) if found.test_labels is None else found.test_labels.cpu().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, z=test[:, :2].float().cpu().numpy(), labels=labels)
    write_whole(path, buffer.getvalue())
    return row


def project(found: Found, model: str, dimensions: int) -> tuple[Tensor, Tensor, Row]:
    """Training and test rows in the latent dimensions of a model: ``[n, dimensions]``.

    PPCA and VAE by the mean of z given x; the flow by its latent, whole, or on its own leading principal directions.
    """
    features = found.train.shape[1]
    if model == "data":
        return found.train, found.test, {}
    if model == "ppca":
        ppca = PPCA(features, dimensions)
        ppca.fit(found.train)
        return ppca.encode(found.train), ppca.encode(found.test), {}
    if model == "vae":
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(derived_seed(found.seed, "latent_space", "vae", str(dimensions)))
            vae = VAE.gaussian(features, dimensions, hidden=found.settings.hidden, standardise=False)
            vae.fit(found.train, found.training(), generator=found.generator("vae", str(dimensions)))
        return vae.encode(found.train), vae.encode(found.test), {}
    with torch.enable_grad():
        flow = found.flow
    train, test = (flow.transform(rows)[0] for rows in (found.train, found.test))
    back, _ = flow.transform.inverse(test)
    more: Row = {"round_trip": (back - found.test).abs().max().item()}
    if dimensions == features:
        return train, test, more
    centred = (train - train.mean(0)).double()
    _, axes = torch.linalg.eigh(centred.mT @ centred)
    leading = axes.flip(1)[:, :dimensions].to(train)
    return train @ leading, test @ leading, more


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


def _error(values: Tensor) -> float:
    return (values.double().std() / math.sqrt(len(values))).item()
