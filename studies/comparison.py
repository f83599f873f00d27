"""What do a VAE and a normalizing flow differ in, cell by cell, when every cell is measured?

Claim: the lecture's table. A VAE maximises the ELBO, with stochastic encoder and decoder and parameters φ, θ; a flow
    maximises log p(x), which is forward KL, with deterministic encoder and decoder that share all parameters, θ ≡ φ.
    And its theorem: the flow is the VAE whose encoder and decoder are deltas, so that its ELBO is log p(x). The deltas
    are limits: with decoder N(g(z), σ²I) and encoder N(f(x), σ²JJᵀ) the ELBO tends to log p(x) as σ².

Paper: Nielsen et al. 2020 (SurVAE Flows), section 2.

Command: python -m studies.comparison

Run time: 1 minute on 2 cores (--quick: 15 seconds)

Expected: seed 0 ± standard error over 2,000 test points of a ring with an entropy of 1.8705 nats; in brackets the mean
    over seeds 0, 1, 2. Nats per point, all exact (the VAE's log p(x) by quadrature).

    =======================  ==================================  =================================
    ..                       VAE, 2 latents                      normalizing flow, 8 couplings
    =======================  ==================================  =================================
    objective                ELBO: KL + gap = 0.245 (0.241)      log p(x): KL = 0.013 (0.016)
    encoder: sd, entropy     0.37, 0.80                          0, −∞
    decoder: sd, entropy     0.25, 0.08                          0, −∞
    parameters               1,284 φ, 1,220 θ, 0 shared          9,520, all shared
    sd of log-weights        0.37                                0
    gap                      0.0694 ± 0.0006  (0.0705)           0
    log p(x)                 −2.033 ± 0.013  (−2.049)            −1.870 ± 0.019  (−1.895)
    KL(data ‖ model)         0.176 ± 0.008  (0.170)              0.013 ± 0.003  (0.016)
    =======================  ==================================  =================================

    Theorem: 3e-15 nats in value, 6e-15 of the largest in the gradients. |ELBO(σ) − log p(x)| as σ to the power 2.000
    for σ ≤ 0.001 (the three seeds: 2.000, 1.998, 1.997). On another machine training amplifies rounding, and what
    depends on the fit may move.

Answer: as in the lecture, with every cell measured. The VAE's objective is forward KL plus a gap, which here is more
    than a quarter of it; the flow's is forward KL alone. That the flow ends nearer to the data says little, having
    nearly four times the parameters; that its objective says how near, and the VAE's does not, is the difference. From
    its decoder alone the flow's ELBO is log p(x) to rounding, and so is its gradient. Its deltas are limits of
    Gaussians, but only of those with the covariance of the flow's own Jacobian: a diagonal encoder keeps a gap of 0.289
    nats however small σ is, as its formula says. The rate is a matter of small σ: where the trained flow bends sharply,
    single points are off by nats at σ = 0.01, and up to there the mean goes as σ to the power 1.991, 1.986 and 1.944.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from studies.kit import old as kit
from studies.kit.errors import InputError
from studies.kit.old import OF_THE_RUN, CommonSettings, quick

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

    from studies.data.load import Dataset
    from studies.kit.rows import Row

ModelName = Literal["vae", "flow"]
EncoderName = Literal["full", "diagonal"]


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Two models, one toy data set."""

    data: Literal["ring"] = field(default="ring", metadata=OF_THE_RUN)
    """A ring in the plane: the entropy of the data must be known."""
    dtype: Literal["float32", "float64"] = "float64"
    """What to fit in. Theorem and limit are measured in float64 in any case."""
    sigmas: tuple[float, ...] = field(
        default=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1), metadata=OF_THE_RUN
    )
    """Widths of the Gaussians that tend to deltas, in the units of the data; the ring's radius is about 1."""
    train_rows: int = field(default=10_000, metadata=quick(2000))
    """Points to fit."""
    test_rows: int = field(default=2000, metadata=quick(300))
    """Other points, to judge by."""
    draws: int = field(default=500, metadata=quick(100))
    """Latent draws for each test point of the ELBO."""
    repeats: int = field(default=100, metadata=quick(50))
    """How often each test point is encoded, and each code decoded, to see whether the result changes."""
    tolerance: float = field(default=1e-6, metadata=quick(1e-3))
    """Nats that quadrature may be off at a test point of the VAE."""
    latents: int = 2
    """Latents of the VAE, 1 to 3, so that log p(x) is known by quadrature."""
    epochs: int = field(default=60, metadata=quick(40))
    """Passes over the training rows."""
    batch_size: int = 256
    """Rows in a gradient step."""
    learning_rate: float = field(default=3e-3, metadata=quick(5e-3))
    """Of Adam, falling to 0 along half a cosine."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of hidden layers of every network."""
    decoder_std: float = 0.3
    """Where the standard deviation of the VAE's decoder starts, in standard deviations of the data. From 1 the VAE can
    end with latents that it does not use, which is tight for the wrong reason."""
    couplings: int = field(default=8, metadata=quick(6))
    """Affine couplings of the flow."""

    def check(self) -> None:
        super().check()
        if self.dequantise:
            raise InputError("--dequantise is for data of integers; the ring is continuous")
        if not 2 <= len(set(self.sigmas)) == len(self.sigmas):
            raise InputError(
                f"--sigmas expects two or more different widths; got {' '.join(map(str, self.sigmas)) or 'none'}"
            )
        if not all(0 < sigma < math.inf for sigma in self.sigmas):
            raise InputError(f"--sigmas expects positive widths; got {' '.join(map(str, self.sigmas))}")
        if not 1 <= self.latents <= 3:
            raise InputError(f"--latents must be 1, 2 or 3, for quadrature; got {self.latents}")
        for name, least in (("draws", 2), ("repeats", 2), ("couplings", 2), ("test_rows", 2), ("train_rows", 20)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} must be at least {least}; got {getattr(self, name)}")
        for name in ("epochs", "batch_size", "learning_rate", "tolerance", "decoder_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name.replace('_', '-')} must be positive; got {getattr(self, name)}")
        if not all(width > 0 for width in self.hidden):
            raise InputError(f"--hidden expects positive widths; got {self.hidden}")

    def selected(self, rows: pd.DataFrame) -> pd.DataFrame:
        return super().selected(rows[rows["sigma"].isna() | rows["sigma"].isin(self.sigmas)])


