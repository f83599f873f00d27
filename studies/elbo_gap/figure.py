"""The figure of `elbo_gap`: every model on one scale, and the gap beside it."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from studies.elbo_gap.standings import Standing, caption, shared, standings

BLUE, ORANGE, PURPLE, GREY = (sns.color_palette("colorblind")[i] for i in (0, 1, 4, 7))
UNBOUNDED = "\n(unbounded here)"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # so that no line runs through a word


def figure(rows: pd.DataFrame) -> Figure:
    """Left: log p(x) and ELBO of every model, joined by the gap. Right: the gap alone, with its number and kind."""
    models = standings(rows)
    about = shared(rows)
    best = None if pd.isna(about["best"]) else float(about["best"])
    with mpl.rc_context({**dict(sns.axes_style("whitegrid")), **dict(sns.plotting_context("notebook"))}):  # type: ignore[dict-item]
        drawn = Figure(figsize=(12, 2.6 + 0.46 * len(models)), layout="constrained")
        left, right = drawn.subplots(1, 2, sharey=True, width_ratios=[1.45, 1])
        if best is not None:
            left.axvline(best, color=GREY, linestyle="--", linewidth=1.4)
        _scale(left, models)
        _gaps(right, models)
        left.set_yticks(range(len(models)), [f"{row.label}{UNBOUNDED * row.unbounded}" for row in models])
        left.set_ylim(len(models) - 0.4, -0.6)
        left.set_xlabel(f"mean over test {about['unit']}s, nats per {about['unit']}   (higher is better →)")
        left.set_title("log p(x) and ELBO", loc="left", fontweight="bold")
        right.set_xlabel(f"log p(x) − ELBO, nats per {about['unit']}")
        right.set_title("The gap", loc="left", fontweight="bold")
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.tick_params(length=0)
            sns.despine(ax=axes, left=True)
        drawn.legend(handles=_legend(models, best is not None), loc="outside upper left", ncols=6, frameon=False)
        words = "\n".join(textwrap.wrap(f"{_answer(models)} {caption(rows, brief=True)}", 165))
        drawn.supxlabel(words, fontsize=9, x=0.01, ha="left", color="0.3")
    return drawn


def _scale(axes: Axes, models: list[Standing]) -> None:
    for height, row in enumerate(models):
        if row.has_encoder:
            axes.plot([row.elbo, row.value], [height] * 2, color=ORANGE, linewidth=5, alpha=0.55, solid_capstyle="butt")
        axes.errorbar(row.value, height, xerr=row.standard_error, color=BLUE, linewidth=1.4, capsize=3, zorder=3)
        marker, face = (">", "white") if row.is_bound else ("o", BLUE)
        if row.unbounded:
            marker, face = "X", "white"
        style: dict[str, Any] = {"color": BLUE, "markerfacecolor": face, "markeredgewidth": 1.8, "markersize": 9}
        axes.plot(row.value, height, marker, zorder=4, **style)
        if row.has_encoder:
            axes.plot(row.elbo, height, "|", color=ORANGE, markersize=20, markeredgewidth=3, zorder=5)
    axes.margins(x=0.06)


def _gaps(axes: Axes, models: list[Standing]) -> None:
    largest = max((row.gap + row.gap_error for row in models if row.has_encoder), default=0.0)
    largest = largest if largest > 1e-3 else 1.0
    for height, row in enumerate(models):
        style: dict[str, Any] = {"color": "0.45", "style": "italic", "fontsize": 10}
        at, text = 0.0, "no encoder, no ELBO"
        if row.has_encoder:
            hatch = "//" if row.is_bound else None
            bar = axes.barh(height, max(row.gap, 0), height=0.5, color=ORANGE, alpha=0.55, hatch=hatch)
            for patch in bar:
                patch.set_edgecolor("white")
            if row.amortisation > 0 and row.approximation > 0:
                axes.barh(
                    height + 0.32, row.amortisation, left=max(row.gap - row.amortisation, 0), height=0.1, color=PURPLE
                )
            axes.errorbar(row.gap, height, xerr=row.gap_error, color="0.2", linewidth=1.4, capsize=3)
            at, text, style = max(row.gap + row.gap_error, 0), row.gap_text, {"fontsize": 10.5}
        axes.text(at + 0.025 * largest, height, text, va="center", bbox=PAPER, **style)
    axes.set_xlim(-0.02 * largest, 1.8 * largest)  # with room for the number beside the longest bar
    axes.locator_params(axis="x", nbins=5)


def _legend(models: list[Standing], best: bool) -> list[Line2D]:
    point: dict[str, Any] = {"color": BLUE, "markersize": 9, "markeredgewidth": 1.8, "linestyle": ""}
    handles = [
        Line2D([], [], marker="o", label="log p(x), exact", **point),
        Line2D([], [], marker=">", markerfacecolor="white", label="log p(x), lower bound", **point),
        Line2D([], [], color=ORANGE, marker="|", markersize=16, markeredgewidth=3, linestyle="", label="ELBO"),
        Line2D([], [], color=ORANGE, alpha=0.55, linewidth=5, label="gap (hatched: a lower bound on it)"),
    ]
    if any(row.unbounded for row in models):
        handles.append(Line2D([], [], marker="X", markerfacecolor="white", label="no maximum on this data", **point))
    if any(row.amortisation > 0 for row in models):
        handles.append(Line2D([], [], color=PURPLE, linewidth=3, label="its amortised part"))
    if best:
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.4, label="true density"))
    return handles


def _answer(models: list[Standing]) -> str:
    """One sentence from the rows."""
    known = [row for row in models if row.has_encoder]
    tight = [row.label for row in known if row.gap < 1e-2]
    loose = [f"{row.label} {row.gap_text}" for row in sorted(known, key=lambda row: -row.gap) if row.gap >= 1e-2]
    parts = [f"No gap (below 0.01 nats): {', '.join(tight)}."] if tight else []
    return " ".join([*parts, *([f"A gap: {', '.join(loose)} nats."] if loose else [])])
