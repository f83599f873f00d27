"""The figure of `judge`: where each model stands, by the kind of its number, and how far it is behind the first."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bridge import Comparison, Pair, Standing, Verdict
from density.log_density import Kind
from studies.judge.stored import comparison, sat_out
from studies.kit.figures import PALETTE, caption, panels

COLOURS = {Kind.EXACT: PALETTE[0], Kind.LOWER: PALETTE[1], Kind.UPPER: PALETTE[2], Kind.ESTIMATE: PALETTE[4]}
MARKERS = {Kind.EXACT: "o", Kind.LOWER: ">", Kind.UPPER: "<", Kind.ESTIMATE: "D"}
GREY, LIGHT = "0.45", "0.85"
ROUNDING = 1e-6  # nats: of a gap that is none
REACH = 46  # points: how long an arrow is


def figure(rows: pd.DataFrame) -> Figure:
    """Left: log p(x) with its interval, an arrow where it has no end. Right: paired differences to the best model."""
    found = comparison(rows)
    alone = rows[rows["versus"].isna()]
    best = float(alone["best"].iloc[-1]) if alone["best"].notna().any() else math.nan
    unit = alone["unit"].iloc[-1]
    with panels(2, width=12.5, height=2.1 + 0.5 * len(found.standings)) as (drawn, (left, right)):
        _scale(left, found, best)
        _behind(right, found)
        left.set_xlabel(f"log p(x), nats per {unit}   (higher is better →)")
        right.set_xlabel(f"log p(x) − that of the first, nats per {unit}")
        for axes in (left, right):
            axes.set_ylim(len(found.standings) - 0.4, -0.6)
            axes.margins(x=0.1)
            axes.grid(axis="y", visible=False)
            axes.tick_params(length=0)
        left.set_yticks(range(len(found.standings)), [each.name for each in found.standings])
        right.set_yticks(range(len(found.standings)), [""] * len(found.standings))
        drawn.legend(handles=_legend(found, best), loc="outside upper left", ncols=8, frameon=False)
        caption(drawn, _words(rows, found))
    return drawn


def has_gap(each: Standing) -> bool:
    """Whether its ELBO is not log p(x)."""
    return each.gap_kind is not None and abs(each.gap) > ROUNDING


def _scale(axes: Axes, found: Comparison, best: float) -> None:
    for height, each in enumerate(found.standings):
        if has_gap(each):
            elbo = each.fitted.mean - each.gap
            axes.plot([elbo, each.fitted.mean], [height] * 2, color=LIGHT, linewidth=5, solid_capstyle="butt", zorder=2)
            axes.plot(elbo, height, "|", color=GREY, markersize=16, markeredgewidth=2.5, zorder=2)
        _interval(axes, height, each.kind, each.fitted.mean, each.fitted.interval(found.level), filled=True)
    if not math.isnan(best):
        axes.axvline(best, color=GREY, linestyle="--", linewidth=1.4, zorder=1)
    axes.set_title("Where each stands", loc="left", fontweight="bold")


def _behind(axes: Axes, found: Comparison) -> None:
    first = found.standings[0]
    axes.axvline(0, color="0.3", linewidth=1.4, zorder=1)
    axes.set_title(f"Behind {first.name}, paired", loc="left", fontweight="bold")
    for height, each in enumerate(found.standings[1:], start=1):
        pair = _pair(found, first, each)
        if pair is None or pair.fitted is None:
            why = "another measure" if pair is None else "bounds on the same side: open"
            axes.text(0, height, f"{why}  ", ha="right", va="center", color=GREY, fontsize=10, style="italic")
            continue
        sign = -1 if pair.first == first.name else 1
        kind = pair.fitted.kind if sign == 1 else pair.fitted.kind.flipped()
        low, high = sorted(sign * end for end in pair.fitted.interval(found.level_of_pairs))
        decided = pair.verdict in (Verdict.FIRST, Verdict.SECOND)
        _interval(axes, height, kind, sign * pair.fitted.mean, (low, high), filled=decided)


def _legend(found: Comparison, best: float) -> list[Line2D]:
    kinds = [kind for kind in Kind if any(each.kind is kind for each in found.standings)]
    handles = [
        Line2D([], [], color=COLOURS[kind], marker=MARKERS[kind], markersize=8, linewidth=2, label=kind.value)
        for kind in kinds
    ]
    if any(map(has_gap, found.standings)):
        handles.append(Line2D([], [], color=GREY, marker="|", markersize=12, markeredgewidth=2.5, linestyle="",
                              label="its ELBO"))  # fmt: skip
    if not math.isnan(best):
        handles.append(Line2D([], [], color=GREY, linestyle="--", label="true density"))
    for face, label in (("0.3", "difference decided (Holm, these fits)"), ("white", "open")):
        handles.append(Line2D([], [], color="0.3", marker="o", markersize=8, markerfacecolor=face, markeredgewidth=1.8,
                              linestyle="", label=label))  # fmt: skip
    return handles


def _pair(found: Comparison, first: Standing, other: Standing) -> Pair | None:
    try:
        return found.pair(first.name, other.name)
    except KeyError:  # another measure
        return None


def _interval(axes: Axes, height: int, kind: Kind, mean: float, ends: tuple[float, float], *, filled: bool) -> None:
    """A number with its interval; where that has no end on a side, an arrow that leaves the number to that side."""
    colour = COLOURS[kind]
    low, high = (mean if math.isinf(end) else end for end in ends)
    axes.errorbar(
        mean, height, xerr=[[mean - low], [high - mean]], color=colour, linewidth=2, capsize=4, capthick=2, zorder=3,
        linestyle="--" if kind is Kind.ESTIMATE else "-",
    )  # fmt: skip
    for end, side in zip(ends, (-1, 1), strict=True):
        if math.isinf(end):
            axes.annotate(
                "", xy=(mean, height), xytext=(side * REACH, 0), textcoords="offset points", zorder=2,
                arrowprops={"arrowstyle": "<-", "color": colour, "linewidth": 1.8, "linestyle": ":"},
            )  # fmt: skip
    face = colour if filled else "white"
    axes.plot(
        mean, height, MARKERS[kind], color=colour, markerfacecolor=face, markeredgewidth=1.8, markersize=9, zorder=4
    )  # fmt: skip


def _words(rows: pd.DataFrame, found: Comparison) -> str:
    alone = rows[rows["versus"].isna()].iloc[-1]
    seeds = sorted(rows["seed"].unique())
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    words = (
        f"{alone['data']}, {which}: {int(alone['test_rows']):,} {alone['unit']}s to judge by. Intervals of 95 % "
        "confidence, of these fits; a dotted arrow leads where a bound leaves the number open."
    )
    absent = ", ".join(f"{name} ({why})" for name, why in sat_out(rows).items())
    proven = [line for line in found.sentences() if line.startswith("Proven of these models")]
    return " ".join([words, *proven, *([f"Sat out: {absent}."] if absent else [])])
