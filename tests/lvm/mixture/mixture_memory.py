"""Run as a program: fit a mixture to rows of a file that is mapped into memory, and print what it took.

``mixture_memory.py ROWS FILE``: peak resident MiB, its growth by the fit, and seconds of CPU an iteration.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[3]))

from density.data.chunks import Chunks
from lvm import EM, GaussianMixture, RandomPoints

FEATURES, COMPONENTS = 16, 8


def write(rows: int, path: str) -> None:
    """In another process, whose memory is not ours."""
    draws = np.random.default_rng(0)
    centres = 4 * draws.standard_normal((COMPONENTS, FEATURES))
    with open(path, "wb") as file:
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            part = centres[draws.integers(COMPONENTS, size=n)] + draws.standard_normal((n, FEATURES))
            file.write(part.astype(np.float32).tobytes())


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    rows, path = int(sys.argv[1]), sys.argv[2]
    child = os.fork()
    if child == 0:
        write(rows, path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    torch.set_num_threads(1)
    x = np.memmap(path, np.float32, "r", shape=(rows, FEATURES))
    em = EM(max_iterations=1, tolerance=0.0, start=RandomPoints(), progress=False)
    model = GaussianMixture(FEATURES, COMPONENTS)
    model.fit(Chunks(x[:5000], rows=1000), em=em, generator=torch.Generator().manual_seed(0))  # loads what is loaded
    before = peak()
    model.fit(x, em=em, generator=torch.Generator().manual_seed(0))
    growth = peak() - before
    started = time.process_time()
    model.em_step(x)
    print(peak(), growth, time.process_time() - started)
