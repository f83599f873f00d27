"""What the rows of `amortization` say: table, checks and figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Decision, Statement, Verdict, decisions, over_seeds
from studies.amortization.settings import ModelName, Settings
from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import Number, empty, least_points, points_error
from studies.literature import Known

LABELS = {model: model.replace("-", " ") for model in get_args(ModelName)}
PARTS = {"train": "training images", "test": "test images"}
RECALLED = {  # Cremer et al. 2018, table 2: log p(x), approximation, amortisation, gap
    "mnist-binary": {"baseline": (-89.80, 1.43, 1.34, 2.77), "flow-posterior": (-88.94, 1.44, 1.41, 2.85)},
    "fashion-mnist": {"baseline": (-97.47, 3.06, 4.22, 7.28), "flow-posterior": (-97.41, 1.69, 4.66, 6.35)},
}
CLAIMS = (  # what is narrowed, of which model, by which other one
    ("a larger encoder narrows the amortisation gap", "amortisation", "small-encoder", "large-encoder"),
    ("a larger decoder narrows the approximation gap", "approximation", "small-decoder", "large-decoder"),
    ("a flow posterior narrows the approximation gap", "approximation", "baseline", "flow-posterior"),
    ("a flow posterior narrows the whole gap", "gap", "baseline", "flow-posterior"),
)
TOLD = {Verdict.FIRST: "holds", Verdict.SECOND: "the opposite holds", Verdict.OPEN: "not decided"}
SLACK = 0.1  # nats that the search for a local q may leave behind


@dataclass(frozen=True)
class Claim:
    """One sentence of the study: the first number is larger than the second."""

    words: str
    larger: Number
    smaller: Number
    decision: Decision

    def __str__(self) -> str:
        numbers = f"({self.smaller} against {self.larger})"
        if self.decision.anew is None:
            return f"{self.words}: {TOLD[self.decision.verdict]} {numbers}"
        fitted, anew = TOLD[self.decision.verdict], TOLD[self.decision.verdict_anew]
        return f"{self.words}: of these fits {fitted}, of models trained anew {anew} {numbers}"


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the models of these settings."""
    return rows[rows["model"].isin(settings.models)]


