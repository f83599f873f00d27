"""Fits and claims that are the same on one process as on several: ``sharded_runs.py FOLDER PARTS [lost]``.

Every process writes what it found to ``RANK.pt`` in the folder. With ``lost``, the last process dies in the middle of a
fit, and the others write how that ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from density import Checkpoint, Kind, LogDensity, NonFiniteObjective, Training, lbfgs, maximise, sharded
from density.data.chunks import Chunks
from density.importance.bound import importance
from density.parallel import processes
from flows import real_nvp
from lvm import VAE

# 61 rows: no batch of 16 and no held-out set divides evenly, and the last batch of an epoch has a single row.
TRAINING = Training(epochs=3, batch_size=16, learning_rate=1e-2, validation=0.2, progress=False)
KILLED_AT = 30  # calls of a linear layer; a step makes four


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(61, 3, generator=Generator().manual_seed(5), dtype=torch.float64).cumsum(1).to(dtype)


def loader(x: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    """Rows with weights, in an order that is another one on every process, of which the first's counts."""
    shuffling = Generator().manual_seed(processes.rank())
    return DataLoader(TensorDataset(x, x[:, 0].abs() + 0.1), batch_size=7, shuffle=True, generator=shuffling)


def generator() -> Generator:
    return Generator().manual_seed(7)


class Unused(nn.Module):
    """A parameter without gradient, a network with dropout, and an objective that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 3)).double()
        self.idle = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def objective(self, batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        noise = torch.randn(batch[0].shape, generator=generator, dtype=torch.float64)
        return -(self.net(batch[0] + noise) - batch[0]).square().sum(-1)


def decayed(parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.1)


def training(parts: int, **changes: Any) -> Training:  # noqa: ANN401
    return Training(**{**vars(TRAINING), "parts": parts, **changes})


def found(parts: int) -> dict[str, Any]:
    """Weights, histories and claims, by name; the models start differently on every process, and end alike."""
    results: dict[str, Any] = {}
    x = rows()

    def keep(name: str, model: nn.Module, history: Any) -> None:  # noqa: ANN401
        results[name] = dict(model.state_dict()), history.objective, history.validation, history.best

    torch.manual_seed(processes.rank())
    flow, vae, idle = real_nvp(3, 2, (8,)), VAE.gaussian(3, 2, hidden=(8,)), Unused()
    keep("flow", flow, flow.fit(x, training(parts), generator=generator()))
    keep("vae", vae, vae.fit(x, training(parts, validation=0.0, patience=1), generator=generator()))
    full = training(parts, optimiser=lbfgs, batch_size=None, learning_rate=1.0, epochs=1, clip=None)
    newton = real_nvp(3, 2, (4,))
    keep("lbfgs", newton, newton.fit(x, full, generator=generator()))
    # Weight decay would move an idle parameter whose gradient is zero rather than none. Torch's own generator draws.
    fit = maximise(idle, idle.objective, (x,), training(parts, optimiser=decayed, batch_size=7))
    keep("unused", idle, fit)
    again = real_nvp(3, 2, (8,))
    every = training(
        parts, epochs=8, averaging=0.9, weight_decay=0.5, refit=True, patience=1, patient_steps=0, learning_rate=0.1
    )
    keep("annealed, averaged and refitted", again, again.fit(x, every, generator=generator()))
    single = real_nvp(3, 2, (4,)).float()
    keep("float32", single, single.fit(rows(torch.float32), training(parts), generator=generator()))
    weighted = Chunks(loader(x), weighted=True)
    stopping = training(parts, epochs=9, callback=lambda history: len(history.objective) == 3)
    streamed = VAE.gaussian(3, 2, hidden=(8,))
    keep("stream", streamed, streamed.fit(weighted, stopping, validation=x[:20], generator=generator()))
    one_row = real_nvp(3, 2, (4,))
    keep("one row", one_row, one_row.fit(x[:1], training(parts, epochs=2), generator=generator()))

    def claim(rows: Tensor, stream: Generator | None) -> LogDensity:
        return importance(vae, rows, draws=20, generator=stream)

    claims = sharded(claim, x, parts=parts, generator=generator()), sharded(claim, x[:1], parts=parts)
    for name, value in zip(("claim", "claim of one point"), claims, strict=True):
        assert value.method == "importance-weighted bound, 20 draws"
        assert value.kind is Kind.LOWER
        assert value.weights is not None
        results[name] = value.value, value.monte_carlo_error, value.weights.pareto_k
    return results


def refused(parts: int) -> dict[str, str]:
    """What every process is told about fits that differ between processes, and about objectives that break in one."""
    own = rows() + processes.rank()

    def breaking(batch: tuple[Tensor, ...], generator: Generator | None) -> Tensor:
        value = flow.log_prob(batch[0])
        return value * torch.nan if processes.rank() == 1 else value

    def claim(x: Tensor, stream: Generator | None) -> LogDensity:
        return flow.log_density(x * (torch.nan if processes.rank() == 1 else 1))

    flow = real_nvp(3, 2, (4,)).double()
    attempts: dict[str, tuple[type[Exception], Callable[[], object]]] = {
        "data": (ValueError, lambda: flow.fit(own, training(parts))),
        "settings": (ValueError, lambda: flow.fit(rows(), training(parts, epochs=1 + processes.rank()))),
        "parts": (ValueError, lambda: flow.fit(rows(), training(1))),
        "parts of a claim": (ValueError, lambda: sharded(claim, rows(), parts=1)),
        "a claim": (ValueError, lambda: sharded(claim, rows())),
        "non-finite": (NonFiniteObjective, lambda: maximise(flow, breaking, (rows(),), training(parts))),
    }
    told = {}
    for name, (error, attempt) in attempts.items():
        try:
            attempt()
        except error as raised:
            told[name] = str(raised)
    return told


def losing(folder: Path | None, parts: int, dies: bool) -> tuple[VAE, Any]:
    """A VAE's fit with a checkpoint at every step, in which the last process dies."""
    torch.manual_seed(0)
    vae, calls = VAE.gaussian(3, 2, hidden=(8,)), 0

    def dying(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    if dies:
        for module in vae.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(dying)
    checkpoint = None if folder is None else Checkpoint(folder / "fit.ckpt", steps=1)
    return vae, vae.fit(rows(), training(parts, checkpoint=checkpoint), generator=generator())


if __name__ == "__main__":
    folder, parts = Path(sys.argv[1]), int(sys.argv[2])
    with processes.joined():
        result: Any
        if "lost" in sys.argv:
            try:
                losing(folder, parts, dies=processes.rank() == processes.world() - 1)
                result = "nothing happened"
            except processes.ProcessLost as error:
                torch.save(str(error), folder / f"{processes.rank()}.pt")
                os._exit(0)  # gloo's threads still wait for the lost process, and may abort an interpreter that ends
        else:
            result = {"found": found(parts), "refused": refused(parts)}
        torch.save(result, folder / f"{processes.rank()}.pt")
