"""The figure of `equivalence`, from rows alone. Weights along other trainings; the limit of small σ."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.equivalence import LABELS, endings, series, slopes
from studies.kit.figures import MARKERS, PALETTE, caption, panels


def equivalence_figure(df: pd.DataFrame) -> Figure:
    """Left: weights of other trainings against those by likelihood. Right: the limit of small σ."""
    with panels(2) as (drawn, (left, right)):
        _paths(left, df)
        _limits(right, df)
        facts, ends = df[df["part"] == "theorem"], endings(df)
        rates = [slopes(df, column) for column in ("relaxed_error", "relaxed_gradient_error")]
        words = (
            f"Yes. From its decoder alone the delta VAE's ELBO is log p(x) to {facts['value_error'].max():.0e} of its "
            f"size, and its gradient to {facts['gradient_error'].max():.0e}. Training by either moves weights by up to "
            f"{ends['moved'].max():.1f} and ends within {ends['elbo'].max():.0e}, as two orders of summing rows do "
            f"({ends['reordered'].max():.0e}). Gaussians of width σ instead of deltas cost σ to the power "
            f"{min(r.min() for r in rates):.3f} to {max(r.max() for r in rates):.3f}. {facts['flow'].nunique()} flows "
            f"of random parameters, {df['seed'].nunique()} seeds, {int(facts['points'].iloc[0])} points. Left: medians "
            "and ranges over flows and seeds. Right: medians and ranges over seeds."
        )
        caption(drawn, words)
    return drawn


def _paths(axes: Axes, df: pd.DataFrame) -> None:
    paths = df[df["part"] == "path"]
    steps = series(paths["steps"].iloc[0])
    lines = {
        "moved": "distance from the start",
        "relaxed": "by Gaussians instead of deltas",
        "elbo": "by the ELBO of the delta VAE",
        "reordered": "by log p(x), rows in another order",
    }
    for index, (column, label) in enumerate(lines.items()):
        values = np.stack([series(cell) for cell in paths[column]]).clip(1e-18)
        color = PALETTE[7] if column == "moved" else PALETTE[index - 1]
        axes.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
        axes.plot(steps, np.median(values, 0), color=color, marker=MARKERS[index], markersize=5, label=label)
    axes.set(xscale="log", yscale="log", xlabel="steps of Adam", ylabel="largest difference of a weight")
    axes.set_ylim(1e-18, 1e5)
    axes.set_title("Weights, against training by log p(x)", loc="left", fontweight="bold")
    axes.legend(loc="upper left")


def _limits(axes: Axes, df: pd.DataFrame) -> None:
    limits = df[df["part"] == "limit"]
    for index, flow in enumerate(limits["flow"].unique()):
        by_sigma = limits[limits["flow"] == flow].groupby("sigma")["relaxed_error"].agg(["median", "min", "max"])
        low, high = by_sigma["median"] - by_sigma["min"], by_sigma["max"] - by_sigma["median"]
        axes.errorbar(
            by_sigma.index,
            by_sigma["median"],
            [low, high],
            color=PALETTE[index],
            marker=MARKERS[index],
            markersize=5,
            capsize=3,
            label=LABELS[flow],
        )
    sigmas = np.array(sorted(limits["sigma"].unique()))
    axes.plot(sigmas, sigmas**2, color="0.4", linestyle="--", label="σ²")
    axes.set(xscale="log", yscale="log", xlabel="σ, in the units of the data", ylabel="mean |ELBO(σ) − log p(x)|, nats")
    axes.set_title("Deltas as limits of Gaussians", loc="left", fontweight="bold")
    axes.legend(loc="upper left")
