"""Table, figure and checks of `amortization`, from its rows alone: torch is never loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LABELS = {
    "baseline": "baseline",
    "small-encoder": "small encoder",
    "large-encoder": "large encoder",
    "small-decoder": "small decoder",
    "large-decoder": "large decoder",
    "flow-posterior": "flow posterior",
}
PARTS = {"train": "training images", "test": "test images"}
RECALLED = {  # Cremer et al. 2018, table 2: log p(x), approximation, amortisation, gap
    "mnist-binary": {"baseline": (-89.80, 1.43, 1.34, 2.77), "flow-posterior": (-88.94, 1.44, 1.41, 2.85)},
    "fashion-mnist": {"baseline": (-97.47, 3.06, 4.22, 7.28), "flow-posterior": (-97.41, 1.69, 4.66, 6.35)},
}
SIGMAS = 2.0
SLACK = 0.1  # nats that the search for a local q may leave behind


@dataclass(frozen=True)
class Number:
    """A mean over images and seeds, with its standard error."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"

    def __sub__(self, other: Number) -> Number:
        return Number(self.mean - other.mean, math.hypot(self.error, other.error))

    @property
    def positive(self) -> bool:
        """By so many errors."""
        return self.mean > SIGMAS * self.error


@dataclass(frozen=True)
class Claim:
    """One sentence of the study: the first number is larger than the second."""

    words: str
    larger: Number
    smaller: Number

    @property
    def difference(self) -> Number:
        return self.larger - self.smaller

    @property
    def verdict(self) -> str:
        if self.difference.positive:
            return "holds"
        return "does not hold: the opposite" if (self.smaller - self.larger).positive else "not decided"

    def __str__(self) -> str:
        return f"{self.words}: {self.verdict} ({self.smaller} against {self.larger})"


def number(df: pd.DataFrame, model: str, part: str, column: str) -> Number | None:
    """Over seeds: the mean, with the larger of two errors, over images and, of three seeds or more, between seeds."""
    rows = df[(df["model"] == model) & (df["part"] == part)]
    if rows.empty:
        return None
    images = math.sqrt(float((rows[f"{column}_error"] ** 2).sum())) / len(rows)
    between = float(rows[column].std()) / math.sqrt(len(rows)) if len(rows) > 2 else 0.0
    return Number(float(rows[column].mean()), max(images, between))


def claims(df: pd.DataFrame, part: str) -> list[Claim]:
    """Those of the study's claims whose models are there."""
    sought = (
        ("a larger encoder narrows the amortisation gap", "amortisation", "small-encoder", "large-encoder"),
        ("a larger decoder narrows the approximation gap", "approximation", "small-decoder", "large-decoder"),
        ("a flow posterior narrows the approximation gap", "approximation", "baseline", "flow-posterior"),
        ("a flow posterior narrows the whole gap", "gap", "baseline", "flow-posterior"),
    )
    found = []
    for words, column, wide, narrow in sought:
        larger, smaller = number(df, wide, part, column), number(df, narrow, part, column)
        if larger is not None and smaller is not None:
            found.append(Claim(f"{PARTS[part]}: {words}", larger, smaller))
    return found


