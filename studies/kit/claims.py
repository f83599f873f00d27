"""Claims about log p(x) on disk, so that models fitted in different runs can be compared point by point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from density import Kind, LogDensity, Measure
from studies.kit.compute import save_arrays


def save_claim(path: Path, claim: LogDensity, elbo: Tensor | None = None) -> None:
    """Write a claim's values, errors, kind, method and measure to an .npz, whole or not at all.

    With it goes the ELBO ``[n]`` at the same points, where it is a number of its own.
    """
    error = claim.monte_carlo_error
    save_arrays(
        path,
        value=claim.value.double().cpu().numpy(),
        monte_carlo_error=np.empty(0) if error is None else error.double().cpu().numpy(),
        kind=np.array(claim.kind.value),
        method=np.array(claim.method),
        measure=np.array(claim.measure.value),
        elbo=np.empty(0) if elbo is None else elbo.double().cpu().numpy(),
    )


def load_claim(path: Path) -> LogDensity:
    """Inverse of :func:`save_claim`, in float64 on the CPU."""
    with np.load(path, allow_pickle=False) as archive:
        error = archive["monte_carlo_error"]
        return LogDensity(
            torch.as_tensor(archive["value"]),
            Kind(str(archive["kind"])),
            str(archive["method"]),
            torch.as_tensor(error) if error.size else None,
            measure=Measure(str(archive["measure"])),
        )


def load_elbo(path: Path) -> Tensor | None:
    """The ELBO ``[n]`` beside a claim; None if there is none."""
    with np.load(path, allow_pickle=False) as archive:
        elbo = archive["elbo"] if "elbo" in archive else np.empty(0)
        return torch.as_tensor(elbo) if elbo.size else None
