"""Table and checks of `elbo_gap`, from its rows alone: torch is never loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

LABELS = {
    "gaussian": "full Gaussian",
    "ppca": "PPCA",
    "mixture": "Gaussian mixture",
    "linear-vae": "linear VAE",
    "vae-2": "VAE, 2 latents",
    "vae-16": "VAE, 16 latents",
    "lu-flow": "LU-linear flow",
    "coupling": "coupling flow",
    "maf": "MAF",
    "coupling-vae": "coupling flow as a VAE",
}


@dataclass(frozen=True)
class Shown:
    """One model: numbers averaged over seeds, NaN where it has none."""

    model: str
    label: str
    kind: str
    method: str
    gap_kind: str
    value: float
    standard_error: float
    monte_carlo_error: float
    elbo: float
    elbo_standard_error: float
    gap: float
    gap_standard_error: float
    gap_monte_carlo_error: float
    weighted: float
    weighted_draws: float
    weighted_monte_carlo_error: float
    ess_median: float
    ess_least: float
    unreliable: float
    simulated: float
    sandwich_width: float
    sandwich_standard_error: float
    parameters: float
    seconds: float
    approximation: float
    approximation_error: float
    amortisation: float
    amortisation_error: float
    unconverged: float
    seed_deviation: float

    @property
    def is_bound(self) -> bool:
        """Whether log p(x) is known only from below."""
        return self.kind == "lower bound"

    @property
    def has_encoder(self) -> bool:
        """Whether there is an ELBO."""
        return not math.isnan(self.gap)

    @property
    def gap_error(self) -> float:
        """Of data and draws together."""
        return math.hypot(self.gap_standard_error, self.gap_monte_carlo_error)

    @property
    def gap_text(self) -> str:
        """The gap with its error, and ≥ before a lower bound; 0 where nothing but rounding is left."""
        lower = "≥ " if self.is_bound else ""
        if abs(self.gap) < 5e-6 and self.gap_error < 5e-6:
            return f"{lower}0"
        digits = max(2, min(5, 1 - math.floor(math.log10(self.gap_error)))) if self.gap_error > 0 else 2
        return f"{lower}{self.gap:.{digits}f} ± {self.gap_error:.{digits}f}"


def averaged(df: pd.DataFrame) -> list[Shown]:
    """One entry a model, highest log p(x) first."""
    words = ["kind", "method", "gap_kind"]
    numbers = [name for name in Shown.__annotations__ if name not in (*words, "model", "label", "seed_deviation")]
    found = []
    for model, rows in df[df["versus"].isna()].groupby("model"):
        columns: dict[str, Any] = {name: float(rows[name].mean()) if name in rows else math.nan for name in numbers}
        columns |= {name: str(rows[name].iloc[0]) if name in rows else "" for name in words}
        name = str(model)
        found.append(Shown(model=name, label=LABELS[name], seed_deviation=float(rows["value"].std()), **columns))
    return sorted(found, key=lambda shown: (-shown.value, list(LABELS).index(shown.model)))


def gap_table(df: pd.DataFrame) -> Group:
    """One line a model, the highest log p(x) first; below, what the paired comparisons say."""
    several = df["seed"].nunique() > 1
    about = shared(df)
    shown = Table(title=f"{about['data']}: log p(x), ELBO and the gap, nats per {about['unit']}", title_justify="left")
    shown.add_column("model", no_wrap=True)
    shown.add_column("log p(x)", justify="right", no_wrap=True)
    shown.add_column("kind and method")
    for header in ("ELBO", "gap", *(["sd over seeds"] if several else []), "parameters", "seconds"):
        shown.add_column(header, justify="right", no_wrap=True)
    for row in averaged(df):
        method = f"{row.kind}: {row.method}"
        if row.monte_carlo_error > 0:
            method += f" (± {row.monte_carlo_error:.2g})"
        shown.add_row(
            row.label,
            f"{'≥ ' if row.is_bound else ''}{row.value:.2f} ± {row.standard_error:.2f}",
            method,
            f"{row.elbo:.2f} ± {row.elbo_standard_error:.2f}" if row.has_encoder else "–",
            row.gap_text if row.has_encoder else "–",
            *([f"{row.seed_deviation:.2f}"] if several else []),
            f"{row.parameters:,.0f}",
            f"{row.seconds:.1f}",
        )
    if not pd.isna(about.get("levels")):
        dims = about["features"] * math.log(2)
        bits = ", ".join(f"{row.label} {'≤ ' if row.is_bound else ''}{-row.value / dims:.3f}" for row in averaged(df))
        lines = [f"Bits per dimension: {bits}."]
    else:
        lines = []
    lines = [caption(df), *causes(df), *weighted_bounds(df), *certificates(df), *lines]
    return Group(shown, *(Text(line) for line in lines))


def caption(df: pd.DataFrame, brief: bool = False) -> str:
    """What the numbers are: data, unit, measure, errors."""
    about = shared(df)
    unit, seeds = about["unit"], sorted(df["seed"].unique())
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}"
    text = (
        f"{about['data']}: {int(about['train_rows']):,} {unit}s to fit, {int(about['test_rows']):,} others to test; "
        f"{which}. Nats per {unit}, {about['measure']} measure, in the units of the data. "
        f"± is the standard error over test {unit}s. "
    )
    if not brief:
        text += (
            "≥ marks a lower bound (in expectation), with the error of its sampling in brackets. The gap is log p(x) − "
            "ELBO, paired; –: no encoder, no ELBO. Parameters include the encoder's. "
            "Seconds are for the fit. "
        )
    if not pd.isna(about["note"]):
        text += f"{about['note'][0].upper()}{about['note'][1:]}. "
    if not pd.isna(about["best"]):
        text += f"The true density has {about['best']:.2f} in expectation. "
    return text.strip()


def causes(df: pd.DataFrame) -> list[str]:
    """What a VAE's gap is made of."""
    lines = []
    for row in averaged(df):
        if math.isnan(row.approximation):
            continue
        lower = "≥ " if row.is_bound else ""
        line = (
            f"{row.label}: of its gap the encoder's family, a diagonal Gaussian, costs {lower}"
            f"{row.approximation:.2f} ± {row.approximation_error:.2f} (approximation), and that one network serves all "
            f"points {row.amortisation:.2f} ± {row.amortisation_error:.2f} (amortisation)"
        )
        late = f"; at {row.unconverged:.0%} of points the local fit was still improving, which counts as approximation"
        lines.append(line + (late if row.unconverged > 0.005 else "") + ".")
    return lines


