"""From stored rows back to a comparison: what ``bridge.compare`` would say of the claims that the rows are of.

One row says all of a model, or of a pair, on the split of one seed. Over several seeds its numbers are rounds of fits,
each at points of its own, so that what :class:`~significance.spread.Spread` needs of them are means and errors.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bridge import Comparison, Pair, Standing, Statement
from bridge.comparison.comparing import decided
from density.measure import ReferenceMeasure, measure_named
from significance import CHANCE, Kind, joint, over_seeds
from studies.kit.tables import draws_error, points_error


def comparison(rows: pd.DataFrame) -> Comparison:
    """The models that have a claim, those of one measure judged together."""
    alone = told(rows)
    measures = {str(name): measure_named(str(of["measure"].iloc[0])) for name, of in alone.groupby("model", sort=False)}
    standings = [_standing(str(name), of) for name, of in alone.groupby("model", sort=False)]
    order = list(dict.fromkeys(measures.values()))
    standings.sort(key=lambda each: (order.index(measures[each.name]), -each.fitted.mean))
    compared = rows[rows["versus"].notna() & (rows["comparable"] == 1)] if "comparable" in rows else rows[:0]
    families: dict[ReferenceMeasure, list[Pair]] = {measure: [] for measure in order}
    for (first, second), of in compared.groupby(["model", "versus"], sort=False):
        if first in measures and second in measures:
            families[measures[first]].append(_pair(str(first), str(second), of))
    pairs = [pair for family in families.values() for pair in decided(family, CHANCE)]
    return Comparison(tuple(standings), tuple(pairs), measures, 1 - CHANCE, False, {})


def told(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of models that have a claim: those that sat out have none."""
    return rows[rows["versus"].isna() & rows["kind"].notna()]


def sat_out(rows: pd.DataFrame) -> dict[str, str]:
    """The models that sat out, and why: what each needs that is not there, or does not take that is."""
    found: dict[str, str] = {}
    for column, words in (("missing", "needs the package {}"), ("refused", "{}")):
        if column in rows:
            absent = rows[rows["versus"].isna() & rows[column].notna()]
            found |= {str(name): words.format(why) for name, why in zip(absent["model"], absent[column], strict=True)}
    return found


def _standing(name: str, of: pd.DataFrame) -> Standing:
    fitted, anew = _statements(of)
    assert fitted is not None
    worst = of.sort_values("worst_share").iloc[-1]
    gaps = of[of["gap"].notna()]
    last = of.iloc[-1]
    return Standing(
        name=name,
        fits=int(of["fits"].sum()),
        kind=fitted.kind,
        method=" / ".join(dict.fromkeys(of["method"])),
        fitted=fitted,
        anew=anew,
        median=float(of["median"].mean()),
        worst_row=int(worst["worst_row"]),
        worst_share=float(worst["worst_share"]),
        without_worst=float(worst["without_worst"]),
        unreliable=float(of["unreliable"].mean()),
        monte_carlo_error=draws_error(of["monte_carlo_error"]),
        gap=float(gaps["gap"].mean()),
        gap_error=points_error(gaps["gap_error"]) if len(gaps) else math.nan,
        gap_kind=joint(map(Kind, gaps["gap_kind"])) if len(gaps) else None,
        parameters=None if pd.isna(last["parameters"]) else int(last["parameters"]),
    )


def _pair(first: str, second: str, of: pd.DataFrame) -> Pair:
    fitted, anew = _statements(of)
    loose = tuple(dict.fromkeys(name for names in of["loose"].dropna() for name in names.split("; ")))
    sampling = 0.0 if fitted is None or not fitted.error > 0 else draws_error(of["monte_carlo_error"]) / fitted.error
    return Pair(
        first=first,
        second=second,
        points=int(of["test_rows"].min()),
        fitted=fitted,
        anew=anew,
        equal=bool((of["equal"] == 1).all()),
        sampling=sampling**2,
        worst_share=float(of["worst_share"].max()),
        loose=loose,
    )


def _statements(of: pd.DataFrame) -> tuple[Statement | None, Statement | None]:
    """Of these fits, and of models fitted anew; None where the kinds of two numbers allow no difference."""
    if of["kind"].isna().any():
        return None, None
    kind = joint(map(Kind, of["kind"]))
    if len(of) == 1:
        row: Any = of.iloc[0]
        fitted = Statement(kind, float(row["value"]), float(row["standard_error"]), float(row["freedom"]), row["slack"])
        if math.isnan(row["anew_error"]):
            return fitted, None
        apart = (float(row["anew_fits_error"]), float(row["anew_fits_freedom"])) if "anew_fits_error" in row else ()
        errors = float(row["anew_error"]), float(row["anew_freedom"])
        return fitted, Statement(kind, fitted.mean, *errors, fitted.slack, *apart)
    return over_seeds(
        of["value"],
        of["standard_error"],
        int(of["test_rows"].min()),
        kind=kind,
        slack=float(of["slack"].mean()),
        sampling=draws_error(of["monte_carlo_error"]),
    )
