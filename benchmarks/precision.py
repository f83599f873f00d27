"""What lower precision does to log p(x): fitted models evaluated in bfloat16, float32 and float64, at the same points.

In bfloat16 run the networks and nothing else (:func:`density.lowered`). A VAE's log p(x) is its importance-weighted
bound by draws that are the same in all precisions. A mixture has no networks. On the CPU: the rounding is that of a
GPU's bfloat16, up to the order of sums; TF32 rounds on a GPU alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.timing import write_records
from density import ExactModel, Training, lowered
from flows import maf, neural_spline_flow, real_nvp
from lvm import VAE, GaussianMixture

ROWS, FEATURES, DRAWS = 2000, 8, 64
TRAINING = Training(steps=1000, progress=False)
MODELS: dict[str, Callable[[], Any]] = {
    "coupling flow": lambda: real_nvp(FEATURES, layers=8, hidden=(64, 64)),
    "spline flow": lambda: neural_spline_flow(FEATURES, layers=5, hidden=(64, 64)),
    "autoregressive flow": lambda: maf(FEATURES, layers=5, hidden=(64, 64)),
    "VAE": lambda: VAE.gaussian(FEATURES, 4, hidden=(64, 64)),
    "mixture of Gaussians": lambda: GaussianMixture(FEATURES, 8),
}


def curved(rows: int, generator: Generator) -> Tensor:
    """Points near a curved surface of four dimensions."""
    z = torch.randn(rows, FEATURES // 2, generator=generator)
    noise = torch.randn(rows, FEATURES, generator=generator)
    return torch.cat([z, z.square() - z.roll(1, 1).sin()], 1) + 0.2 * noise


def log_p(model: Any, x: Tensor, z: Tensor | None) -> Tensor:  # noqa: ANN401 - a flow, a VAE or a mixture
    """log p(x) ``[n]``, of a model with an encoder by its draws z ``[draws, n, d]``."""
    if z is None:
        value: Tensor = model.log_prob(x)
        return value.double()
    log_weights = model.log_joint(x, z) - model.encoder.log_prob(z, x)
    return log_weights.double().logsumexp(0) - math.log(len(z))


def differences(name: str) -> list[dict[str, object]]:
    """Rows of the table of one model."""
    torch.manual_seed(0)
    generator, model = Generator().manual_seed(0), MODELS[name]()
    train, x = curved(ROWS, generator), curved(ROWS, generator)
    if isinstance(model, GaussianMixture):
        model.fit(train, generator=generator)
    else:
        model.fit(train, TRAINING, generator=generator)
    model.eval()
    with torch.no_grad():
        z = None if isinstance(model, ExactModel) else model.encoder.sample(DRAWS, context=x, generator=generator)
        full = log_p(deepcopy(model).double(), x.double(), None if z is None else z.double())
        single = log_p(model, x, z)
        with lowered(model, torch.bfloat16):
            half = log_p(model, x, z)
    compared = {("bfloat16", "float32"): half - single, ("bfloat16", "float64"): half - full}
    compared["float32", "float64"] = single - full
    return [
        {
            "model": name, "precision": precision, "against": against, "mean_log_p": f"{full.mean():.3f}",
            "of_the_mean": f"{of.mean():.1e}", "of_the_mean_error": f"{of.std() / math.sqrt(len(of)):.1e}",
            "mean_absolute": f"{of.abs().mean():.1e}", "largest": f"{of.abs().max():.1e}",
        }
        for (precision, against), of in compared.items()
    ]  # fmt: skip


def main() -> None:
    """All models, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; all if none")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/precision.csv"), help="where the rows go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.models or MODELS:
        for row in differences(name):
            print(*row.values(), sep="\t", flush=True)
            rows.append(row)
    write_records(rows, options.out)


if __name__ == "__main__":
    main()
