"""Fits of mixtures for other processes.

``mixture_fits.py killed NAME FOLDER`` for :mod:`tests.density.fitting.kill`, and for torchrun ``mixture_fits.py shared
FOLDER``, where every process writes what it found to ``RANK.pt``.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

import lvm.mixture.expectation
from density import Checkpoint, History
from density.data.chunks import Chunks
from density.parallel import processes
from lvm import EM, Diagonal, Full, GaussianMixture, Given, RandomPoints, Spherical, StochasticEM, Tied
from lvm.mixture.fit import Algorithm

DIRECT = EM(max_iterations=25, tolerance=0.0, restarts=3, start=RandomPoints(), progress=False)
STOCHASTIC = StochasticEM(epochs=12, batch_size=40, restarts=2, start=RandomPoints(), progress=False)
FITS: dict[str, Algorithm] = {"em": DIRECT, "stochastic em": STOCHASTIC}


def rows(n: int = 600) -> Tensor:
    generator = Generator().manual_seed(5)
    centres = 3 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return centres[torch.arange(n) % 4] + torch.randn(n, 3, generator=generator, dtype=torch.float64) + 1e3


def fit(name: str, path: Path | None, *, times: int = 1) -> tuple[dict[str, Tensor], History]:
    """Weights and history of a fit, longer by ``times``, with a checkpoint after every step."""
    algorithm = FITS[name]
    if isinstance(algorithm, EM):
        algorithm = replace(algorithm, max_iterations=times * algorithm.max_iterations)
    elif isinstance(algorithm, StochasticEM):
        algorithm = replace(algorithm, epochs=times * algorithm.epochs)
    algorithm = replace(algorithm, checkpoint=None if path is None else Checkpoint(path, steps=1))  # type: ignore[type-var]
    torch.manual_seed(0)
    model = GaussianMixture(3, 4)
    history = model.fit(rows(), em=algorithm, generator=Generator().manual_seed(7))
    return {name: value.clone() for name, value in model.state_dict().items()}, history


def found() -> dict[str, Any]:
    """Parameters and objectives of all sorts of fits, on however many processes there are."""
    x = rows(301)
    weights = torch.rand(301, generator=Generator().manual_seed(1), dtype=torch.float64) + 0.5
    em = EM(max_iterations=5, tolerance=0.0, progress=False)
    results: dict[str, Any] = {}

    def keep(name: str, model: GaussianMixture, objective: list[float]) -> None:
        results[name] = [
            torch.tensor(objective, dtype=torch.float64),
            *(p.detach().clone() for p in model.parameters()),
        ]

    for covariance in (Full(), Tied(), Diagonal(), Spherical()):
        for few in (0, 2**14):  # by features, and by residuals
            lvm.mixture.expectation.FEWEST_RESIDUALS = few
            model = GaussianMixture(3, 4, covariance)
            keep(
                f"{covariance} {few}",
                model,
                model.fit(x, em=em, weights=weights, generator=Generator().manual_seed(3)).objective,
            )
    model = GaussianMixture(3, 4)
    keep(
        "chunks",
        model,
        model.fit([x[:100], x[100:101], x[101:]], em=em, generator=Generator().manual_seed(3)).objective,
    )
    pairs = Chunks([(x[:200], weights[:200]), (x[200:], weights[200:])], weighted=True)
    keep("pairs", model, model.fit(pairs, em=em, generator=Generator().manual_seed(3)).objective)
    algorithm = replace(STOCHASTIC, epochs=3)
    keep("stochastic", model, model.fit(x, em=algorithm, generator=Generator().manual_seed(3)).objective)
    start = Given(x[:4])
    keep("few rows", model, model.fit(x[:5], em=replace(em, start=start, regularisation=0.5)).objective)
    return results


def unseeded() -> list[Tensor]:
    """A fit whose start every process would draw differently."""
    torch.manual_seed(processes.rank())
    model = GaussianMixture(3, 4)
    model.fit(rows(), em=replace(DIRECT, restarts=2, max_iterations=3))
    stochastic = GaussianMixture(3, 4)
    stochastic.fit(rows(), em=replace(STOCHASTIC, epochs=2))
    return [p.detach() for p in (*model.parameters(), *stochastic.parameters())]


def resumed(folder: Path) -> dict[str, Any]:
    """A fit with a checkpoint, of which the first process alone writes, cut and gone on with."""
    weights, history = fit("em", folder / "fit.ckpt")
    again, _ = fit("em", folder / "fit.ckpt")
    return {"weights": list(weights.values()), "again": list(again.values()), "objective": history.objective}


if __name__ == "__main__":
    if sys.argv[1] == "killed":
        name, folder = sys.argv[2], Path(sys.argv[3])
        weights, history = fit(name, folder / "fit.ckpt", times=int(sys.argv[4]))
        torch.save({"weights": weights, "history": {**asdict(history), "seconds": 0.0}}, folder / "result.pt")
    else:
        folder = Path(sys.argv[2])
        with processes.joined():
            results = {"found": found(), "unseeded": unseeded(), "resumed": resumed(folder)}
            torch.save(results, folder / f"{processes.rank()}.pt")
