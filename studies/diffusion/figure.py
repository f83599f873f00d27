"""The figure of `diffusion`: a bound and what it bounds, two models of one network, what one column makes of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from significance import Kind
from studies.diffusion.standings import LABELS, Pair, chains, longest_known, pairs, reading, readings, sets
from studies.kit.figures import PALETTE, a_line_each, legend_below

FEW = 4  # steps: shorter chains are far below, and out of the panel


def drawn(rows: pd.DataFrame, answer: str) -> Figure:
    """A line of panels for each set: log p and ELBO against T, two models point by point, two columns."""
    return a_line_each(sets(rows), (_along, _points, _columns), rows, answer, width=15, height=4.4)


def _along(axes: Axes, rows: pd.DataFrame, data: str) -> None:
    every = chains(rows, data)
    known = [each for each in every if each["beyond_elbo"]]
    steps, log_p, log_p_error = ([each[name] for each in known] for name in ("number", "value", "value_error"))
    exact = all(each["kind"] == Kind.EXACT.value for each in known)
    axes.fill_between(steps, [each["elbo"] for each in known], log_p, color=PALETTE[0], alpha=0.15, lw=0)
    axes.errorbar(steps, log_p, log_p_error, color=PALETTE[0], marker="o", markersize=5, capsize=3,
                  label="chain: log p, exact" if exact else "chain: log p, at least")  # fmt: skip
    all_steps, elbo, elbo_error = ([each[name] for each in every] for name in ("number", "elbo", "elbo_error"))
    axes.errorbar(all_steps, elbo, elbo_error, color=PALETTE[1], marker="<", markersize=5, capsize=3,
                  linestyle="--", label="chain: ELBO")  # fmt: skip
    for short in (each for each in readings(rows, data) if each["model"] == "annealed"):
        axes.errorbar([short["steps"]], [short["value"]], [short["value_error"]], color=PALETTE[0], marker="^",
                      markersize=7, capsize=3, linestyle="", label="chain: log p, annealed, at least")  # fmt: skip
        log_p = [*log_p, short["value"]]
    limit, ode = reading(rows, data, "limit")["elbo"], reading(rows, data, "ode")
    axes.axhline(limit, color=PALETTE[1], ls=":", label="ELBO, T → ∞")
    axes.axhline(ode["value"], color=PALETTE[2], label=f"its ODE: log p, {ode['kind']}")
    if not math.isnan(below := ode.get("below", math.nan)):
        axes.axhline(ode["value"] + below, color="0.4", ls="-.", lw=1, label="the truth")
    top = max(*log_p, ode["value"], limit)
    low = min([each["elbo"] for each in every if each["number"] >= FEW], default=min(elbo))
    axes.set_ylim(low - 0.05 * (top - low), top + 0.12 * (top - low))
    axes.set_xscale("log")
    axes.set_xlabel("steps T", fontsize=11)
    axes.set_ylabel("nats a point", fontsize=11)
    axes.set_title(f"{data}: one network, T steps", loc="left", fontweight="bold", fontsize=12)
    legend_below(axes, 2, fontsize=9, bbox_to_anchor=(0.5, -0.17))


def _points(axes: Axes, rows: pd.DataFrame, data: str) -> None:
    mine = rows[rows["versus"].isna() & (rows["data"] == data)]
    steps = longest_known(rows, data)["number"]
    chain, ode = (
        [Path(str(path)) for path in mine[(mine["model"] == model) & (mine["number"] == number)]["points"]]
        for model, number in (("chain", steps), ("ode", 0))
    )
    axes.set_title("Point by point: two models", loc="left", fontweight="bold", fontsize=12)
    axes.set_xlabel(f"log p of the chain of {steps:,.0f} steps", fontsize=11)
    axes.set_ylabel("log p of its ODE", fontsize=11)
    for first, second in zip(chain, ode, strict=True):
        if first.exists() and second.exists():
            with np.load(first) as ours, np.load(second) as theirs:
                axes.plot(
                    ours["value"], theirs["value"], ".", color=PALETTE[0], alpha=0.5, markersize=4, rasterized=True
                )
                ends = np.quantile(ours["value"], [0, 1])
                axes.plot(ends, ends, color="0.4", lw=1)


def _columns(axes: Axes, rows: pd.DataFrame, data: str) -> None:
    """How far each model is above the chain, in nats: as known, and as one column has it."""
    other = ("limit", "annealed")  # steps
    against = [pair for pair in pairs(rows, data).values() if pair.versus == "chain" and pair.model not in other]
    for height, pair in enumerate(against):
        first = height == 0
        if pair.decision is not None:
            of = pair.decision.fitted
            marker = {Kind.LOWER: ">", Kind.UPPER: "<"}.get(of.kind, "o")
            axes.errorbar(of.mean, height - 0.12, xerr=2 * of.error, fmt=marker, color=PALETTE[0], markersize=7,
                          capsize=3, label=_known(against) if first else None)  # fmt: skip
        axes.errorbar(pair.naive, height + 0.12, xerr=2 * pair.naive_error, fmt="s", color=PALETTE[3], markersize=6,
                      capsize=3, label="one column: ELBO or density" if first else None)  # fmt: skip
    axes.axvline(0, color="0.4", lw=1)
    axes.set_yticks(range(len(against)), [LABELS[pair.model] for pair in against])
    axes.set_ylim(len(against) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("nats above the chain, ± 2 paired errors", fontsize=11)
    axes.set_title("What one column would say", loc="left", fontweight="bold", fontsize=12)
    legend_below(axes, 1, fontsize=9, bbox_to_anchor=(0.5, -0.17))


def _known(against: list[Pair]) -> str:
    exact = all(pair.decision is None or pair.decision.fitted.kind is Kind.EXACT for pair in against)
    return "log p" if exact else "log p (◂ at most, ▸ at least)"
