"""Run as a program: fit a flow to rows that are mapped from a file, or held in memory, and print what it took.

``flow_memory.py ROWS FILE mapped|held``: peak resident MiB, its growth by the fit, and MiB of the data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from density import Training
from flows import real_nvp
from tests.lvm.mixture.mixture_memory import FEATURES, peak, write

TRAINING = Training(epochs=1, batch_size=2**14, validation=0.01, progress=False)


def mapped(rows: int, path: str) -> torch.Tensor:
    """Rows of a file that another process writes, whose memory is not ours."""
    child = os.fork()
    if child == 0:
        write(rows, path)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return torch.from_numpy(np.memmap(path, np.float32, "c", shape=(rows, FEATURES)))


if __name__ == "__main__":
    rows, path, where = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    data = mapped(rows, path) if where == "mapped" else torch.randn(rows, FEATURES)
    torch.set_num_threads(1)
    # Loads what is loaded, and looks for ties in as many rows as it may.
    real_nvp(FEATURES, 2, (8,)).fit(torch.randn(2**18, FEATURES), TRAINING)
    before = peak()
    real_nvp(FEATURES, 2, (8,)).fit(data, TRAINING, generator=torch.Generator().manual_seed(0))
    print(peak(), peak() - before, data.nbytes / 2**20)
