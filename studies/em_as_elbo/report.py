"""What the rows of `em_as_elbo` say: table, checks and figure."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from studies.em_as_elbo.settings import MIXTURES, Method, Problem, Settings, methods
from studies.kit.figures import PALETTE, caption, legend_below, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, series

LABELS = {
    "separated": "mixture, separated",
    "overlapping": "mixture, overlapping",
    "noisy": "PPCA, noise variance 1",
    "quiet": "PPCA, noise variance 0.01",
}
NEAR = 1e-4  # nats per point from the maximum at which a method has arrived
ROUNDING = 1e-11  # of means of 1,000 terms of size up to 1,000, by sums of 27 nodes: some 100 roundings of 1e-13
SAME = 1e-6  # nats per point by which methods that have converged may differ
FASTER: tuple[tuple[Problem, Method, Method], ...] = (  # by passes, the first method than the second
    ("separated", "EM", "L-BFGS"),
    ("overlapping", "L-BFGS", "EM"),
    ("noisy", "EM", "L-BFGS"),
    ("quiet", "L-BFGS", "EM"),
    ("quiet", "expanded EM", "L-BFGS"),
)
COLORS = dict(zip(get_args(Method), (PALETTE[index] for index in (0, 4, 2, 1, 7)), strict=True))


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the problems of these settings."""
    return rows[rows["problem"].isin(settings.problems)]


def arrivals(rows: pd.DataFrame) -> pd.DataFrame:
    """For each problem, method and seed: passes and CPU seconds to :data:`NEAR` of the best that any method found.

    Infinite where a method did not arrive; between the points of the curve that are kept the later one counts.
    """
    found = []
    for (problem, seed), of in rows[rows["method"] != "half steps"].groupby(["problem", "seed"], sort=False):
        top = of["best"].max()
        for _, row in of.iterrows():
            values, passes, seconds = (series(row[name]) for name in ("values", "passes", "clock"))
            there = np.flatnonzero(values >= top - NEAR)
            found.append(
                {
                    "problem": problem,
                    "seed": seed,
                    "method": row["method"],
                    "short": top - row["best"],
                    "passes": passes[there[0]] if len(there) else math.inf,
                    "seconds": seconds[there[0]] if len(there) else math.inf,
                }
            )
    return pd.DataFrame(found)


def median(found: pd.DataFrame, problem: str, method: str, column: str) -> float:
    """Over seeds, of a column of :func:`arrivals`."""
    return float(found[(found["problem"] == problem) & (found["method"] == method)][column].median())


def table(rows: pd.DataFrame) -> Group:
    """One line a problem and method: how soon it is near the maximum; below, EM's half steps."""
    headers = ("passes over the data", "range", "CPU ms", "range", "short of the best, nats")
    shown = empty(f"From a shared start to within {NEAR:g} nats of the maximum", ("problem", "method"), headers)
    found = arrivals(rows)
    for problem in rows["problem"].unique():
        for method in methods(problem):
            of = found[(found["problem"] == problem) & (found["method"] == method)]
            cells = []
            for column, unit, form in (("passes", 1, ".0f"), ("seconds", 1000, ".1f")):
                least, middle, most = ((of[column] * unit).agg(which) for which in ("min", "median", "max"))
                cells.append("not there" if math.isinf(middle) else f"{middle:{form}}")
                cells.append("" if math.isinf(least) else f"{least:{form}} to {most:{form}}")
            shown.add_row(LABELS[problem], method, *cells, f"{of['short'].median():.0e}")
    half, lines = rows[rows["method"] == "half steps"], []
    for problem in half["problem"].unique():
        of = half[half["problem"] == problem]
        lines.append(
            f"{LABELS[problem]}: after E-steps the bound is log p(x) to {of['touching'].max():.0e}; the first M-step "
            f"leaves a gap of {of['first_gap'].min():.2g} to {of['first_gap'].max():.2g} nats, "
            f"KL(old ‖ new posterior) to {of['gap_is_kl'].max():.0e}"
        )
    return Group(shown, Text("EM, half step by half step\n" + "\n".join(lines)))


