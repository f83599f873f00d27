"""All jobs in order of worth: what the bars of an accelerator are about comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.autoencoder import Size, autoencoders
from benchmarks.flows import autoregressive_inverse, compiled_couplings, couplings, reflections, splines
from benchmarks.images import glows
from benchmarks.mixture import Shape, mixtures
from benchmarks.principal_components import analyses
from benchmarks.timing import Race
from lvm import Diagonal, Full
from lvm.mixture.covariance import Covariance

COMPILING = 60.0  # seconds, of two functions


@dataclass(frozen=True)
class Job:
    """Races of one making.

    Attributes:
        room: the word that asks for it on the command line.
        name: in the terminal.
        make: its races on a device, made one after the other.
        races: how many.
        making: seconds that it takes to make them, on a GPU.
        on: the kind of device that it is for; empty for all.
    """

    room: str
    name: str
    make: Callable[[torch.device], Iterable[Race]]
    races: int
    making: float = 5.0
    on: str = ""


def coupling(features: int, hidden: int, rows: int) -> Job:
    """Of LU and affine couplings."""
    make = partial(couplings, features, hidden, rows)
    return Job("flows", f"coupling + LU, {features} features", make, 3)


def compiled(features: int, hidden: int, rows: int) -> Job:
    """Of the same by torch.compile."""
    make = partial(compiled_couplings, features, hidden, rows)
    return Job("flows", f"compiled coupling + LU, {features} features", make, 2, COMPILING)


def spline(features: int, hidden: int, rows: int) -> Job:
    """Of LU and spline couplings."""
    return Job("flows", f"spline coupling + LU, {features} features", partial(splines, features, hidden, rows), 3)


def inverse(features: int, hidden: int, rows: int) -> Job:
    """Of an autoregressive layer."""
    make = partial(autoregressive_inverse, features, hidden, rows)
    return Job("flows", f"autoregressive inverse, {features} features", make, 1)


def orthogonal(features: int, rows: int) -> Job:
    """Of a QR-linear layer."""
    return Job("flows", f"QR, {features} features", partial(reflections, features, rows), 3)


def em(shape: Shape, structure: Covariance, dtype: torch.dtype, making: float = 5.0, on: str = "") -> Job:
    """Of a Gaussian mixture."""
    name = f"EM {type(structure).__name__.lower()}, {shape}, {str(dtype).removeprefix('torch.')}"
    return Job("em", name, partial(mixtures, shape, structure, dtype), 1, making, on)


def ppca(n: int, features: int, latent_features: int) -> Job:
    """Of PPCA's fit and log_prob."""
    return Job("ppca", f"PPCA, n={n:,} D={features}", partial(analyses, n, features, latent_features), 2)


def vae(size: Size) -> Job:
    """Of a VAE's training step and evidence."""
    return Job("vae", f"VAE, {size}", partial(autoencoders, size), 2)


def glow(side: int, levels: int, steps: int, hidden: int, rows: int) -> Job:
    """Of a multi-scale Glow of grey images."""
    make = partial(glows, (1, side, side), levels, steps, hidden, rows)
    return Job("images", f"multi-scale Glow, {side}×{side}", make, 3)


FEW, WIDE, PLANE = Shape(100_000, 8, 10), Shape(50_000, 64, 16), Shape(200_000, 2, 50)
JOBS = (
    coupling(6, 128, 512),
    compiled(6, 128, 512),
    inverse(63, 512, 512),
    em(Shape(10**7, 16, 32), Full(), torch.float64, making=30, on="cuda"),
    vae(Size(784, 16, 256, 256, 5000)),
    spline(6, 128, 512),
    coupling(64, 512, 1024),
    spline(64, 128, 1024),
    inverse(8, 128, 512),
    *(em(shape, Full(), torch.float64) for shape in (FEW, WIDE, PLANE)),
    *(em(shape, Diagonal(), torch.float64) for shape in (FEW, WIDE)),
    em(FEW, Full(), torch.float32),
    glow(8, 2, 4, 32, 128),
    glow(28, 2, 4, 32, 32),
    ppca(2000, 784, 50),
    ppca(4000, 2000, 50),
    ppca(50_000, 64, 8),
    orthogonal(64, 1024),
)
SMALL = (  # shows whether everything runs, and nothing else
    coupling(4, 8, 16),
    compiled(4, 8, 16),
    inverse(4, 8, 16),
    em(Shape(200, 3, 2), Full(), torch.float64),
    vae(Size(12, 2, 8, 16, 100)),
    spline(4, 8, 16),
    em(Shape(200, 3, 2), Diagonal(), torch.float32),
    glow(4, 1, 1, 4, 8),
    ppca(100, 5, 2),
    orthogonal(4, 16),
)
ROOMS = tuple(dict.fromkeys(job.room for job in JOBS))
