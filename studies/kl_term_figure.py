"""The figure of `kl_term`, from its rows and samples alone: torch is never loaded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.canvas import PALETTE, caption, panels

BLUE, ORANGE, GREEN = PALETTE[:3]


def kl_figure(df: pd.DataFrame, words: str) -> Figure:
    """Rate and distortion; bounds and samples by β; pictures of samples where a point is a square image."""
    from studies.kl_term import averaged

    sweep = averaged(df, "sweep")
    with panels(2, 2, width=13) as (figure, (rate, bounds, told, pictures)):
        _rate(rate, sweep)
        _bounds(bounds, sweep)
        _told(told, sweep)
        _pictures(pictures, df)
        caption(figure, words)
    return figure


def _rate(axes: Axes, sweep: pd.DataFrame) -> None:
    axes.errorbar(
        sweep["rate"], sweep["distortion"], xerr=sweep["rate_error"], yerr=sweep["distortion_error"],
        color=BLUE, marker="o", capsize=3, linewidth=1.2,
    )  # fmt: skip
    last = 0.0
    for at, row in sweep[::-1].iterrows():  # from the left; a label whose left neighbour is close goes below
        place = (7, 9) if row["rate"] > 1.5 * last else (-14, -34)
        last = row["rate"]
        axes.annotate(f"β = {at}", (row["rate"], row["distortion"]), place, textcoords="offset points", fontsize=10)
    axes.set_xscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.06 * (high - low), high + 0.08 * (high - low))
    axes.set_xlim(right=sweep["rate"].max() * 2)
    axes.set(xlabel="rate KL(q(z|x) ‖ p(z)), nats per point", ylabel="distortion −E log p(x|z), nats per point")
    axes.set_title("Rate and distortion", loc="left", fontweight="bold")


def _bounds(axes: Axes, sweep: pd.DataFrame) -> None:
    places = range(len(sweep))
    for name, error, colour, label, marker in (
        ("log_p", "log_p_error", BLUE, "importance-weighted bound", ">"),
        ("elbo", "elbo_error", ORANGE, "ELBO", "s"),
    ):
        axes.errorbar(places, sweep[name], yerr=sweep[error], color=colour, marker=marker, capsize=3, label=label)
    axes.set_xticks(places, list(sweep.index))
    low = sweep.loc[sweep.index != "0", ["elbo", "log_p"]].min().min()
    high = sweep["log_p"].max()
    if sweep["elbo"].min() < low - (high - low):  # β = 0 would flatten all the others
        axes.set_ylim(low - 0.45 * (high - low), high + 0.25 * (high - low))
        below = f"β = 0: ELBO {sweep['elbo']['0']:.0f},\nbound {sweep['log_p']['0']:.0f}"
        axes.text(0, low - 0.38 * (high - low), below, ha="center", fontsize=10, color="0.3")
    axes.set(xlabel="weight β of the KL term", ylabel="lower bounds on log p(x), nats per point")
    axes.set_title("Only β = 1 aims at log p(x)", loc="left", fontweight="bold")
    axes.legend(loc="lower center")


def _told(axes: Axes, sweep: pd.DataFrame) -> None:
    places = np.arange(len(sweep))
    axes.errorbar(
        places, 100 * sweep["told_apart"], yerr=100 * sweep["told_apart_error"], color=GREEN, marker="o", capsize=3
    )
    axes.axhline(50, color="0.5", linestyle="--", linewidth=1.2)
    axes.text(len(sweep) - 0.6, 51, "as good as data", ha="right", va="bottom", fontsize=10, color="0.4")
    for place, (_, row) in zip(places, sweep.iterrows(), strict=True):
        axes.annotate(
            f"{row['active']:g} active", (place, 100 * row["told_apart"]), (0, -18), textcoords="offset points",
            ha="center", fontsize=9.5, color="0.3",
        )  # fmt: skip
    axes.set_xticks(places, list(sweep.index))
    axes.set(xlabel="weight β of the KL term", ylabel="samples told from data by 5 neighbours, %", ylim=(44, 100))
    axes.set_title("Samples from the prior", loc="left", fontweight="bold")


def _pictures(axes: Axes, df: pd.DataFrame) -> None:
    """A line of samples for each β; nothing where points are no images."""
    axes.set_axis_off()
    rows = df[(df["part"] == "sweep") & (df["seed"] == df["seed"].min())].sort_values("beta")
    lines, names = [], []
    for _, row in rows.iterrows():
        path = Path(str(row["points"]))
        if not path.exists():
            return
        with np.load(path) as file:
            means = file["means"]
        side = math.isqrt(means.shape[1])
        if side * side != means.shape[1] or side < 6:
            return
        lines.append(np.concatenate([np.pad(m.reshape(side, side), 1, constant_values=np.nan) for m in means], 1))
        names.append(str(row["at"]))
    axes.imshow(np.concatenate(lines), cmap="Greys", aspect="equal")
    for number, name in enumerate(names):
        axes.text(-3, (number + 0.5) * len(lines[0]), f"β = {name}", ha="right", va="center", fontsize=10.5)
    axes.set_title("Means of the decoder at draws from the prior", loc="left", fontweight="bold")