def compute(settings: Settings) -> Iterator[kit.Task]:
    """For each seed a row for VAE and flow, then one for each width and encoder of the relaxed flow."""
    from studies.data.ring import ring

    for seed in settings.seeds:
        data = ring(settings.train_rows, settings.test_rows, seed)
        key: Row = {"data": data.name, "data_hash": data.hash, "seed": seed}
        after = "" if len(settings.seeds) == 1 else f", seed {seed}"
        weights = {
            model: settings.folder("comparison") / "models" / f"{model}-{seed}-{data.hash[:8]}-{settings.digest}.pt"
            for model in get_args(ModelName)
        }
        for model, path in weights.items():
            work = partial(_fit_and_ask, settings, data, model, seed, path)
            yield kit.Task({**key, "model": model, "encoder": "", "sigma": ""}, work, model + after, output=path)
        for encoder in get_args(EncoderName):
            for sigma in settings.sigmas:
                yield kit.Task(
                    {**key, "model": "relaxed flow", "encoder": encoder, "sigma": sigma},
                    partial(_relax, settings, data, encoder, sigma, weights["flow"]),
                    needs=(weights["flow"],),
                )


def _fit_and_ask(settings: Settings, data: Dataset, model: ModelName, seed: int, path: Path) -> Row:
    from studies.comparison_ask import fit_and_ask

    return fit_and_ask(settings, data, model, seed, path)


def _relax(settings: Settings, data: Dataset, encoder: EncoderName, sigma: float, path: Path) -> Row:
    from studies.comparison_ask import relax

    return relax(settings, data, encoder, sigma, path)


def figure(df: pd.DataFrame) -> Figure:
    """Left: the log-weights of both models around log p(x). Right: the relaxed flow's gap against σ."""
    from studies.comparison_figure import comparison_figure

    return comparison_figure(df)


def table(df: pd.DataFrame) -> Group:
    """The lecture's table; below, theorem and limit."""
    from studies.comparison_report import comparison_table

    return comparison_table(df)


def checks(df: pd.DataFrame) -> list[kit.Check]:
    """What the lecture's table and theorem say, as inequalities."""
    from studies.comparison_report import verdicts

    return verdicts(df)


STUDY = kit.Study("comparison", __doc__, Settings, ("model", "encoder", "sigma"), compute, figure, table, checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return kit.run(STUDY, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
