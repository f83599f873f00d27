"""Where each model of `elbo_gap` stands: its numbers averaged over seeds, in words where they are no plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from significance import Kind, joint
from studies.kit.tables import averaged, with_error

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
    "spline-maf": "spline MAF",
    "coupling-vae": "coupling flow as a VAE",
}
MARKS = {"lower bound": "≥ ", "upper bound": "≤ ", "estimate": "≈ "}
OVERFIT = 0.1  # nats a feature
SIGMAS = 2.0  # errors by which two numbers of one model must differ to be called different


@dataclass(frozen=True)
class Standing:
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
    latents: float
    parameters: float
    seconds: float
    approximation: float
    approximation_error: float
    amortisation: float
    amortisation_error: float
    unconverged: float
    median: float
    worst_share: float
    overfitting: float
    overfitting_error: float
    features: float
    unbounded_seeds: float
    seed_deviation: float

    @property
    def unbounded(self) -> bool:
        """Whether its likelihood has no maximum on this data, in any seed; rows of before that was asked say no."""
        return self.unbounded_seeds > 0

    @property
    def overfits(self) -> bool:
        """Whether it says more of training than of test rows by two errors and a tenth of a nat a feature."""
        return self.overfitting > max(SIGMAS * self.overfitting_error, OVERFIT * self.features)

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
    def mark(self) -> str:
        """What stands before a number that is not exact."""
        return MARKS.get(self.kind, "")

    @property
    def value_text(self) -> str:
        """log p(x) with its error, and ≥ before a lower bound."""
        return self.mark + with_error(self.value, self.standard_error)

    @property
    def elbo_text(self) -> str:
        """The ELBO with its error; – where there is none."""
        return with_error(self.elbo, self.elbo_standard_error) if self.has_encoder else "–"

    @property
    def gap_text(self) -> str:
        """The gap with its error, and ≥ before a lower bound; 0 where nothing but rounding is left, – without ELBO."""
        if not self.has_encoder:
            return "–"
        if abs(self.gap) < 5e-6 and self.gap_error < 5e-6:
            return f"{self.mark}0"
        return self.mark + with_error(self.gap, self.gap_error)


def standings(rows: pd.DataFrame) -> list[Standing]:
    """One entry a model, highest log p(x) first."""
    words = ["kind", "method", "gap_kind"]
    numbers = [name for name in Standing.__annotations__ if name not in (*words, "model", "label", "seed_deviation")]
    found = []
    alone = rows[rows["versus"].isna()]
    means = averaged(alone, "model", draws=("sandwich_standard_error",))
    for model, of in alone.groupby("model"):
        columns: dict[str, Any] = {name: float(means[name][model]) if name in means else math.nan for name in numbers}
        columns["unbounded_seeds"] = float(of["unbounded"].sum()) if "unbounded" in of else 0.0
        columns |= {name: str(of[name].iloc[0]) if name in of else "" for name in words}
        for kind in ("kind", "gap_kind"):
            if kind in of and of[kind].notna().any():
                columns[kind] = joint(map(Kind, of[kind].dropna())).value
        name = str(model)
        found.append(Standing(model=name, label=LABELS[name], seed_deviation=float(of["value"].std()), **columns))
    return sorted(found, key=lambda standing: (-standing.value, list(LABELS).index(standing.model)))


def caption(rows: pd.DataFrame, brief: bool = False) -> str:
    """What the numbers are: data, unit, measure, errors."""
    about = shared(rows)
    unit, seeds = about["unit"], sorted(rows["seed"].unique())
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}"
    text = (
        f"{about['data']}: {int(about['train_rows']):,} {unit}s to fit, {int(about['test_rows']):,} others to test; "
        f"{which}. Nats per {unit}, {about['measure']} measure, in the units of the data. "
        f"± is the standard error over test {unit}s. "
    )
    if not brief:
        text += "≥ marks a lower bound (in expectation). The gap is log p(x) − ELBO, paired; –: no encoder, no ELBO. "
    if not pd.isna(about["note"]):
        text += f"{about['note'][0].upper()}{about['note'][1:]}. "
    if not pd.isna(about["best"]):
        text += f"The true density has {about['best']:.2f} in expectation. "
    return text.strip()


def shared(rows: pd.DataFrame) -> dict[str, Any]:
    """What the rows of all models have in common: data, unit, measure, dtype."""
    return {str(name): value for name, value in rows[rows["versus"].isna()].iloc[-1].items()}