def checks(rows: pd.DataFrame) -> list[Check]:
    """What coordinate ascent promises, to rounding; and who is faster where."""
    half, found, arrived = rows[rows["method"] == "half steps"], [], arrivals(rows)
    for problem in half["problem"].unique():
        of, name = half[half["problem"] == problem], LABELS[problem]
        touching, raised = of["touching"].max(), of["raised"].min()
        claim = f"{name}: after every E-step the bound touches log p(x) (to {touching:.0e} nats)"
        found.append(Check(claim, bool(touching < ROUNDING), f"below {ROUNDING:.0e}", f"{touching:.0e}"))
        claim = f"{name}: no M-step lowers the bound (least change {raised:+.0e})"
        found.append(Check(claim, bool(raised > -ROUNDING), f"above −{ROUNDING:.0e}", f"{raised:+.0e}"))
        claim = f"{name}: the gap after M-steps is KL(old ‖ new posterior) (to {of['gap_is_kl'].max():.0e})"
        found.append(Check(claim, bool(of["gap_is_kl"].max() < ROUNDING)))
        claim = f"{name}: the first M-step opens a gap ({of['first_gap'].min():.1e} nats or more)"
        found.append(Check(claim, bool(of["first_gap"].min() > 1e-6)))
        claim = f"{name}: log p(x) never falls (largest fall {of['fallen'].max():+.0e})"
        found.append(Check(claim, bool(of["fallen"].max() < ROUNDING)))
        ends = arrived[(arrived["problem"] == problem) & arrived["method"].isin(["EM", "L-BFGS", "closed form"])]
        claim = f"{name}: EM, L-BFGS{'' if problem in MIXTURES else ' and closed form'} end alike"
        short = ends["short"].max()
        found.append(Check(f"{claim} (within {short:.0e} nats)", bool(short < SAME)))
    for problem, faster, slower in FASTER:
        if problem not in set(half["problem"]):
            continue
        fast, slow = (median(arrived, problem, method, "passes") for method in (faster, slower))
        claim = f"{LABELS[problem]}: {faster} needs fewer passes than {slower} ({fast:.0f} against {slow:.0f})"
        found.append(Finding(claim, bool(fast < slow), "fewer", f"{fast:.0f} against {slow:.0f}"))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Above: how far the bound is below the maximum of log p(x) after every half step of EM, of a mixture and of PPCA.
    Below: how far every method is below it, against CPU time.
    """
    with panels(2, rows=2) as (drawn, (upper_left, upper_right, lower_left, lower_right)):
        _zigzag(upper_left, rows, "overlapping")
        _zigzag(upper_right, rows, "noisy")
        _races(lower_left, rows, MIXTURES)
        _races(lower_right, rows, ("noisy", "quiet"))
        half, found = rows[rows["method"] == "half steps"], arrivals(rows)
        em, lbfgs = (
            [f"{median(found, problem, method, 'passes'):.0f}" for problem in get_args(Problem)]
            for method in ("EM", "L-BFGS")
        )
        words = (
            f"Yes: after every E-step the bound is log p(x) to {half['touching'].max():.0e} nats, every M-step raises "
            f"it and opens a gap. Passes over the data to within {NEAR:g} nats of the maximum: separated "
            f"mixture, EM {em[0]} and L-BFGS {lbfgs[0]}; overlapping mixture, {em[1]} and {lbfgs[1]}; PPCA with noise "
            f"variance 1, {em[2]} and {lbfgs[2]}; with 0.01, {em[3]} and {lbfgs[3]}. Above: seed "
            f"{half['seed'].min()}. Below: one line a seed ({half['seed'].nunique()} seeds), "
            f"{int(half['points'].iloc[0]):,} points, one start for all methods; dotted: {NEAR:g} nats."
        )
        caption(drawn, words)
    return drawn


def _zigzag(axes: Axes, rows: pd.DataFrame, problem: Problem) -> None:
    axes.set_title(f"EM's half steps: {LABELS[problem]}", loc="left", fontweight="bold")
    rows = rows[rows["problem"] == problem]
    if rows.empty:
        axes.set_axis_off()
        return
    rows = rows[rows["seed"] == rows["seed"].min()]
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


def _races(axes: Axes, rows: pd.DataFrame, problems: tuple[Problem, ...]) -> None:
    for problem, style in zip(problems, ("-", "--"), strict=True):
        for _, of in rows[rows["problem"] == problem].groupby("seed", sort=False):
            top = of["best"].max()
            for _, row in of[of["method"] != "half steps"].iterrows():
                left, seconds = (top - series(row["values"])).clip(1e-9), series(row["clock"])
                color, marker = COLORS[row["method"]], "*" if row["method"] == "closed form" else ""
                axes.plot(seconds[1:], left[1:], color=color, ls=style, lw=1.1, alpha=0.8, marker=marker, ms=11)
    for method, color in COLORS.items():
        if method in set(rows[rows["problem"].isin(problems)]["method"]):
            axes.plot([], [], color=color, marker="*" if method == "closed form" else "", label=method)
    for problem, style in zip(problems, ("-", "--"), strict=True):
        axes.plot([], [], color="0.3", linestyle=style, label=LABELS[problem].split(", ")[1])
    axes.axhline(NEAR, color="0.3", linewidth=1, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="below the best log p(x), nats a point")
    axes.set_ylim(bottom=5e-10)
    axes.set_title("Mixtures" if problems == MIXTURES else "PPCA", loc="left", fontweight="bold")
    legend_below(axes, 3)
