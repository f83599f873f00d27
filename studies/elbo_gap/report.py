"""What the rows of `elbo_gap` say: tables to be read in 80 columns, and checks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Kind, Statement, Verdict, verdicts
from studies.elbo_gap.figure import figure as figure
from studies.elbo_gap.published import published_table
from studies.elbo_gap.settings import SAME, ModelName, Settings
from studies.elbo_gap.standings import LABELS, SIGMAS, Standing, caption, shared, standings
from studies.elbo_gap.verdicts import comparisons, findings, verdict_tables
from studies.kit.study import Check
from studies.kit.tables import averaged, narrow, with_error

BLANK = Text("")  # between words and a table
TIGHT: tuple[ModelName, ...] = ("ppca", "mixture", "coupling-vae")

# Nats by which the means of two fits of one density may differ. On the training rows a fit by gradient falls short of
# its optimum by what hides further progress: rounding, 1e-7 of some 100 nats (float32), or L-BFGS's own limit of 1e-9
# nats (float64). Other rows see, to first order, the square root of that: 3e-3 and 3e-5; the margin is 3.
TOLERANCES = {"float32": 1e-2, "float64": 1e-4}

# Of two ways to compute one log-density of up to some thousand nats, 1e-7 and 1e-16 of each, averaged over points.
ROUNDING = {"float32": 1e-3, "float64": 1e-9}


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the models of these settings, alone and in pairs."""
    return rows[rows["model"].isin(settings.models) & (rows["versus"].isna() | rows["versus"].isin(settings.models))]


def table(rows: pd.DataFrame) -> Group:
    """One row a model; below, who wins naively and honestly, and published numbers where there are any."""
    models = averaged(rows[rows["versus"].isna()], "model").reset_index()[["model", "value", "standard_error"]]
    tables = [*verdict_tables(rows), published_table(str(rows["data"].iloc[0]), models, LABELS)]
    words = [Text(line) for line in comparisons(rows)]
    spaced = [part for found in tables if found is not None for part in (BLANK, found)]
    return Group(gap_table(rows), *words, *spaced)


def gap_table(rows: pd.DataFrame) -> Group:
    """One line a model, the highest log p(x) first; below, what the numbers are and how each was found."""
    models, about = standings(rows), shared(rows)
    found = narrow(f"{about['data']}: log p(x), ELBO and the gap, nats per {about['unit']}")
    found.add_column("model")
    found.add_column("kind", no_wrap=True)
    for header in ("log p(x)", "ELBO", "gap"):
        found.add_column(header, justify="right", no_wrap=True)
    for row in models:
        found.add_row(row.label, row.kind.split()[-1], row.value_text, row.elbo_text, row.gap_text)
    lines = [caption(rows), *few_columns(rows), *causes(rows), *weighted_bounds(rows), *certificates(rows)]
    if not pd.isna(about.get("levels")):
        dims = about["features"] * math.log(2)
        bits = ", ".join(f"{row.label} {'≤ ' if row.is_bound else ''}{-row.value / dims:.3f}" for row in models)
        lines.append(f"Bits per dimension: {bits}.")
    spread = spread_table(rows)
    beside: list[Table | Text] = [] if spread is None else [spread, BLANK]
    return Group(found, *(Text(line) for line in lines), BLANK, *beside, method_table(rows), BLANK)


def spread_table(rows: pd.DataFrame) -> Table | None:
    """What rules every mean, and how it differs from training rows; None of rows that did not keep it."""
    models = [row for row in standings(rows) if not math.isnan(row.overfitting)]
    if not models:
        return None
    found = narrow("What is behind the means: median and worst row of test rows; training rows less test rows")
    found.add_column("model")
    for header in ("mean", "median", "worst row's\nshare of variance", "train − test"):
        found.add_column(header, justify="right", no_wrap=True)
    found.add_column("")
    for row in models:
        marks = (["overfits"] if row.overfits else []) + (["unbounded here"] if row.unbounded else [])
        found.add_row(
            row.label,
            f"{row.value:.2f}",
            f"{row.median:.2f}",
            f"{row.worst_share:.0%}",
            with_error(row.overfitting, row.overfitting_error),
            ", ".join(marks),
        )
    return found


def method_table(rows: pd.DataFrame) -> Table:
    """How log p(x) of every model is known, and what the model costs."""
    several = rows["seed"].nunique() > 1
    found = narrow("How log p(x) is known; parameters, the encoder's among them; seconds of the fit")
    found.add_column("model")
    found.add_column("kind and method")
    for header in (*(["sd over\nseeds"] if several else []), "parameters", "seconds"):
        found.add_column(header, justify="right", no_wrap=True)
    for row in standings(rows):
        sampling = f"; error of sampling {row.monte_carlo_error:.2g}" if row.monte_carlo_error > 0 else ""
        found.add_row(
            row.label,
            f"{row.kind}: {row.method}{sampling}",
            *([f"{row.seed_deviation:.2f}"] if several else []),
            f"{row.parameters:,.0f}",
            f"{row.seconds:.1f}",
        )
    return found