def asked(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The rows of every part and model that there are, all seeds together."""
    every = {
        (part, model): rows[(rows["part"] == part) & (rows["model"] == model)] for part in PARTS for model in LABELS
    }
    return {name: found for name, found in every.items() if len(found)}


def number(rows: pd.DataFrame, column: str) -> Number:
    """Over seeds: the mean, with the larger of two errors, over images and, of three seeds or more, between seeds."""
    images = points_error(rows[f"{column}_error"])
    between = float(rows[column].std()) / math.sqrt(len(rows)) if len(rows) > 2 else 0.0
    return Number(float(rows[column].mean()), max(images, between))


def claims(rows: pd.DataFrame) -> list[Claim]:
    """Those of the study's claims whose models are there, on training and on test images."""
    found = asked(rows)
    family, numbers = {}, {}
    for part, where in PARTS.items():
        for words, column, wide, narrow in CLAIMS:
            if {(part, wide), (part, narrow)} <= set(found):
                larger, smaller = found[part, wide], found[part, narrow]
                family[f"{where}: {words}"] = difference(larger, smaller, column)
                numbers[f"{where}: {words}"] = number(larger, column), number(smaller, column)
    return [Claim(words, *numbers[words], decision) for words, decision in decisions(family).items()]


def difference(larger: pd.DataFrame, smaller: pd.DataFrame, column: str) -> tuple[Statement, Statement | None]:
    """By how much a number of one model is above that of another, over the seeds that both have.

    The means are over the same images, and taken for independent, since no single images are kept: their difference
    then has the larger error, where images are hard for both.
    """
    one, other = larger.set_index("seed"), smaller.set_index("seed")
    seeds = one.index.intersection(other.index)
    error = np.hypot(one.loc[seeds, f"{column}_error"], other.loc[seeds, f"{column}_error"])
    return over_seeds(one.loc[seeds, column] - other.loc[seeds, column], error, least_points(one, "rows"))


def table(rows: pd.DataFrame) -> Group:
    """log p(x), ELBO, and what lies between."""
    data = str(rows["data"].iloc[0])
    numbers = ("log p(x) ≥", "ELBO", "gap", "approximation", "with a flow", "amortisation", "local q found")
    shown = empty(f"{data}, nats per image, ± standard error", ("images", "model"), numbers)
    columns = ("log_p", "elbo", "gap", "approximation", "approximation_flow", "amortisation")
    for (part, model), own in asked(rows).items():
        converged = own["converged_flow" if model == "flow-posterior" else "converged_gaussian"].mean()
        shown.add_row(part, LABELS[model], *(str(number(own, column)) for column in columns), f"{converged:.0%}")
    lines = [
        *map(str, claims(rows)),
        "log p(x): lower bound by annealing. Approximation: log p(x) less the best local ELBO of the encoder's own "
        "family; with a flow: of a flow for each image. Amortisation: that local ELBO less the encoder's. Local q "
        "found: share of images where the search had converged; elsewhere approximation is too high by what it left.",
    ]
    return Group(shown, *published(data), Text("\n".join(lines)))


def published(data: str) -> list[Table]:
    """What the paper has of these data, and how that is known."""
    if data not in RECALLED:
        return []
    names = ("log p(x)", "approximation", "amortisation", "gap")
    shown = empty("Published, nats per image: Cremer et al. 2018, table 2", ("model", "read"), names)
    for model, numbers in RECALLED[data].items():
        shown.add_row(LABELS[model], Known.RECALLED.value, *(f"{number:.2f}" for number in numbers))
    return [shown]


def checks(rows: pd.DataFrame) -> list[Check]:
    """A local flow is no worse than a Gaussian, and no part of a gap is negative: a sign, of all parts by Holm."""
    found = []
    signs = decisions(
        {
            (part, model, column): over_seeds(
                own[column], own[f"{column}_error"], least_points(own, "rows"), slack=SLACK
            )
            for (part, model), own in asked(rows).items()
            for column in ("approximation", "approximation_flow", "amortisation")
        }
    )
    for (part, model), own in asked(rows).items():
        gaussian, flow = (number(own, f"approximation_{family}") for family in ("gaussian", "flow"))
        words = f"{LABELS[model]}, {part}: a local flow is no worse than the local Gaussian that it starts from"
        holds = flow.mean < gaussian.mean + SLACK  # the same images, so that their errors hardly count
        found.append(Check(f"{words} ({flow}, {gaussian} nats)", holds, f"≤ {gaussian}", str(flow)))
    for (part, model, column), decision in signs.items():
        value = number(asked(rows)[part, model], column)
        words = f"{LABELS[model]}, {part}: {column.replace('_', ' with a ')} gap not negative, by Holm at 5 %"
        found.append(Check(f"{words} ({value} nats)", decision.verdict is not Verdict.SECOND, "≥ 0", str(value)))
    return found + [
        Finding.of(each.words, each.decision, f"{each.smaller} against {each.larger}") for each in claims(rows)
    ]


def figure(rows: pd.DataFrame) -> Figure:
    """Approximation and amortisation gap, one upon the other, of every model, on training and on test images."""
    models, found = [model for model in LABELS if model in set(rows["model"])], asked(rows)
    with panels(2, width=12) as (drawn, axes):
        for panel, (part, label) in zip(axes, PARTS.items(), strict=True):
            left = [0.0] * len(models)
            for colour, column, apart in ((PALETTE[0], "approximation", -0.12), (PALETTE[1], "amortisation", 0.12)):
                known = [
                    number(found[part, model], column) if (part, model) in found else Number(0.0, 0.0)
                    for model in models
                ]
                panel.barh(
                    range(len(models)), [n.mean for n in known], left=left, color=colour, height=0.6, label=column
                )
                left = [start + n.mean for start, n in zip(left, known, strict=True)]
                # Errors of the two parts are drawn apart in height, since the bars end close to one another.
                heights = [height + apart for height in range(len(models))]
                panel.errorbar(left, heights, xerr=[n.error for n in known], fmt="none", color="0.2", capsize=3)
            panel.set_ylim(len(models) - 0.4, -0.6)
            panel.set_yticks(range(len(models)), [LABELS[model] if panel is axes[0] else "" for model in models])
            panel.grid(axis="y", visible=False)
            panel.set(xlabel="log p(x) − ELBO, nats per image")
            panel.set_title(label, loc="left", fontweight="bold")
        axes[0].legend(title="gap of", loc="lower right", framealpha=1)
        limit = max(panel.get_xlim()[1] for panel in axes)
        for panel in axes:
            panel.set_xlim(0, limit)
        seeds = ", ".join(map(str, sorted(rows["seed"].unique())))
        caption(
            drawn,
            f"{rows['data'].iloc[0]}, seeds {seeds}: a bar ends at the whole gap. ± of each part is the larger error, "
            "over images or, of three seeds, between them.",
        )
    return drawn