def gaps_table(df: pd.DataFrame) -> Group:
    """A line for each model and part; below, the claims."""
    data = str(df["data"].iloc[0])
    table = Table(title=f"{data}, nats per image, ± standard error", title_justify="left")
    for header in ("images", "model"):
        table.add_column(header, no_wrap=True)
    names = ("log p(x) ≥", "ELBO", "gap", "approximation", "with a flow", "amortisation", "local q found")
    for header in names:
        table.add_column(header, justify="right", no_wrap=True)
    for part in PARTS:
        for model, label in LABELS.items():
            rows = df[(df["model"] == model) & (df["part"] == part)]
            if rows.empty:
                continue
            columns = ("log_p", "elbo", "gap", "approximation", "approximation_flow", "amortisation")
            cells = [str(number(df, model, part, column)) for column in columns]
            own = "flow" if model == "flow-posterior" else "gaussian"
            table.add_row(part, label, *cells, f"{rows[f'converged_{own}'].mean():.0%}")
    lines = [str(claim) for part in PARTS for claim in claims(df, part)]
    lines += [
        f"Recalled, Cremer et al. 2018, {LABELS[model]}: log p(x) {recalled[0]:.2f}, approximation {recalled[1]:.2f}, "
        f"amortisation {recalled[2]:.2f}, gap {recalled[3]:.2f}"
        for model, recalled in RECALLED.get(data, {}).items()
    ]
    lines.append(
        "log p(x): lower bound by annealing. Approximation: log p(x) less the best local ELBO of the encoder's own "
        "family; with a flow: of a flow for each image. Amortisation: that local ELBO less the encoder's. Local q "
        "found: share of images where the search had converged; elsewhere approximation is too high by what it left."
    )
    return Group(table, Text("\n".join(lines)))


def gaps_figure(df: pd.DataFrame) -> Figure:
    """Both parts of the gap, one upon the other, for every model."""
    models = [model for model in LABELS if model in set(df["model"])]
    with panels(2, width=12) as (figure, axes):
        for panel, (part, label) in zip(axes, PARTS.items(), strict=True):
            left = [0.0] * len(models)
            for colour, column in ((PALETTE[0], "approximation"), (PALETTE[1], "amortisation")):
                numbers = [number(df, model, part, column) for model in models]
                known = [n if n is not None else Number(0.0, 0.0) for n in numbers]
                panel.barh(
                    range(len(models)), [n.mean for n in known], left=left, color=colour, height=0.6, label=column
                )
                left = [start + n.mean for start, n in zip(left, known, strict=True)]
                # Errors of the two parts are drawn apart in height, since the bars end close to one another.
                heights = [h + (0.12 if column == "amortisation" else -0.12) for h in range(len(models))]
                panel.errorbar(left, heights, xerr=[n.error for n in known], fmt="none", color="0.2", capsize=3)
            panel.set_ylim(len(models) - 0.4, -0.6)
            panel.set_yticks(
                range(len(models)), [LABELS[m] for m in models] if panel is axes[0] else [""] * len(models)
            )
            panel.grid(axis="y", visible=False)
            panel.set(xlabel="log p(x) − ELBO, nats per image")
            panel.set_title(label, loc="left", fontweight="bold")
        axes[0].legend(title="gap of", loc="lower right", framealpha=1)
        limit = max(panel.get_xlim()[1] for panel in axes)
        for panel in axes:
            panel.set_xlim(0, limit)
        caption(figure, " ".join(f"{_capital(str(claim))}." for part in PARTS for claim in claims(df, part)))
    return figure


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def bars(df: pd.DataFrame) -> list[Check]:
    """What must hold, and the study's claims as far as this run decides them."""
    found = []
    for part in PARTS:
        for model, label in LABELS.items():
            gaussian, flow = (number(df, model, part, f"approximation_{family}") for family in ("gaussian", "flow"))
            if gaussian is not None and flow is not None:
                words = f"{label}, {part}: a local flow is no worse than the local Gaussian that it starts from"
                holds = flow.mean < gaussian.mean + SLACK  # the same images, so that their errors hardly count
                found.append(Check(f"{words} ({flow}, {gaussian} nats)", holds, f"≤ {gaussian}", str(flow)))
            numbers = {c: number(df, model, part, c) for c in ("approximation", "approximation_flow", "amortisation")}
            for column, value in numbers.items():
                if value is not None:
                    words = f"{label}, {part}: {column.replace('_', ' with a ')} gap not negative"
                    holds = value.mean > -3 * value.error - SLACK  # three errors: many numbers are looked at
                    found.append(Check(f"{words} ({value} nats)", holds, "≥ 0", str(value)))
    return found
