"""What the rows of `judge` say: the models on one scale, their differences and verdicts, and what is exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bridge import Comparison, Pair, Standing, Statement, Verdict
from significance import Kind, verdicts
from studies.judge.figure import figure as figure
from studies.judge.figure import has_gap
from studies.judge.stored import comparison, sat_out, told
from studies.kit.study import TOLD, Check, Finding
from studies.kit.tables import averaged, narrow, points_error, with_error

MARKS = {Kind.LOWER: "≥ ", Kind.UPPER: "≤ ", Kind.ESTIMATE: "≈ ", Kind.EXACT: ""}
PASSED_BY = {Verdict.FIRST.value: True, Verdict.SECOND.value: False}
OVERFIT, SIGMAS = 0.1, 2.0  # nats a feature, and errors, by which training rows must be above test rows to be named


def table(rows: pd.DataFrame) -> Group:
    """Models, highest log p(x) first; paired differences with verdicts; what was tried; what is proven or open."""
    found = comparison(rows)
    parts = [models_table(rows, found), methods_table(rows, found), pairs_table(found), tried_table(rows)]
    words = [about(rows), *remarks(rows), *found.sentences()]
    return Group(*(part for part in parts if part is not None), *(Text(line) for line in words))


def models_table(rows: pd.DataFrame, found: Comparison) -> Table:
    """A line a model."""
    shown = narrow(f"log p(x), nats per {shared(rows, 'unit')}; intervals of 95 % confidence, of these fits")
    shown.add_column("model")
    shown.add_column("kind", no_wrap=True)
    for header in ("log p(x)", "interval", "gap of the ELBO", "train − test"):
        shown.add_column(header, justify="right", no_wrap=True)
    for each in found.standings:
        of = told(rows)[told(rows)["model"] == each.name]
        beside = "–"
        if "overfitting" in of and of["overfitting"].notna().all():
            beside = with_error(float(of["overfitting"].mean()), points_error(of["overfitting_error"]))
        shown.add_row(
            each.name,
            each.kind.value.split()[-1],
            MARKS[each.kind] + with_error(each.fitted.mean, each.fitted.error),
            interval(each.fitted, found.level),
            gap_text(each),
            beside,
        )
    return shown


def methods_table(rows: pd.DataFrame, found: Comparison) -> Table:
    """How log p(x) of every model is known, and what the model costs."""
    shown = narrow("How log p(x) is known; trained parameters; seconds of a fit")
    shown.add_column("model")
    shown.add_column("kind and method")
    for header in ("fits", "parameters", "seconds"):
        shown.add_column(header, justify="right", no_wrap=True)
    seconds = told(rows).groupby("model")["seconds"].mean()
    for each in found.standings:
        count = "–" if each.parameters is None else f"{each.parameters:,}"
        how = f"{each.kind.value}: {each.method}"
        shown.add_row(each.name, how, f"{each.fits}", count, f"{seconds[each.name]:.1f}")
    return shown


def interval(of: Statement, level: float, sign: int = 1) -> str:
    """Where the quantity lies, or where its negative does."""
    low, high = (sign * end for end in of.interval(level)[::sign])
    digits = 2 if not 0 < of.error < 1 else min(5, 1 - math.floor(math.log10(of.error)))
    ends = [f"{end:.{digits}f}" if math.isfinite(end) else "∞" if end > 0 else "−∞" for end in (low, high)]
    return f"[{', '.join(ends)}]"


def gap_text(each: Standing) -> str:
    """log p(x) − ELBO; 0 where nothing but rounding is left."""
    if each.gap_kind is None:
        return "–"
    return MARKS[each.gap_kind] + (with_error(each.gap, each.gap_error) if has_gap(each) else "0")


def pairs_table(found: Comparison) -> Table | None:
    """A line a pair, the better one first where that is known."""
    if not found.pairs:
        return None
    shown = narrow(
        "Paired differences, nats; verdicts by Holm at 5 % over all pairs: of these fits, of models made anew"
    )
    shown.add_column("model")
    shown.add_column("less")
    for header in ("difference", "interval"):
        shown.add_column(header, justify="right", no_wrap=True)
    for header in ("these fits", "fitted anew"):
        shown.add_column(header, no_wrap=True)
    rank = {each.name: place for place, each in enumerate(found.standings)}
    for pair in sorted(found.pairs, key=lambda pair: sorted((rank[pair.first], rank[pair.second]))):
        sign = 1 if rank[pair.first] < rank[pair.second] else -1
        names = (pair.first, pair.second)[::sign]
        size = ("–", "–")
        if pair.fitted is not None:
            kind = pair.fitted.kind if sign == 1 else pair.fitted.kind.flipped()
            number = MARKS[kind] + with_error(sign * pair.fitted.mean, pair.fitted.error)
            size = number, interval(pair.fitted, found.level_of_pairs, sign)
        shown.add_row(*names, *size, *verdicts_of(pair, sign))
    return shown


def verdicts_of(pair: Pair, sign: int) -> tuple[str, str]:
    """Of these fits and of models fitted anew, in a word each."""
    turned = {Verdict.FIRST: Verdict.SECOND, Verdict.SECOND: Verdict.FIRST}
    told = []
    for statement, verdict, proven in (
        (pair.fitted, pair.verdict, pair.proven),
        (pair.anew, pair.verdict_anew, pair.proven_anew),
    ):
        word = (verdict if sign == 1 else turned.get(verdict, verdict)).value
        estimated = verdict in turned and not proven
        told.append("–" if statement is None else f"{word}, by an estimate" if estimated else word)
    return told[0] if pair.fitted is not None else "open", told[1]


def tried_table(rows: pd.DataFrame) -> Table | None:
    """What ``check_exact`` found of the densities that say log p(x) themselves."""
    of = told(rows)
    of = of[of["tried"].notna()] if "tried" in of else of[:0]
    if of.empty:
        return None
    shown = narrow("Trust but check: is the density normalised, and do its samples follow it? (bridge.check_exact)")
    shown.add_column("model")
    shown.add_column("seed", justify="right")
    shown.add_column("exact?")
    shown.add_column("mass", justify="right", no_wrap=True)
    shown.add_column("laws that fail, or are undecided")
    for _, row in of.iterrows():
        mass = "–" if pd.isna(row["mass"]) else f"{row['mass']:.4f} ± {row['mass_error']:.1g}"
        shown.add_row(row["model"], f"{row['seed']}", row["tried"], mass, "" if pd.isna(row["laws"]) else row["laws"])
    return shown


def about(rows: pd.DataFrame) -> str:
    """Data, split, units, seeds."""
    unit, seeds = shared(rows, "unit"), sorted(rows["seed"].unique())
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"means over seeds {', '.join(map(str, seeds))}, a split each"
    words = (
        f"{shared(rows, 'data')}: {int(shared(rows, 'train_rows')):,} {unit}s to fit, "
        f"{int(shared(rows, 'test_rows')):,} others to test; {which}. Tables are standardised by training rows; "
        "log p(x) is in the units of the data. ± is the standard error over test "
        f"{unit}s; ≥ marks a lower bound. train − test: log p where it is known, else the ELBO."
    )
    note, best = shared(rows, "note"), shared(rows, "best")
    words += "" if pd.isna(note) else f" {note[0].upper()}{note[1:]}."
    return words + ("" if pd.isna(best) else f" The true density has {best:.4f} in expectation.")


def remarks(rows: pd.DataFrame) -> list[str]:
    """Who sat out, whose fit was still climbing, who overfits."""
    lines = [f"Sat out: {name}, which {why}." for name, why in sat_out(rows).items()]
    of = told(rows)
    if climbing := list(of.loc[of["climbing"] > 0, "model"].unique()):
        lines.append(f"Still climbing when their steps were done (--steps): {', '.join(climbing)}.")
    if "tried" not in of or of["tried"].isna().all():
        lines.append("No claim of exactness was tried (--trust, which --quick implies).")
    if "overfitting" in of:
        means = averaged(of, "model").loc[of["model"].unique()]
        least = means[["overfitting_error", "features"]].mul([SIGMAS, OVERFIT]).max(axis=1)
        if over := list(means.index[means["overfitting"] > least]):
            lines.append(f"Say more of training than of test rows by {OVERFIT} nats a feature: {', '.join(over)}.")
    return lines


def shared(rows: pd.DataFrame, column: str) -> Any:  # noqa: ANN401
    """What the rows of all models have in common."""
    alone = rows[rows["versus"].isna()]
    return alone[column].iloc[-1] if column in alone else math.nan


def checks(rows: pd.DataFrame) -> list[Check]:
    """What is said to be exact is not found otherwise; no model has more than the true density."""
    of, found = told(rows), []
    if "tried" in of:
        for name, own in of[of["tried"].isin(("holds", "FAILS"))].groupby("model", sort=False):
            failed = own[own["tried"] == "FAILS"]
            worst = (failed if len(failed) else own).iloc[0]
            claim = f"{name}: exact, as it says (mass {worst['mass']:.4f} ± {worst['mass_error']:.1g})"
            found.append(Check(claim + (f": {worst['laws']}" if len(failed) else ""), failed.empty))
    best, error = shared(rows, "best"), shared(rows, "best_error")
    if not pd.isna(best):
        excess = above(comparison(rows).standings, best, error)
        names = f": {', '.join(excess)}" if excess else ""
        claim = f"no model has more log p(x) than the true density, {best:.4f}, by Holm at 5 %{names}"
        found.append(Check(claim, not excess))
    return found + beaten(comparison(rows))


def beaten(found: Comparison) -> list[Check]:
    """Whether the model with the highest log p(x) is better than each other: of these fits, and of fits made anew."""
    first, *others = (each.name for each in found.standings)
    findings: list[Check] = []
    for other in others:
        pair = next((pair for pair in found.pairs if {pair.first, pair.second} == {first, other}), None)
        if pair is not None and pair.fitted is not None:
            sign = 1 if pair.first == first else -1
            fits, anew = verdicts_of(pair, sign)
            kind = pair.fitted.kind if sign == 1 else pair.fitted.kind.flipped()
            measured = MARKS[kind] + with_error(sign * pair.fitted.mean, pair.fitted.error)
            claim = f"{first}: more log p(x) than {other}"
            findings.append(
                Finding(claim, PASSED_BY.get(fits), "", measured, TOLD[PASSED_BY.get(anew)] if pair.anew else "")
            )
    return findings


def above(standings: Sequence[Standing], best: float, error: float) -> list[str]:
    """The models with more log p(x) than there is, by more than chance explains: a sign, of all models by Holm.

    Upper bounds and estimates may have more.
    """
    known = [each for each in standings if each.kind in (Kind.EXACT, Kind.LOWER)]
    excess = [
        replace(each.fitted, mean=each.fitted.mean - best, error=math.hypot(each.fitted.error, error)) for each in known
    ]
    return [each.name for each, sign in zip(known, verdicts(excess), strict=True) if sign is Verdict.FIRST]
