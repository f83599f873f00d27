"""What must hold of the rows of `elbo_gap`, whatever the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from studies.elbo_gap_report import LABELS, shared
from studies.kit import Check

# Nats by which the means of two fits of one density may differ. On the training rows a fit by gradient falls short of
# its optimum by what hides further progress: rounding, 1e-7 of some 100 nats (float32), or L-BFGS's own limit of 1e-9
# nats (float64). Other rows see, to first order, the square root of that: 3e-3 and 3e-5; the margin is 3.
TOLERANCES = {"float32": 1e-2, "float64": 1e-4}

# Of two ways to compute one log-density of up to some thousand nats, 1e-7 and 1e-16 of each, averaged over points.
ROUNDING = {"float32": 1e-3, "float64": 1e-9}
SIGMAS = 4.0  # of a gap below 0 that sampling explains


def identities(df: pd.DataFrame, same: Sequence[tuple[str, str]]) -> list[Check]:
    """Whether pairs of models that must be one density are, in the worst seed."""
    dtype = str(shared(df)["dtype"])
    found = []
    for a, b in same:
        rows = df[(df["model"] == a) & (df["versus"] == b)]
        if len(rows):
            mean, largest = float(rows["value"].abs().max()), float(rows["largest"].max())
            claim = (
                f"{LABELS[a]} = {LABELS[b]}: mean test log p(x) differs by {mean:.1e} nats (at one point by "
                f"{largest:.1e}); allowed in {dtype}: {TOLERANCES[dtype]:.0e}"
            )
            found.append(Check(claim, mean <= TOLERANCES[dtype]))
    return found


def bounds(df: pd.DataFrame, tight: Sequence[str]) -> list[Check]:
    """No ELBO is above log p(x), and where the encoder is the posterior it is log p(x), in the worst seed."""
    models = df[df["versus"].isna()]
    if "gap" not in models or not models["gap"].notna().any():
        return []
    dtype = str(shared(df)["dtype"])
    found = []
    loose = models[models["gap"].notna() & ~models["model"].isin(tight)]
    if len(loose):
        errors = (loose["gap_standard_error"] ** 2 + loose["gap_monte_carlo_error"] ** 2) ** 0.5
        excess = -loose["gap"] - SIGMAS * errors
        least = f"{loose['gap'].min():.2g}"
        claim = (
            f"ELBO ≤ log p(x): the least gap is {least} nats; allowed in {dtype}: -{ROUNDING[dtype]:.0e}, and "
            f"{SIGMAS:.0f} standard errors below that"
        )
        found.append(Check(claim, bool((excess <= ROUNDING[dtype]).all()), f"≥ -{ROUNDING[dtype]:.0e}", least))
    for model in tight:
        gaps = models.loc[models["model"] == model, "gap"]
        if len(gaps):
            worst = float(gaps.abs().max())
            claim = f"{LABELS[model]}: its encoder is the posterior, gap {worst:.1e} nats; allowed in {dtype}: "
            passed = not math.isnan(worst) and worst <= ROUNDING[dtype]
            found.append(Check(claim + f"{ROUNDING[dtype]:.0e}", passed, "0", f"{worst:.1e}"))
    return found
