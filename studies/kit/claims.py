"""Claims about log p(x): on disk, so that models fitted in different runs can be compared; and of training rows."""

from __future__ import annotations

import math
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from density import Bound, ExactModel, Kind, LogDensity, Model
from density.data.points import Points
from density.measure import measure_named
from lvm import PPCA, GaussianMixture
from lvm.evidence import gap
from studies.kit.compute import save_arrays
from studies.kit.rows import Row


def save_claim(path: Path, claim: LogDensity, elbo: Tensor | None = None) -> None:
    """Write a claim's values, errors, kind, confidence, method, measure and points to an .npz, whole or not at all.

    With it goes the ELBO ``[n]`` at the same points, where it is a number of its own.
    """
    save_arrays(
        path,
        value=claim.value.double().cpu().numpy(),
        monte_carlo_error=_numbers(claim.monte_carlo_error),
        numerical_error=_numbers(claim.numerical_error),
        kind=np.array(claim.kind.value),
        method=np.array(claim.method),
        confidence=np.array(math.nan if claim.confidence is None else claim.confidence),
        measure=np.array(claim.measure.value),
        points=np.empty(0) if claim.points is None else np.array(astuple(claim.points), dtype=np.uint64),
        elbo=_numbers(elbo),
    )


def _numbers(values: Tensor | None) -> NDArray[np.float64]:
    return np.empty(0) if values is None else values.double().cpu().numpy()


def load_claim(path: Path) -> LogDensity:
    """Inverse of :func:`save_claim`, in float64 on the CPU. Older files know no points and no errors of quadrature."""
    with np.load(path, allow_pickle=False) as archive:
        error = archive["monte_carlo_error"]
        numerical = archive["numerical_error"] if "numerical_error" in archive else np.empty(0)
        points = archive["points"] if "points" in archive else np.empty(0)
        confidence = float(archive["confidence"]) if "confidence" in archive else math.nan
        return LogDensity(
            torch.as_tensor(archive["value"]),
            Kind(str(archive["kind"])),
            str(archive["method"]),
            torch.as_tensor(error) if error.size else None,
            torch.as_tensor(numerical) if numerical.size else None,
            confidence=None if math.isnan(confidence) else confidence,
            measure=measure_named(str(archive["measure"])),
            points=Points(*points.tolist()) if points.size else None,
        )


def load_elbo(path: Path) -> Tensor | None:
    """The ELBO ``[n]`` beside a claim; None if there is none."""
    with np.load(path, allow_pickle=False) as archive:
        elbo = archive["elbo"] if "elbo" in archive else np.empty(0)
        return torch.as_tensor(elbo) if elbo.size else None


def train_less_test(model: Model, train: Tensor, test_values: Tensor, draws: int, generator: Generator | None) -> Row:
    """By how much more a model says of training rows ``[m, D]`` than of test rows, and the error of that.

    Like is compared with like, in the coordinates of the fit: log p where the model knows it (of what is there, where
    values are missing), else the ELBO.

    Args:
        test_values: log p, or the ELBO, of each test row ``[n]``.
        draws: latent draws for each row of the ELBO.
    """
    if isinstance(model, PPCA | GaussianMixture) and bool(train.isnan().any()):
        values = model.observed.log_density(train).value
    elif isinstance(model, ExactModel):
        values = model.log_density(train).value
    else:
        assert isinstance(model, Bound)
        values = gap(model, train, draws=draws, generator=generator).elbo.value
    ours, theirs = values.double(), test_values.double()
    error = math.sqrt(ours.var().item() / len(ours) + theirs.var().item() / len(theirs))
    return {"overfitting": ours.mean().item() - theirs.mean().item(), "overfitting_error": error}
