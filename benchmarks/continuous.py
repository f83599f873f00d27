"""How far off log p(x) by continuous flows is: ours and the peers', each as it comes, on a normal density.

The velocity is exact: the conditional mean of straight paths from data to noise (Lipman et al. 2023), in closed form,
so that all there is to err is the solver and the trace. Axes are rotated, since a probe of random signs is exact where
the Jacobian is diagonal. ``torchcfm`` has no likelihood.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import zuko
from flow_matching.solver import ODESolver
from torch import Generator, Tensor, nn

from benchmarks.timing import write_records
from density import StandardNormal
from flows import ContinuousTransform, Flow

POINTS, REPEATS = 200, 5
LEAST, MOST = 0.1, 10.0  # standard deviations of the data
STEP = 0.05  # of flow_matching's solver, which has no default where one is needed


class StraightToNoise(nn.Module):
    """E[z − x | (1 − t) x + t z] for normal x of standard deviations s along rotated axes and standard normal z."""

    std: Tensor
    axes: Tensor

    def __init__(self, std: Tensor, axes: Tensor) -> None:
        super().__init__()
        self.register_buffer("std", std)
        self.register_buffer("axes", axes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocities ``[n, D]``, from data at t = 0 to noise at t = 1."""
        signal = (1 - t) * self.std**2
        return (x @ self.axes * ((t - signal) / ((1 - t) * signal + t**2))) @ self.axes.T


class FromNoise(nn.Module):
    """The same in flow_matching's time, from noise to data."""

    def __init__(self, velocity: StraightToNoise) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocities ``[n, D]``."""
        return -self.velocity(x, 1 - t)


def normal(x: Tensor) -> Tensor:
    """log N(x; 0, I)."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)


def theirs(velocity: StraightToNoise, x: Tensor, **settings: object) -> Tensor:
    """log p(x) by flow_matching's solver."""
    settings = {"step_size": None} | settings
    _, log_p = ODESolver(FromNoise(velocity)).compute_likelihood(x, normal, **settings)
    return log_p.detach()


def of_zuko(velocity: StraightToNoise, x: Tensor, **settings: object) -> Tensor:
    """log p(x) by zuko's transform."""
    transform = zuko.transforms.FreeFormJacobianTransform(lambda t, x: velocity(x, t), **settings)
    with torch.no_grad():
        z, log_det = transform.call_and_ladj(x)
    return normal(z) + log_det


def of_ours(velocity: StraightToNoise, x: Tensor) -> Tensor:
    """log p(x) by our transform."""
    flow = Flow(StandardNormal(x.shape[1]).double(), ContinuousTransform(velocity, x.shape[1]))
    return flow.log_density(x).value


CONTESTANTS: dict[str, Callable[[StraightToNoise, Tensor], Tensor]] = {
    "ours": of_ours,
    "flow_matching": theirs,
    f"flow_matching, step_size={STEP}": partial(theirs, step_size=STEP),
    f"flow_matching, midpoint, step_size={STEP}": partial(theirs, method="midpoint", step_size=STEP),
    "flow_matching, dopri5": partial(theirs, method="dopri5"),
    "flow_matching, dopri5, exact_divergence": partial(theirs, method="dopri5", exact_divergence=True),
    "zuko": of_zuko,
    "zuko, exact=False": partial(of_zuko, exact=False),
}


def problem(features: int) -> tuple[StraightToNoise, Tensor, Tensor]:
    """A velocity, points of its density and their log p(x)."""
    generator = Generator().manual_seed(0)
    std = torch.logspace(math.log10(LEAST), math.log10(MOST), features, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(features, features, generator=generator, dtype=torch.float64)).Q
    z = torch.randn(POINTS, features, generator=generator, dtype=torch.float64)
    return StraightToNoise(std, axes), (std * z) @ axes.T, normal(z) - std.log().sum()


def row(name: str, features: int) -> dict[str, object]:
    """How far off a contestant is: in the mean of points, at the worst one, and from call to call at a point."""
    velocity, x, truth = problem(features)
    torch.manual_seed(0)
    started = time.process_time()
    calls = torch.stack([CONTESTANTS[name](velocity, x) for _ in range(REPEATS)])
    seconds = time.process_time() - started
    off = calls[0] - truth
    return {
        "contestant": name,
        "features": features,
        "points": POINTS,
        "off": off.mean().item(),
        "off_error": off.std().item() / math.sqrt(POINTS),
        "worst": off.abs().max().item(),
        "noise": calls.var(0).mean().sqrt().item(),
        "ms": 1000 * seconds / (POINTS * REPEATS),
    }


def main() -> None:
    """All contestants in 4 and 32 dimensions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/continuous.csv"), help="where the rows go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # which flow_matching draws its probes in
    rows = []
    for features in (4, 32):
        for name in CONTESTANTS:
            rows.append(row(name, features))
            print(
                "{features:3d}  {contestant:45s} off {off:10.2e} ± {off_error:.1e}, worst {worst:.1e}, "
                "noise {noise:.1e}, {ms:.2f} ms".format(**rows[-1]),
                flush=True,
            )
    write_records(rows, options.out)


if __name__ == "__main__":
    main()
