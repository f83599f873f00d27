"""The figure of `em_as_elbo`, from rows alone. EM's half steps; distance from the maximum against CPU time."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.em_as_elbo import LABELS, MIXTURES, NEAR, Method, Problem, arrivals, median, series
from studies.kit.figures import PALETTE, caption, panels


def em_as_elbo_figure(df: pd.DataFrame) -> Figure:
    """Above: bound and log p(x) half step by half step. Below: distance from the maximum against CPU time."""
    with panels(2, rows=2) as (drawn, (upper_left, upper_right, lower_left, lower_right)):
        _zigzag(upper_left, df, "overlapping")
        _zigzag(upper_right, df, "noisy")
        _races(lower_left, df, MIXTURES)
        _races(lower_right, df, ("noisy", "quiet"))
        half, found = df[df["method"] == "half steps"], arrivals(df)
        slow = [f"{median(found, problem, 'EM', 'passes'):.0f}" for problem in get_args(Problem)]
        quick_ones = [f"{median(found, problem, 'L-BFGS', 'passes'):.0f}" for problem in get_args(Problem)]
        words = (
            f"Yes: after every E-step the bound is log p(x) to {half['touching'].max():.0e} nats, every M-step raises "
            f"it and opens a gap. EM needs {', '.join(slow[:2])} passes over the data to within {NEAR:g} nats of the "
            f"maximum (separated, overlapping mixture) and {', '.join(slow[2:])} (PPCA with noise variance 1, 0.01); "
            f"L-BFGS {', '.join(quick_ones[:2])} and {', '.join(quick_ones[2:])}. Above: seed "
            f"{half['seed'].min()}. Below: one line a seed ({half['seed'].nunique()} seeds), "
            f"{int(half['points'].iloc[0])} points, one start for all methods."
        )
        caption(drawn, words)
    return drawn


def _zigzag(axes: Axes, df: pd.DataFrame, problem: Problem) -> None:
    axes.set_title(f"EM's half steps: {LABELS[problem]}", loc="left", fontweight="bold")
    rows = df[df["problem"] == problem]
    if rows.empty:
        axes.set_axis_off()
        return
    seed = rows["seed"].min()
    rows = rows[rows["seed"] == seed]
    top = rows["best"].max()
    half = rows[rows["method"] == "half steps"].iloc[0]
    log_p, after_m = series(half["log_p"]), series(half["after_m"])
    shown = min(7, len(after_m))
    log_p, after_m = log_p[: shown + 1], after_m[:shown]
    steps = np.arange(shown + 1)
    path_x = np.repeat(steps, 2)[1:]  # M-step along, E-step up
    path_y = np.empty(2 * shown + 1)
    path_y[0::2], path_y[1::2] = log_p, after_m
    axes.plot(path_x, top - path_y, color=PALETTE[7], linewidth=1.2, zorder=1)
    axes.plot(
        steps, top - log_p, color=PALETTE[0], marker="o", linestyle="none", label="after an E-step: bound = log p(x)"
    )
    axes.plot(
        steps[1:], top - after_m, color=PALETTE[1], marker="s", linestyle="none", label="after an M-step: the bound"
    )
    axes.set(yscale="log", xlabel="M-steps", ylabel="below the maximum of log p(x), nats a point")
    axes.set_xticks(steps)
    axes.legend(loc="upper right")


def _races(axes: Axes, df: pd.DataFrame, problems: tuple[Problem, ...]) -> None:
    colors = dict(zip(get_args(Method), (0, 4, 2, 1, 7), strict=True))
    for problem, style in zip(problems, ("-", "--"), strict=True):
        rows = df[df["problem"] == problem]
        for seed in rows["seed"].unique():
            of = rows[rows["seed"] == seed]
            top = of["best"].max()
            for _, row in of[of["method"] != "half steps"].iterrows():
                left = (top - series(row["values"])).clip(1e-12)
                color = PALETTE[colors[row["method"]]]
                seconds = series(row["clock"])[1:]
                marker = "*" if row["method"] == "closed form" else ""
                axes.plot(seconds, left[1:].clip(1e-9), color=color, ls=style, lw=1.1, alpha=0.8, marker=marker, ms=11)
    for method in get_args(Method):
        if method in set(df[df["problem"].isin(problems)]["method"]):
            marker = "*" if method == "closed form" else ""
            axes.plot([], [], color=PALETTE[colors[method]], marker=marker, label=method)
    for problem, style in zip(problems, ("-", "--"), strict=True):
        axes.plot([], [], color="0.3", linestyle=style, label=LABELS[problem].split(", ")[1])
    axes.axhline(NEAR, color="0.3", linewidth=1, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="below the best log p(x), nats a point")
    axes.set_ylim(5e-10, 1e5)
    axes.set_title("Mixtures" if problems == MIXTURES else "PPCA", loc="left", fontweight="bold")
    axes.legend(loc="upper right", ncols=2)
