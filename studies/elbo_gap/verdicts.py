"""Which model of `elbo_gap` wins: what a naive table says, ELBO against log p(x), and what honest comparison says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from rich.table import Table

from studies.elbo_gap.standings import LABELS, MARKS, SIGMAS, shared, standings
from studies.kit.tables import narrow, with_error

Verdict = Literal["first", "second", "open"]

LEAST = 0.01  # nats: what two fits of one density may differ by
WORDS: dict[Verdict, str] = {"first": "better", "second": "worse", "open": "open"}


@dataclass(frozen=True)
class Pair:
    """Two models at the same test points; numbers are means over seeds.

    Attributes:
        model, versus: their names.
        kind: what the difference of log p(x) is.
        difference, error: of log p(x), paired, over data and draws.
        naive, naive_error: ELBO of the first minus log p(x) of the second, paired; NaN where that was not kept.
    """

    model: str
    versus: str
    kind: str
    difference: float
    error: float
    naive: float
    naive_error: float

    @property
    def honest(self) -> Verdict:
        """Who is better by two errors and a hundredth of a nat; what a bound leaves open stays open."""
        margin = max(SIGMAS * self.error, LEAST)
        if self.difference > margin and self.kind != "upper bound":
            return "first"
        if self.difference < -margin and self.kind != "lower bound":
            return "second"
        return "open"

    @property
    def naively(self) -> Verdict:
        """Who seems better, by the same margins, if the ELBO is taken for log p(x)."""
        if math.isnan(self.naive) or abs(self.naive) <= max(SIGMAS * self.naive_error, LEAST):
            return "open"
        return "first" if self.naive > 0 else "second"

    def winner(self, verdict: Verdict) -> str:
        """In words."""
        return {"first": LABELS[self.model], "second": LABELS[self.versus], "open": "open"}[verdict]

    @property
    def comment(self) -> str:
        """What the naive table does to this pair."""
        if self.naively == self.honest:
            return "agree"
        if "open" not in (self.naively, self.honest):
            return "overturned"
        return "settled by log p(x)" if self.naively == "open" else "not proven"


def pairs(rows: pd.DataFrame) -> list[Pair]:
    """Every comparison in the rows."""
    found = []
    for (model, versus), of in rows[rows["versus"].notna()].groupby(["model", "versus"], sort=False):
        naive, naive_error = (
            float(of[name].mean()) if name in of else math.nan for name in ("naive", "naive_standard_error")
        )
        error = math.hypot(float(of["standard_error"].mean()), float(of["monte_carlo_error"].mean()))
        kind = str(of["kind"].iloc[0])
        found.append(Pair(str(model), str(versus), kind, float(of["value"].mean()), error, naive, naive_error))
    return found


def verdict_tables(rows: pd.DataFrame) -> list[Table]:
    """For every VAE a table of it against every other model, with the naive and the honest verdict on it."""
    unit = shared(rows)["unit"]
    naive = [pair for pair in pairs(rows) if not math.isnan(pair.naive) and pair.model.startswith("vae")]
    tables = []
    for model in sorted({pair.model for pair in naive}):
        found = narrow(
            f"Is {LABELS[model]} better than the others? Naively by ELBO − log p(x), honestly by log p(x) − log p(x); "
            f"paired, nats per {unit}"
        )
        found.add_column("than")
        for header in ("naive", "honest"):
            found.add_column(f"{header}\ndifference", justify="right", no_wrap=True)
            found.add_column(f"{header}\nverdict", no_wrap=True)
        found.add_column("")
        for pair in sorted((pair for pair in naive if pair.model == model), key=lambda pair: -pair.difference):
            found.add_row(
                LABELS[pair.versus],
                with_error(pair.naive, pair.naive_error),
                WORDS[pair.naively],
                MARKS.get(pair.kind, "") + with_error(pair.difference, pair.error),
                WORDS[pair.honest],
                pair.comment,
            )
        tables.append(found)
    return tables


def comparisons(rows: pd.DataFrame) -> list[str]:
    """The best model against every other, point by point: what is proven, what stays open, what a naive table hides."""
    models, every = standings(rows), pairs(rows)
    if len(models) < 2 or not every:
        return []
    best = models[0]
    beaten: list[str] = []
    unsettled: list[str] = []
    lines: list[str] = []
    for pair in every:
        if best.model not in (pair.model, pair.versus):
            continue
        other = pair.versus if pair.model == best.model else pair.model
        won = "first" if pair.model == best.model else "second"
        (beaten if pair.honest == won else unsettled).append(LABELS[other])
    words = f"Best by log p(x): {best.label}."
    if beaten:
        words += f" Proven, by two errors of the paired difference, against {', '.join(beaten)}."
    if unsettled:
        words += f" Not settled, or equal: {', '.join(unsettled)}."
    lines.append(words)
    overturned = [pair for pair in every if pair.comment == "overturned"]
    if overturned:
        which = "; ".join(f"{pair.winner(pair.honest)} before {pair.winner(pair.naively)}" for pair in overturned)
        lines.append(f"Taking the ELBO for log p(x) would have turned round: {which}.")
    return lines
