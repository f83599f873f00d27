"""Settings of `choice`, and the rows that a run consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.choice.rows_of import Rows, oil_flow, simulated, velocities
from studies.kit import study
from studies.kit.settings import (
    OF_THE_RUN,
    POSITIVE,
    CommonSettings,
    at_least,
    different,
    one_of,
    preset,
    quick,
    setting,
)

Family = Literal["mixture", "ppca", "linear-vae", "vae"]
TRUTH: dict[Family, int] = {"mixture": 4, "ppca": 3, "linear-vae": 3, "vae": 2}  # of the rows that are simulated
SEVERAL = at_least(2, "to have a choice")
AMONG = "to have the truth of the simulated rows among them"
of_oil = partial(preset, "oil-flow")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting(
        "embedded", OF_THE_RUN, one_of(("embedded", "oil-flow"), "since this study simulates rows of known truth")
    )
    """embedded (simulated rows of every family, and the velocities of 82 galaxies) or, from the data directory,
    oil-flow."""
    families: tuple[Family, ...] = setting(get_args(Family), OF_THE_RUN, different("families"))
    """mixture (full covariances; how many components), ppca, linear-vae and vae (how many latents)."""
    repeats: int = setting(20, OF_THE_RUN, quick(2), at_least(2, "to have a standard error"))
    """Sets of simulated rows of every family."""
    rows: int = setting(400, quick(200), at_least(20))
    """Of each set, to fit; and as many to judge by."""
    folds: int = setting(10, quick(4), SEVERAL)
    """Parts of the velocities, each of which is held out once."""
    most_components: int = setting(7, quick(6), of_oil(14), at_least(TRUTH["mixture"], AMONG))
    """Of mixtures."""
    most_latents: int = setting(6, quick(5), of_oil(11), at_least(TRUTH["ppca"], AMONG))
    """Of PPCA and the linear VAE."""
    most_of_vae: int = setting(4, quick(3), at_least(TRUTH["vae"], AMONG))
    """Latents of the VAE."""
    restarts: int = setting(3, quick(1), POSITIVE)
    """Starts of EM."""
    hidden: tuple[int, ...] = setting((32,))
    """Widths of the VAE's networks."""
    epochs: int = setting(200, quick(30), POSITIVE)
    """Of its fit."""
    draws: int = setting(200, quick(50), SEVERAL)
    """Latent draws for each row of its evidence."""

    def presets(self) -> tuple[str, ...]:
        return (*super().presets(), *(["oil-flow"] if self.data == "oil-flow" else []))

    def most(self, family: Family) -> int:
        """The largest number that a family is asked for."""
        return {"mixture": self.most_components, "vae": self.most_of_vae}.get(family, self.most_latents)


@dataclass(frozen=True)
class Key(study.Key):
    """A family, and which set of simulated rows; 0 of real ones."""

    family: Family
    repeat: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, Rows]]:
    """A row for each family and set of rows."""
    for seed in settings.seeds:
        if settings.data == "oil-flow":
            rows = oil_flow(seed, settings.data_directory)
            for family in settings.families:
                yield study.Task(Key("oil-flow", rows.hash, seed, family, 0), rows, f"{family}, seed {seed}")
            continue
        for family in settings.families:
            for repeat in range(settings.repeats):
                rows = simulated(family, seed, repeat, settings.rows)
                yield study.Task(Key("simulated", "generated", seed, family, repeat), rows, f"{family}, set {repeat}")
        if "mixture" in settings.families:
            rows = velocities()
            yield study.Task(Key("velocities", rows.hash, seed, "mixture", 0), rows, "mixture of velocities")
