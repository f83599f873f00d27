"""A fit with frequent checkpoints, for :mod:`tests.density.fitting.kill`: ``killed_fits.py MODEL FOLDER [EPOCHS]``.

Without a folder's checkpoint it starts anew; at its end it writes weights and history to ``result.pt`` in the folder.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, TensorDataset

from density import Checkpoint, History, Model, Training, constant, lbfgs
from density.data.chunks import Chunks
from flows import real_nvp
from lvm import VAE

STEPS = 3


def rows(n: int = 400) -> Tensor:
    return torch.randn(n, 4, generator=Generator().manual_seed(5), dtype=torch.float64).cumsum(1)


def flow() -> Model:
    torch.manual_seed(0)
    return real_nvp(4, 2, (16,))


def vae() -> Model:
    torch.manual_seed(0)
    return VAE.gaussian(4, 2, hidden=(16,))


FITS = {
    "flow": (flow, Training(batch_size=32, learning_rate=1e-2, validation=0.2, progress=False)),
    "vae": (vae, Training(batch_size=32, learning_rate=1e-2, validation=0.2, progress=False)),
    "lbfgs": (
        flow,
        Training(batch_size=None, learning_rate=1.0, validation=0, optimiser=lbfgs, schedule=constant, progress=False),
    ),
    "stream": (flow, Training(batch_size=32, learning_rate=1e-2, validation=0.2, progress=False)),
}


def fit(name: str, model: Model, training: Training) -> History:
    """Fit it to the rows; a stream of them has weights, and a loader that shuffles by a generator of its own."""
    data = TensorDataset(rows(), rows()[:, 0].abs() + 0.1)
    loader = DataLoader(data, batch_size=9, shuffle=True, generator=Generator().manual_seed(1))
    x = Chunks(loader, weighted=True) if name == "stream" else rows()
    return model.fit(x, training, generator=Generator().manual_seed(7))  # type: ignore[call-arg, arg-type]


def settings(name: str, path: Path | None, **changes: object) -> Training:
    """The settings of a fit, with a checkpoint at a path every few steps."""
    checkpoint = None if path is None else Checkpoint(path, steps=1 if name == "lbfgs" else STEPS)
    given = {**{k: v for k, v in vars(FITS[name][1]).items()}, "checkpoint": checkpoint, **changes}
    return Training(**given)  # type: ignore[arg-type]


if __name__ == "__main__":
    name, folder, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    model = FITS[name][0]()
    history = fit(name, model, settings(name, folder / "fit.ckpt", epochs=epochs))
    record = {**asdict(history), "seconds": 0.0}
    torch.save({"weights": dict(model.state_dict()), "history": record}, folder / "result.pt")
