"""What the rows of `diffusion` say of each model and of every two: means over seeds, differences decided by Holm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from significance import Decision, Kind, decisions, joint, over_seeds
from studies.kit.tables import averaged, with_error

Reading = dict[str, Any]
LABELS = {
    "chain": "chain",
    "annealed": "short chain, annealed",
    "limit": "chain, T → ∞",
    "ode": "its ODE",
    "simple": "chain by the simple loss",
    "matching": "flow matching",
    "likelihood": "maximum likelihood",
    "coupling": "coupling flow",
    "vae": "VAE",
    "hierarchy": "VAE of two levels",
}


@dataclass(frozen=True)
class Pair:
    """Two models at the same points; nats a point, means over seeds.

    Attributes:
        model, versus: names.
        decision: on the first one's log p(x) less the second's; None where both are known from one side alone.
        spread: standard deviation of the difference over points; nan where there is none.
        naive, naive_error: the same difference in a column of ELBOs and densities.
    """

    model: str
    versus: str
    decision: Decision | None
    spread: float
    naive: float
    naive_error: float

    @property
    def errors(self) -> float:
        """How many paired errors the difference of these fits is from 0; nan where there is none."""
        if self.decision is None:
            return math.nan
        of = self.decision.fitted
        return of.mean / of.error if of.error else math.inf

    @property
    def text(self) -> str:
        """The difference of these fits with its error, and a sign where it is a bound."""
        if self.decision is None:
            return "none"
        of = self.decision.fitted
        sign = {Kind.LOWER: "≥ ", Kind.UPPER: "≤ "}.get(of.kind, "")
        return f"{sign}{with_error(of.mean, of.error)}"

    @property
    def naive_text(self) -> str:
        """What the column says, with its error."""
        return with_error(self.naive, self.naive_error)


def sets(rows: pd.DataFrame) -> list[str]:
    """Names of the sets, in the order of the rows."""
    return list(map(str, rows["data"].unique()))


def readings(rows: pd.DataFrame, data: str) -> list[Reading]:
    """The columns of every reading of a set's models, means over seeds, in the order of the rows."""
    mine = rows[rows["versus"].isna() & (rows["data"] == data)]
    order = list(dict.fromkeys(zip(mine["model"], mine["number"], strict=True)))
    kinds = mine.groupby(["model", "number"])["kind"].agg(lambda kinds: joint(map(Kind, kinds)).value)
    found = averaged(mine, "model", "number").assign(kind=kinds).loc[order].reset_index()
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def reading(rows: pd.DataFrame, data: str, model: str, number: float = 0) -> Reading:
    """One of them."""
    (found,) = (each for each in readings(rows, data) if (each["model"], each["number"]) == (model, number))
    return found


def chains(rows: pd.DataFrame, data: str) -> list[Reading]:
    """Those of the chain, from the shortest to the longest."""
    return sorted((each for each in readings(rows, data) if each["model"] == "chain"), key=lambda each: each["number"])


def longest_known(rows: pd.DataFrame, data: str) -> Reading:
    """The chain that other models are compared with: the longest of which more is known than the ELBO."""
    return [each for each in chains(rows, data) if each["beyond_elbo"]][-1]


def pairs(rows: pd.DataFrame, data: str) -> dict[tuple[str, str], Pair]:
    """Every two models of a set; what can be said of their log p(x) is decided together."""
    both = rows[rows["versus"].notna() & (rows["data"] == data)]
    groups = {(str(a), str(b)): of for (a, b), of in both.groupby(["model", "versus"], sort=False)}
    family = {
        names: over_seeds(
            of["value"],
            of["value_error"],
            int(of["test_rows"].min()),
            kind=joint(map(Kind, of["kind"])),
            slack=float(of["numerical_error"].mean()),
        )
        for names, of in groups.items()
        if of["value"].notna().all()
    }
    decided = decisions(family)
    found = {}
    for names, of in groups.items():
        naive, _ = over_seeds(of["naive"], of["naive_error"], int(of["test_rows"].min()))
        spread = float(of["spread"].mean())
        found[names] = Pair(*names, decided.get(names), spread, naive.mean, naive.error)
    return found
