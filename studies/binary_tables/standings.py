"""What each model of `binary_tables` comes to on each table: rows averaged over seeds, with what they prove."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from significance import Decision, Kind, Statement, decisions, over_seeds
from studies.binary_tables.settings import MODELS, ModelName
from studies.kit.tables import Number, averaged

LABELS: dict[ModelName, str] = {
    "mixture": "Bernoulli mixture",
    "ELBO": "VAE, ELBO",
    "compiled": "that VAE as a mixture",
    "through": "VAE trained as a mixture",
    "IWAE": "VAE, IWAE",
    "flow": "VAE, flow prior",
    "hierarchy": "VAE, two levels",
}


@dataclass(frozen=True)
class Standing:
    """A model on a table, means over seeds.

    Attributes:
        model: by name.
        kind: of its log p: exact, or a lower bound.
        log_p: of the test rows, with the error of so many rows.
        sampling: error of it over draws; 0 of an exact one.
        over_mixture: less that of the mixture, paired; None of itself.
        over_truth: less that of what made up the table, paired; None of real ones.
        low, high: what the mean lies between, at the confidence of the settings; nan where no interval was asked.
    """

    model: ModelName
    kind: Kind
    log_p: Number
    sampling: float
    over_mixture: Number | None
    over_truth: Number | None
    low: float
    high: float

    @property
    def label(self) -> str:
        """In words."""
        return LABELS[self.model]

    @property
    def at_least(self) -> float:
        """The mean log p, or the lower end of what it lies between."""
        return self.log_p.mean if math.isnan(self.low) else self.low


def standings(rows: pd.DataFrame) -> dict[str, list[Standing]]:
    """By table, in the order of the rows and of the models."""
    found: dict[str, list[Standing]] = {}
    for name in rows["data"].unique():
        of = rows[rows["data"] == name]
        found[str(name)] = [_standing(model, of[of["model"] == model]) for model in MODELS if model in set(of["model"])]
    return found


def _standing(model: ModelName, rows: pd.DataFrame) -> Standing:
    means = {str(name): float(value) for name, value in averaged(rows, "model").iloc[0].items()}
    log_p, over_mixture, over_truth = (_number(means, name) for name in ("log_p", "over_mixture", "over_truth"))
    assert log_p is not None, "every row has one"
    ends = (means.get(name, math.nan) for name in ("low", "high"))
    return Standing(
        model, Kind(rows["kind"].iloc[0]), log_p, means["monte_carlo_error"], over_mixture, over_truth, *ends
    )


def judged(rows: pd.DataFrame, column: str) -> dict[tuple[str, ModelName], Decision]:
    """A paired difference of every model and table that has one, all decided together by Holm.

    What is a lower bound on log p is one on the difference, whose other side is exact.
    """
    family: dict[tuple[str, ModelName], tuple[Statement, Statement | None]] = {}
    known = rows[rows[column].notna()] if column in rows else rows[:0]
    for name in known["data"].unique():
        for model in MODELS:
            of = known[(known["data"] == name) & (known["model"] == model)]
            if len(of):
                points, kind = int(of["test_rows"].min()), Kind(of["kind"].iloc[0])
                family[str(name), model] = over_seeds(of[column], of[f"{column}_error"], points, kind=kind)
    return decisions(family)


def _number(means: Mapping[str, float], name: str) -> Number | None:
    mean = means.get(name, math.nan)
    return None if math.isnan(mean) else Number(mean, means[f"{name}_error"])
