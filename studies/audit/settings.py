"""Settings of `audit`, and the rows that a run consists of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from studies.audit.bit_tables import NAMES, BitTable, bit_table
from studies.kit import study
from studies.kit.errors import InputError
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

Method = Literal["exact", "quadrature", "compiled", "prior", "importance", "annealing", "average", "factor"]
DETERMINISTIC: tuple[Method, ...] = ("exact", "quadrature")
MOST = {"annealing": 100}  # draws beyond which a method is not asked
CHEAP: tuple[Method, ...] = ("compiled", "prior", "importance", "factor")  # at a multiple of 2^16 states
BY_QUADRATURE = 2  # latents over which it is affordable
SEVERAL = at_least(2, "to have a standard error")
BETWEEN = Bound(lambda share: 0 < share < 1, "must lie between 0 and 1")
A_FEW = Bound(lambda bits: 2 <= bits <= 20, "must be from 2 to 20, so that all states can be counted")
nltcs = partial(preset, "nltcs")
quick_nltcs = partial(preset, "quick nltcs")


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Settings of the study; the defaults are those of the expected numbers."""

    data: str = setting("questions", OF_THE_RUN, one_of(NAMES, "since this study counts all states of a few bits"))
    """questions (made by the seed) or, from the data directory, nltcs (16 bits)."""
    bits: int = setting(10, quick(8), A_FEW)
    """Of questions."""
    rows: int = setting(2000, quick(1000), at_least(20))
    """Of questions, to fit and to test on."""
    methods: tuple[Method, ...] = setting(get_args(Method), OF_THE_RUN, nltcs(("exact", *CHEAP)), different("methods"))
    """Which claims are added up: exact (a mixture's), quadrature, compiled (the VAE as a mixture, its nodes for draws),
    prior, importance, annealing (its chains for draws), average (of log p(x|z), a bound), factor (importance weights,
    summed and divided by K − 1)."""
    draws: tuple[int, ...] = setting(
        (10, 100, 1000), OF_THE_RUN, quick((10, 100)), nltcs((10, 100)), quick_nltcs((10,)),
        different("integers", least=2),
    )  # fmt: skip
    """Latent draws K of a claim."""
    work: tuple[int, ...] = setting(
        (10, 30, 100, 300, 1000), OF_THE_RUN, quick((10, 100)), nltcs((30, 100, 400)),
        different("integers", least=2),
    )  # fmt: skip
    """Latent draws for each test row of an interval."""
    dtype: Literal["float32", "float64"] = setting("float64", nltcs("float32"))
    """What to compute in."""
    components: int = setting(6, nltcs(20), POSITIVE)
    """Of the mixture."""
    latents: int = setting(2, nltcs(4), POSITIVE)
    """Of the VAE; up to two its log p(x) is known by quadrature, of more estimated."""
    hidden: tuple[int, ...] = setting((16,), nltcs((64, 64)), SOME_WIDTHS)
    """Widths of the networks of the VAE."""
    epochs: int = setting(60, nltcs(20), quick_nltcs(5), POSITIVE)
    """Of its fit."""
    batch_size: int = setting(100, nltcs(256), POSITIVE)
    """Rows in a step."""
    passes: int = setting(20, quick(5), nltcs(3), quick_nltcs(2), SEVERAL)
    """Claims that are added up, as a multiple of the number of states."""
    annealing_passes: int = setting(3, quick(2), SEVERAL)
    """Of annealing, whose claims cost more."""
    annealing_steps: int = setting(20, POSITIVE)
    """Temperatures of a chain."""
    simulated: int = setting(1000, nltcs(2500), at_least(2))
    """Rows that an interval simulates from the model for each draw of a test row."""
    confidence: float = setting(0.95, BETWEEN)
    """Of an interval."""
    repeats: int = setting(10, quick(5), nltcs(1), quick_nltcs(1), POSITIVE)
    """Intervals at each amount of work, with draws of their own."""
    truth_draws: int = setting(2000, quick(500), SEVERAL)
    """Draws for each test row of the estimate that stands for log p(x) where quadrature is not affordable."""

    def presets(self) -> tuple[str, ...]:
        if self.data != "nltcs":
            return super().presets()
        return ("quick nltcs", "quick", "nltcs") if self.quick else ("nltcs",)

    def check(self) -> None:
        """Also that bits and rows are those of a table that is made up."""
        super().check()
        for name in ("bits", "rows"):
            if self.data == "nltcs" and getattr(self, name) != getattr(Settings, name):
                raise InputError(f"--{name} is of questions, and nltcs has bits and rows of its own: leave it out")


@dataclass(frozen=True)
class Key(study.Key):
    """What is added up, or an interval; and draws: 0 where there are none."""

    part: Literal["sum", "interval"]
    method: Method | Literal["interval"]
    draws: int


def tasks(settings: Settings) -> Iterator[study.Task[Key, BitTable]]:
    """A row for each seed, method and number of draws, then for each interval."""
    for seed in settings.seeds:
        table = bit_table(settings.data, seed, settings.data_directory, bits=settings.bits, rows=settings.rows)
        key = partial(Key, table.name, table.hash, seed)
        for method in settings.methods:
            if method == "quadrature" and settings.latents > BY_QUADRATURE:
                continue
            for draws in (0,) if method in DETERMINISTIC else settings.draws:
                if draws <= MOST.get(method, math.inf):
                    yield study.Task(key("sum", method, draws), table, f"{method}, {draws} draws, seed {seed}")
        for draws in settings.work:
            yield study.Task(key("interval", "interval", draws), table, f"interval, {draws} draws, seed {seed}")
