"""What measuring parts share: the device, seeds, standardised rows, an optimiser, rules, cells, arrays on disk."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from density.fitting.optimisers import OptimiserOf
from flows import MaskedLinear
from studies.kit.errors import InputError
from studies.kit.rows import Row, write_whole
from studies.kit.seeds import derived_seed
from studies.kit.settings import CommonSettings


def place(settings: CommonSettings) -> tuple[torch.device, torch.dtype]:
    """Where and in what to compute; torch takes as many threads as the settings say.

    Raises:
        InputError: the device cannot be used.
    """
    torch.set_num_threads(settings.threads)
    dtype: torch.dtype = getattr(torch, settings.dtype)
    try:
        device = torch.device(settings.device)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {settings.device} cannot be used here ({reason}). Try --device cpu") from error
    return device, dtype


def seeded(device: torch.device, seed: int, *purpose: str) -> Generator:
    """Random numbers for one purpose, the same whatever else is computed."""
    return Generator(device).manual_seed(derived_seed(seed, *purpose))


@contextmanager
def seeded_start(seed: int, *purpose: str) -> Iterator[None]:
    """Networks start from torch's own generator, seeded here and put back: the same start on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, *purpose))
        yield


def chosen_rows(rows: int, most: int, seed: int, purpose: str) -> slice | NDArray[np.int64]:
    """All rows, or as many of them as allowed, drawn at random: the order of a file may mean something. 0: all."""
    if most == 0 or rows <= most:
        return slice(None)
    return np.random.default_rng(derived_seed(seed, purpose)).permutation(rows)[:most]


@dataclass(frozen=True, eq=False)
class Standardised:
    """Training and test rows in units of the training rows' standard deviations.

    Attributes:
        train, test: ``[n, D]``.
        mean, std: of the training rows ``[D]``.
        log_scale: what to add to a mean of log p of these rows for log p(x) in the units of the data.
    """

    train: Tensor
    test: Tensor
    mean: Tensor
    std: Tensor
    log_scale: float

    @classmethod
    def of(
        cls, settings: CommonSettings, train: NDArray[Any], test: NDArray[Any], log_scale: float = 0.0
    ) -> Standardised:
        """Rows ``[n, D]`` of data with a log-scale of its own, where and in what the settings say."""
        device, dtype = place(settings)
        mean, std = train.mean(0), train.std(0)
        fitted, judged = (torch.as_tensor((rows - mean) / std).to(device, dtype) for rows in (train, test))
        shift, scale = (torch.as_tensor(value).to(device, dtype) for value in (mean, std))
        return cls(fitted, judged, shift, scale, log_scale - float(np.log(std).sum()))

    def double(self) -> Standardised:
        """The same in float64."""
        return Standardised(self.train.double(), self.test.double(), self.mean, self.std, self.log_scale)


def adamw(decay: float) -> OptimiserOf:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def of(parameters: list[nn.Parameter], learning_rate: float) -> Optimizer:
        fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=decay, fused=fused)

    return of


def parameter_count(model: nn.Module) -> int:
    """Free parameters; a masked weight does not count."""
    masked = sum(int((~layer.mask).sum()) for layer in model.modules() if isinstance(layer, MaskedLinear))
    return sum(parameter.numel() for parameter in model.parameters()) - masked


def standard_error(values: Tensor) -> float:
    """Of the mean of values ``[n]``."""
    return (values.double().std() / math.sqrt(len(values))).item()


def mean_and_error(name: str, values: Tensor, shift: float = 0.0) -> Row:
    """The columns of a mean of values ``[n]``, shifted, and of its standard error, which ``tables.averaged`` knows.

    >>> mean_and_error("gap", torch.tensor([1.0, 3.0]), shift=0.5)
    {'gap': 2.5, 'gap_error': 1.0}
    """
    return {name: values.mean().item() + shift, f"{name}_error": standard_error(values)}


def gauss_hermite(dimensions: int, nodes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rule for means over N(0, I): places ``[N, d]`` and masses ``[N]``, N = nodesᵈ, of the kind of a tensor.

    Exact for polynomials of degree 2 nodes − 1 in each variable.

    >>> places, masses = gauss_hermite(2, 3, torch.zeros(1).double())
    >>> (masses @ places.pow(4)).tolist()  # E ε⁴ = 3
    [3.0000, 3.0000]
    """
    place, mass = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    places = torch.cartesian_prod(*[place] * dimensions).reshape(-1, dimensions)
    masses = torch.cartesian_prod(*[mass / mass.sum()] * dimensions).reshape(-1, dimensions).prod(1)
    return places.to(like), masses.to(like)


def curve(numbers: Sequence[float], digits: int) -> str:
    """Numbers of so many significant digits in one cell of a row, as ``tables.series`` reads them.

    >>> curve([1, 2 / 3], digits=4)
    '1 0.6667'
    """
    return " ".join(f"{number:.{digits}g}" for number in numbers)


def save_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write arrays to an .npz, whole or not at all."""
    buffer, named = io.BytesIO(), dict[str, Any](arrays)
    np.savez_compressed(buffer, **named)
    write_whole(path, buffer.getvalue())