def weighted_bounds(df: pd.DataFrame) -> list[str]:
    """What importance weighting alone would have said of the models that do not know log p(x) by themselves."""
    unit = shared(df)["unit"]
    return [
        f"{row.label}: importance weighting with {row.weighted_draws:.0f} draws of the encoder gives only "
        f"≥ {row.weighted:.2f} (± {row.weighted_monte_carlo_error:.2g} by its own account); effective sample size: "
        f"median {row.ess_median:.0f}, least {row.ess_least:.1f}; Pareto k flags {row.unreliable:.0%} of {unit}s."
        for row in averaged(df)
        if not math.isnan(row.weighted)
    ]


def certificates(df: pd.DataFrame) -> list[str]:
    """How far apart annealing's two bounds are where both exist: on data simulated from the model."""
    unit = shared(df)["unit"]
    return [
        f"{row.label}: on {row.simulated:.0f} {unit}s simulated from the model itself, the same annealing run forwards "
        f"and backwards gives a lower and an upper bound {row.sandwich_width:.3f} ± {row.sandwich_standard_error:.3f} "
        f"nats apart. On test {unit}s there is no upper bound."
        for row in averaged(df)
        if not math.isnan(row.sandwich_width)
    ]


def shared(df: pd.DataFrame) -> dict[str, Any]:
    """What the rows of all models have in common: data, unit, measure, dtype."""
    return {str(name): value for name, value in df[df["versus"].isna()].iloc[-1].items()}
