"""Settings of `elbo_gap`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal, get_args

from studies.data.load import Dataset, dataset
from studies.kit import study
from studies.kit.errors import InputError
from studies.kit.settings import (
    ADDED_LATER,
    NOT_NEGATIVE,
    OF_THE_RUN,
    POSITIVE,
    WIDTHS,
    Bound,
    CommonSettings,
    all_or_at_least,
    at_least,
    different,
    quick,
    setting,
)

ModelName = Literal[
    "gaussian",
    "ppca",
    "mixture",
    "linear-vae",
    "vae-2",
    "vae-16",
    "lu-flow",
    "coupling",
    "maf",
    "spline-maf",
    "coupling-vae",
]
AMORTISED: tuple[ModelName, ...] = ("vae-2", "vae-16")  # the others know log p(x) by themselves
SAME: tuple[tuple[ModelName, ModelName], ...] = (("lu-flow", "gaussian"), ("coupling-vae", "coupling"))
# Every two models, once; of two that are the same the second is the one to compare with, a VAE is always the first.
PAIRS: tuple[tuple[ModelName, ModelName], ...] = (
    *SAME,
    *((a, b) for a in AMORTISED for b in get_args(ModelName) if b not in AMORTISED),
    ("vae-16", "vae-2"),
    *(
        (b, a)
        for a, b in combinations([name for name in get_args(ModelName) if name not in AMORTISED], 2)
        if (b, a) not in SAME
    ),
)
OF_OBSERVED: tuple[ModelName, ...] = ("ppca", "mixture")  # know log p(x) of the values that a row has
INCOMPLETE = (
    "values of this data are missing, which PPCA and the mixture alone take. --drop-incomplete leaves out the rows "
    "that miss one, --drop columns; or impute them"
)
OF_SEVERAL: tuple[ModelName, ...] = ("ppca", "linear-vae", "coupling", "coupling-vae")
SINGLE = "this data has one column, and it needs two"
SEVERAL = at_least(2, "to have a standard error")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    models: tuple[ModelName, ...] = setting(get_args(ModelName), OF_THE_RUN, different("models"))
    """Which models to fit and show."""
    train_rows: int = setting(20_000, ADDED_LATER, all_or_at_least(20))
    """Rows to fit, at most, drawn at random from those of the data; 0: all of them."""
    test_rows: int = setting(2000, ADDED_LATER, all_or_at_least(20))
    """Rows to judge by, at most, drawn at random from those of the data; 0: all of them."""
    draws: int = setting(5000, quick(500), SEVERAL)
    """Latent draws for each test point of the importance-weighted bound."""
    elbo_draws: int = setting(1000, quick(100), SEVERAL)
    """Latent draws for each test point of the ELBO."""
    tolerance: float = setting(1e-6, quick(1e-3), POSITIVE)
    """Nats that quadrature may be off at a test point of the VAE with 2 latents."""
    annealing_steps: int = setting(200, quick(30), POSITIVE)
    """Temperatures between encoder and posterior, VAE with 16 latents."""
    annealing_chains: int = setting(16, quick(4), SEVERAL)
    """Annealing chains for each test point."""
    simulated: int = setting(200, quick(20), SEVERAL)
    """Points simulated from the VAE with 16 latents, on which annealing is certified from both sides."""
    local_steps: int = setting(300, ADDED_LATER, quick(30), NOT_NEGATIVE)
    """Steps of the local posteriors that tell a VAE's gap apart into its two causes; 0: leave that out."""
    steps: int | None = setting(None, quick(120), Bound(lambda steps: steps is None or steps > 0, "must be positive"))
    """Steps of a stochastic gradient fit, at most; by default as many as the rows bear."""
    patience: int = setting(20, POSITIVE)
    """Epochs without improvement on held-out rows, and 500 steps at least, before a fit is annealed and ends."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a gradient step."""
    learning_rate: float = setting(3e-3, POSITIVE)
    """Of AdamW, until it is annealed."""
    decays: tuple[float, ...] = setting((0.0, 1.0), quick((0.0,)), different("weight decays", least=0))
    """Weight decays of networks, of which each model, flow or VAE, gets the one that does best on held-out rows."""
    linear_latents: int = setting(16, POSITIVE)
    """Latents of PPCA and the linear VAE."""
    components: int = setting(10, POSITIVE)
    """Components of the mixture."""
    ridge: float = setting(0.01, NOT_NEGATIVE)
    """What is added to the diagonal of its covariances, as a share of the mean variance of the data."""
    vae_hidden: tuple[int, ...] = setting((128, 128), WIDTHS)
    """Widths of hidden layers, VAEs."""
    lu_epochs: int = setting(30, POSITIVE)
    """L-BFGS rounds, of 20 steps each, of the LU-linear flow."""
    coupling_layers: int = setting(6, POSITIVE)
    """Layers of the coupling flow."""
    coupling_hidden: tuple[int, ...] = setting((64,), WIDTHS)
    """Widths of hidden layers, coupling flow."""
    maf_layers: int = setting(5, POSITIVE)
    """Layers of the masked autoregressive flow."""
    maf_hidden: tuple[int, ...] = setting((128,), WIDTHS)
    """Widths of hidden layers, masked autoregressive flow."""
    spline_layers: int = setting(3, POSITIVE)
    """Layers of the autoregressive spline flow."""
    spline_hidden: tuple[int, ...] = setting((64, 64), WIDTHS)
    """Widths of hidden layers, autoregressive spline flow."""


@dataclass(frozen=True)
class Key(study.Key):
    """A model, or what two models' claims say of each other, point by point."""

    model: ModelName
    versus: ModelName | Literal[""] = ""


def tasks(settings: Settings) -> Iterator[study.Task[Key, Dataset]]:
    """A row for each seed and model, then for each pair that can be compared."""
    for seed in settings.seeds:
        data = dataset(settings, seed, incomplete=True, narrowest=1)
        if data.measure == "counting":
            raise InputError(
                f"'{data.name}' is binary, and these models have densities. Take --dequantise all, or studies.mnist"
            )
        key = partial(Key, data.name, data.hash, seed)
        points = {model: settings.arrays("elbo_gap", f"{model}-{seed}", data.hash) for model in settings.models}
        out = {model: INCOMPLETE for model in points if data.incomplete and model not in OF_OBSERVED}
        out |= {model: SINGLE for model in points if data.features == 1 and model in OF_SEVERAL}
        for model, path in points.items():
            if model in out:
                yield study.Task(key(model), data, model, refused=out[model])
                continue
            label = model if len(settings.seeds) == 1 else f"{model}, seed {seed}"
            yield study.Task(key(model), data, label, makes=(path,))
        for a, b in PAIRS:
            if {a, b} <= points.keys() - out.keys():
                yield study.Task(key(a, b), data, needs=(points[a], points[b]))
