"""Settings of `binary_tables`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.binary_tables.source import ALL, NAMES, BinaryTable, binary_table
from studies.data.binary.debd import DEBD
from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    SOME_WIDTHS,
    Bound,
    CommonSettings,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

ModelName = Literal["mixture", "ELBO", "compiled", "through", "IWAE", "flow", "hierarchy"]
MODELS: tuple[ModelName, ...] = get_args(ModelName)
FEW_COLUMNS = 20  # of which an interval is narrow: the model draws the test rows often enough
BETWEEN = Bound(lambda share: 0 < share < 1, "must lie between 0 and 1")
real = partial(preset, "real")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("answers", OF_THE_RUN, one_of(NAMES, "since this study is about binary tables"))
    """answers (12 columns, made by the seed) or, from the data directory, nltcs, plants, jester, accidents, mushrooms,
    dna, or debd for all six."""
    models: tuple[ModelName, ...] = setting(MODELS, OF_THE_RUN, different("models"))
    """mixture (Bernoulli, by EM), ELBO (a VAE), compiled (that VAE as a mixture), IWAE (a VAE by the
    importance-weighted bound), through (the VAE trained as a mixture), flow (a VAE with a flow for its prior),
    hierarchy (two levels of latents)."""
    components: tuple[int, ...] = setting(
        (2, 4, 8, 16, 32), quick((2, 8)), real((20, 50)), different("numbers", least=1)
    )
    """Of the mixture, of which the validation rows choose."""
    iterations: int = setting(200, quick(30), real(40), POSITIVE)
    """Of EM, at most."""
    latents: int = setting(4, real(8), at_least(2, "to have a second level"))
    """Of every VAE."""
    hidden: tuple[int, ...] = setting((64, 64), quick((16,)), real((128, 128)), SOME_WIDTHS)
    """Widths of their networks."""
    steps: int = setting(2000, quick(200), real(2000), POSITIVE)
    """Of a gradient fit, at most: validation rows say when it ends."""
    batch_size: int = setting(128, POSITIVE)
    """Rows in a step."""
    learning_rate: float = setting(3e-3, POSITIVE)
    """Of Adam."""
    patience: int = setting(15, POSITIVE)
    """Epochs without improvement on the validation rows."""
    iwae_draws: int = setting(8, at_least(2))
    """Of the importance-weighted bound that trains a VAE."""
    nodes: int = setting(512, quick(128), at_least(2))
    """Of the mixture that is trained, fresh ones in every step."""
    compiled_nodes: int = setting(4096, quick(512), at_least(2))
    """Of the mixtures that are judged."""
    draws: int = setting(500, quick(100), real(200), at_least(2))
    """Latent draws of each test row for a bound."""
    simulated: int = setting(300_000, quick(30_000), at_least(2))
    """Rows drawn from a model for the upper end of an interval, of tables with at most 20 columns."""
    confidence: float = setting(0.95, BETWEEN)
    """Of an interval."""

    def presets(self) -> tuple[str, ...]:
        return super().presets() if self.data == "answers" else (*super().presets(), "real")


@dataclass(frozen=True)
class Key(study.Key):
    """A model of a table."""

    model: ModelName


def tasks(settings: Settings) -> Iterator[study.Task[Key, BinaryTable]]:
    """A row for each seed, model and table: each model of all tables, and then the next one."""
    names = DEBD if settings.data == ALL else (settings.data,)
    for seed in settings.seeds:
        tables = [binary_table(name, seed, settings.data_directory) for name in names]
        for model in settings.models:
            for table in tables:
                key = Key(table.name, table.hash, seed, model)
                yield study.Task(key, table, f"{table.name}: {model}, seed {seed}")
