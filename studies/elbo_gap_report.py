"""Tables of `elbo_gap`, from its rows alone, to be read in 80 columns: torch is never loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
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
MARKS = {"lower bound": "≥ ", "upper bound": "≤ ", "estimate": "≈ "}
BLANK = Text("")  # between words and a table
SIGMAS = 2.0  # errors by which two numbers of one model must differ to be called different


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
    latents: float
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


def with_error(value: float, error: float) -> str:
    """A number with its error to two significant digits, three where it is above 1, and at most 5 decimals.

    >>> with_error(-119.657, 1.013), with_error(0.0123456, 0.00123), with_error(-12345.6, 123.4)
    ('-119.66 ± 1.01', '0.0123 ± 0.0012', '-12346 ± 123')
    """
    digits = 2
    if 0 < error < math.inf:
        order = math.floor(math.log10(error))
        digits = max(0, min(5, max(1 - order, min(2, 2 - order))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def narrow(title: str) -> Table:
    """An empty table that spends two blanks between columns and no lines, so that 80 columns hold its numbers."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )


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
    """One line a model, the highest log p(x) first; below, what the numbers are and how each was found."""
    models, about = averaged(df), shared(df)
    found = narrow(f"{about['data']}: log p(x), ELBO and the gap, nats per {about['unit']}")
    found.add_column("model")
    found.add_column("kind", no_wrap=True)
    for header in ("log p(x)", "ELBO", "gap"):
        found.add_column(header, justify="right", no_wrap=True)
    for row in models:
        found.add_row(row.label, row.kind.split()[-1], row.value_text, row.elbo_text, row.gap_text)
    lines = [caption(df), *few_columns(df), *causes(df), *weighted_bounds(df), *certificates(df)]
    if not pd.isna(about.get("levels")):
        dims = about["features"] * math.log(2)
        bits = ", ".join(f"{row.label} {'≤ ' if row.is_bound else ''}{-row.value / dims:.3f}" for row in models)
        lines.append(f"Bits per dimension: {bits}.")
    return Group(found, *(Text(line) for line in lines), BLANK, method_table(df), BLANK)


def method_table(df: pd.DataFrame) -> Table:
    """How log p(x) of every model is known, and what the model costs."""
    several = df["seed"].nunique() > 1
    found = narrow("How log p(x) is known; parameters, the encoder's among them; seconds of the fit")
    found.add_column("model")
    found.add_column("kind and method")
    for header in (*(["sd over\nseeds"] if several else []), "parameters", "seconds"):
        found.add_column(header, justify="right", no_wrap=True)
    for row in averaged(df):
        sampling = f"; error of sampling {row.monte_carlo_error:.2g}" if row.monte_carlo_error > 0 else ""
        found.add_row(
            row.label,
            f"{row.kind}: {row.method}{sampling}",
            *([f"{row.seed_deviation:.2f}"] if several else []),
            f"{row.parameters:,.0f}",
            f"{row.seconds:.1f}",
        )
    return found


def few_columns(df: pd.DataFrame) -> list[str]:
    """Which models cannot have more latents, whatever was asked; rows from before latents were kept say nothing."""
    features, latents = int(shared(df)["features"]), {row.model: row.latents for row in averaged(df)}
    names = [label for model, label in LABELS.items() if latents.get(model) == features - 1]
    if not names:
        return []
    count = f"{features - 1} latent{'s' if features > 2 else ''}"
    return [
        f"{' and '.join(names)}: {count}, the most that data of {features} columns allows; "
        "enough for any full Gaussian."
    ]


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
        text += "≥ marks a lower bound (in expectation). The gap is log p(x) − ELBO, paired; –: no encoder, no ELBO. "
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
        line = (
            f"{row.label}: of its gap the encoder's family, a diagonal Gaussian, costs {row.mark}"
            f"{with_error(row.approximation, row.approximation_error)} (approximation), and that one network serves "
            f"all points {with_error(row.amortisation, row.amortisation_error)} (amortisation)"
        )
        late = f"; at {row.unconverged:.0%} of points the local fit was still improving, which counts as approximation"
        lines.append(line + (late if row.unconverged > 0.005 else "") + ".")
    return lines


def weighted_bounds(df: pd.DataFrame) -> list[str]:
    """What importance weighting alone would have said of the models that do not know log p(x) by themselves."""
    unit = shared(df)["unit"]
    return [
        f"{row.label}: importance weighting with {row.weighted_draws:,.0f} draws of the encoder gives "
        f"{_weighted(row)}. Effective sample size: median {row.ess_median:.0f}, least {row.ess_least:.1f}; Pareto k "
        f"flags {row.unreliable:.0%} of {unit}s."
        for row in averaged(df)
        if not math.isnan(row.weighted)
    ]


def _weighted(row: Shown) -> str:
    """The importance-weighted bound, and how it stands to log p(x) in the table."""
    bound = f"≥ {with_error(row.weighted, row.weighted_monte_carlo_error)} by its own account"
    reference = "exact value" if row.kind == "exact" else row.kind
    above = row.weighted - row.value
    margin = SIGMAS * math.hypot(row.weighted_monte_carlo_error, row.monte_carlo_error)
    if above < -margin:
        return f"only {bound}, {-above:.2g} below the {reference} in the table"
    if above <= 0:
        return f"{bound}, within its error of the {reference} in the table"
    trust = ", and its ± is not to be trusted" if above > margin and row.kind == "exact" else ""
    return f"{bound}, {above:.2g} more than the {reference} in the table: it is a bound only in expectation{trust}"


def certificates(df: pd.DataFrame) -> list[str]:
    """How far apart annealing's two bounds are where both exist: on data simulated from the model."""
    unit = shared(df)["unit"]
    return [
        f"{row.label}: on {row.simulated:.0f} {unit}s simulated from the model itself, the same annealing run forwards "
        f"and backwards gives a lower and an upper bound "
        f"{with_error(row.sandwich_width, row.sandwich_standard_error)} nats apart. On test {unit}s there is no upper "
        "bound."
        for row in averaged(df)
        if not math.isnan(row.sandwich_width)
    ]


def shared(df: pd.DataFrame) -> dict[str, Any]:
    """What the rows of all models have in common: data, unit, measure, dtype."""
    return {str(name): value for name, value in df[df["versus"].isna()].iloc[-1].items()}