def few_columns(rows: pd.DataFrame) -> list[str]:
    """Which models cannot have more latents, whatever was asked; rows from before latents were kept say nothing."""
    features, latents = int(shared(rows)["features"]), {row.model: row.latents for row in standings(rows)}
    names = [label for model, label in LABELS.items() if latents.get(model) == features - 1]
    if not names:
        return []
    count = f"{features - 1} latent{'s' if features > 2 else ''}"
    return [
        f"{' and '.join(names)}: {count}, the most that data of {features} columns allows; "
        "enough for any full Gaussian."
    ]


def causes(rows: pd.DataFrame) -> list[str]:
    """What a VAE's gap is made of."""
    lines = []
    for row in standings(rows):
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


def weighted_bounds(rows: pd.DataFrame) -> list[str]:
    """What importance weighting alone would have said of the models that do not know log p(x) by themselves."""
    unit = shared(rows)["unit"]
    return [
        f"{row.label}: importance weighting with {row.weighted_draws:,.0f} draws of the encoder gives "
        f"{_weighted(row)}. Effective sample size: median {row.ess_median:.0f}, least {row.ess_least:.1f}; Pareto k "
        f"flags {row.unreliable:.0%} of {unit}s."
        for row in standings(rows)
        if not math.isnan(row.weighted)
    ]


def _weighted(row: Standing) -> str:
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


def certificates(rows: pd.DataFrame) -> list[str]:
    """How far apart annealing's two bounds are where both exist: on data simulated from the model."""
    unit = shared(rows)["unit"]
    return [
        f"{row.label}: on {row.simulated:.0f} {unit}s simulated from the model itself, the same annealing run forwards "
        f"and backwards gives a lower and an upper bound "
        f"{with_error(row.sandwich_width, row.sandwich_standard_error)} nats apart. On test {unit}s there is no upper "
        "bound."
        for row in standings(rows)
        if not math.isnan(row.sandwich_width)
    ]


def checks(rows: pd.DataFrame) -> list[Check]:
    """LU flow = full Gaussian; FlowVAE = flow; no ELBO is above log p(x), those of exact encoders equal it."""
    return [*identities(rows, SAME), *bounds(rows, TIGHT), *findings(rows)]


def identities(rows: pd.DataFrame, same: Sequence[tuple[str, str]]) -> list[Check]:
    """Whether pairs of models that must be one density are, in the worst seed."""
    dtype = str(shared(rows)["dtype"])
    found = []
    for a, b in same:
        pair = rows[(rows["model"] == a) & (rows["versus"] == b)]
        if len(pair):
            mean, largest = float(pair["value"].abs().max()), float(pair["largest"].max())
            claim = (
                f"{LABELS[a]} = {LABELS[b]}: mean test log p(x) differs by {mean:.1e} nats (at one point by "
                f"{largest:.1e}); allowed in {dtype}: {TOLERANCES[dtype]:.0e}"
            )
            found.append(Check(claim, mean <= TOLERANCES[dtype]))
    return found


def bounds(rows: pd.DataFrame, tight: Sequence[str]) -> list[Check]:
    """No ELBO is above log p(x), and where the encoder is the posterior it is log p(x), in the worst seed."""
    models = rows[rows["versus"].isna()]
    if "gap" not in models or not models["gap"].notna().any():
        return []
    dtype = str(shared(rows)["dtype"])
    found = []
    loose = models[models["gap"].notna() & ~models["model"].isin(tight)]
    if len(loose):
        errors = (loose["gap_standard_error"] ** 2 + loose["gap_monte_carlo_error"] ** 2) ** 0.5
        pairs = zip(loose["gap"], errors, strict=True)
        signs = verdicts([Statement(Kind.EXACT, gap, error, math.inf, ROUNDING[dtype]) for gap, error in pairs])
        least = f"{loose['gap'].min():.2g}"
        claim = (
            f"ELBO ≤ log p(x): the least gap is {least} nats; allowed in {dtype}: -{ROUNDING[dtype]:.0e}, and "
            "what sampling explains, of all by Holm at 5 %"
        )
        found.append(Check(claim, Verdict.SECOND not in signs, f"≥ -{ROUNDING[dtype]:.0e}", least))
    for model in tight:
        gaps = models.loc[models["model"] == model, "gap"]
        if len(gaps):
            worst = float(gaps.abs().max())
            claim = f"{LABELS[model]}: its encoder is the posterior, gap {worst:.1e} nats; allowed in {dtype}: "
            passed = not math.isnan(worst) and worst <= ROUNDING[dtype]
            found.append(Check(claim + f"{ROUNDING[dtype]:.0e}", passed, "0", f"{worst:.1e}"))
    return found
