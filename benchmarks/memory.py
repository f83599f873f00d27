"""Peak memory of EM, each contestant in a process of its own; and how time grows with n when rows are streamed."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.contestants import Work
from benchmarks.mixture import Shape, ours, problem, sklearn
from benchmarks.timing import CPU, peak_mib, write_records
from lvm import EM, Full, GaussianMixture, Given

SHAPE = Shape(1_000_000, 16, 32)
CHUNK = 50_000


class Drawn:
    """Chunks of rows that exist only while they are read, the same at every pass."""

    def __init__(self, n: int, features: int) -> None:
        self.n, self.features = n, features

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, self.n, CHUNK):
            generator = torch.Generator().manual_seed(start)
            yield torch.randn(CHUNK, self.features, generator=generator, dtype=torch.float64)


def measure(contestant: str, shape: Shape) -> tuple[float, float]:
    """MiB beyond what was held before (imports and data), and CPU seconds, of one iteration."""
    torch.set_num_threads(1)
    if contestant == "streamed":
        start_means = torch.randn(shape.components, shape.features, dtype=torch.float64)
        eyes = torch.eye(shape.features, dtype=torch.float64).expand(shape.components, -1, -1)
        equal = torch.full((shape.components,), 1 / shape.components, dtype=torch.float64)
        em = EM(1, 0.0, start=Given(start_means, equal, eyes), progress=False)
        model = GaussianMixture(shape.features, shape.components)
        work: Work = partial(model.fit, Drawn(shape.n, shape.features), em=em)
    else:
        x, start = problem(shape)
        as_array = x.numpy()
        work = partial(ours, x, start, Full(), 1)
        if contestant == "scikit-learn":
            work = partial(sklearn, as_array, start, Full(), iterations=1)
    began = time.process_time()
    return peak_mib(work, CPU), time.process_time() - began


def measured(contestant: str, shape: Shape) -> tuple[float, float]:
    """:func:`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", contestant, *(str(size) for size in shape)]
    mib, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(mib), float(seconds)


def main() -> None:
    """One contestant, or all, each in its process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contestant", nargs="?", choices=["ours", "scikit-learn", "streamed"], help="all if none")
    parser.add_argument("sizes", nargs="*", type=int, help="n, D, K")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/memory.csv"), help="where the rows go")
    options = parser.parse_args()
    if options.contestant:
        print(*measure(options.contestant, Shape(*options.sizes) if options.sizes else SHAPE))
        return
    contests = [("ours", SHAPE), ("scikit-learn", SHAPE)]
    contests += [("streamed", SHAPE._replace(n=n)) for n in (10**6, 3 * 10**6, 10**7)]
    rows = []
    for contestant, shape in contests:
        mib, seconds = measured(contestant, shape)
        print(f"{shape}, one iteration, {contestant}: {mib:.0f} MiB, {seconds:.1f} s of CPU", flush=True)
        rows.append({"contestant": contestant, **shape._asdict(), "peak_mib": round(mib, 1), "seconds": seconds})
    write_records(rows, options.out)


if __name__ == "__main__":
    main()
