"""Log-weights of a data set in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from density.data.blocks import rows_at_once
from density.parallel import processes

DRAWS_TOGETHER = 2**6  # for each of its points a call runs the encoder once: with so many draws that counts for little
SCALARS_AT_ONCE = 2**22  # log-weights held at one time
SECONDS_BEFORE_BAR = 2.0  # short runs need no progress bar

DrawLogWeights = Callable[[Tensor, int], Tensor]


def weight_blocks(draw: DrawLogWeights, x: Tensor, draws: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield (points, log-weights ``[draws, points]`` in float64) until all points of x ``[n, D]`` have had theirs.

    Memory does not grow with n, and with draws only by one number a draw, for as many points at once as 32 MiB hold.
    Runs without gradients; where it takes long, a progress bar shows, if there is a terminal to show it on.

    Args:
        draw: maps rows ``[m, D]`` of x and a number of draws K to log-weights ``[K, m]``.

    Raises:
        ValueError: a log-weight is nan or +inf; the message names the point and the draw. (−inf is a weight of zero.)
    """
    most = rows_at_once(x)
    points = max(1, min(x.shape[0], SCALARS_AT_ONCE // draws, most // min(draws, DRAWS_TOGETHER)))
    total = draws * x.shape[0]
    hidden = None if processes.is_main() else True
    bar = tqdm(total=total, desc="draws", leave=False, disable=hidden, delay=SECONDS_BEFORE_BAR, unit_scale=True)
    with torch.no_grad(), bar:
        for start in range(0, x.shape[0], points):
            rows = x[start : start + points]
            step = max(1, most // rows.shape[0])
            log_weights = torch.empty(draws, rows.shape[0], dtype=torch.float64, device=x.device)
            for done in range(0, draws, step):
                count = min(step, draws - done)
                log_weights[done : done + count] = draw(rows, count)
                bar.update(count * rows.shape[0])
            bad = log_weights.isnan() | log_weights.isposinf()
            if bool(bad.any()):
                which, point = bad.nonzero()[0].tolist()
                raise ValueError(
                    f"the log-weight of point {start + point}, draw {which} is {log_weights[which, point].item()} "
                    f"({int(bad.sum())} of {bad.numel()} in its block); the model's densities overflow there. "
                    "Check that it was fitted to data on this scale"
                )
            yield slice(start, start + rows.shape[0]), log_weights
