"""What the rows of `equivalence` say: table, checks and figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from studies.equivalence.settings import Settings
from studies.kit.figures import MARKERS, PALETTE, caption, legend_below, panels, ranges
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, power, series

LABELS = {
    "linear": "LU-linear",
    "coupling": "affine coupling",
    "glow": "LU + coupling",
    "maf": "autoregressive (MAF)",
    "iaf": "inverse autoregr. (IAF)",
}
# Both sides do some hundred operations through layers of condition up to some tens: rounding of 2e-16 becomes 1e-14;
# the margin is 100. Gradients add as much again. Over a training, rounding is what another order of rows does; the two
# are of one size, and by chance either may be some tens of times the other.
VALUE, GRADIENT, ROUNDING = 1e-12, 1e-10, 100.0
SLOPE_TOLERANCE = 0.05
SMALL = 0.03  # σ up to which the rate is fitted: beyond, the next power, σ⁴, may be seen


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """The flows of these settings and, of the limit, their widths."""
    return rows[rows["flow"].isin(settings.flows) & (rows["sigma"].isna() | rows["sigma"].isin(settings.sigmas))]


def slopes(rows: pd.DataFrame, column: str) -> pd.Series[float]:
    """Power of σ by least squares in logarithms up to :data:`SMALL`, for each flow and seed."""
    small = rows[(rows["part"] == "limit") & (rows["sigma"] <= SMALL)]
    flows = small.groupby(["flow", "seed"], sort=False)[["sigma", column]]
    return flows.apply(lambda of: power(of["sigma"], of[column]))


def endings(rows: pd.DataFrame) -> pd.DataFrame:
    """What every training ended with: one row a flow and seed."""
    paths = rows[rows["part"] == "path"].set_index(["flow", "seed"])
    return paths[["moved", "elbo", "reordered", "relaxed"]].map(lambda cell: series(cell)[-1])


def table(rows: pd.DataFrame) -> Group:
    """One line a flow: the largest error over seeds, and the rates of the limit."""
    headers = ("value", "gradient", "weights moved", "weights: ELBO", "other order", "σ > 0", "slope", "of gradient")
    shown = empty("The worst of all seeds; slopes: mean ± half the range", ["flow"], headers)
    facts, ends = rows[rows["part"] == "theorem"], endings(rows)
    rates = [slopes(rows, column) for column in ("relaxed_error", "relaxed_gradient_error")]
    for flow in facts["flow"].unique():
        worst, end = facts[facts["flow"] == flow], ends.loc[flow]
        cells = [f"{worst[name].max():.0e}" for name in ("value_error", "gradient_error")]
        cells += [f"{end['moved'].min():.2f}", *(f"{end[name].max():.0e}" for name in ("elbo", "reordered"))]
        cells += [f"{end['relaxed'].min():.0e}"]
        cells += [f"{of[flow].mean():.4f} ± {(of[flow].max() - of[flow].min()) / 2:.4f}" for of in rates]
        shown.add_row(LABELS[flow], *cells)
    notes = (
        "value: |ELBO − log p(x)| relative to the largest |log p(x)|; gradient: largest difference relative to its "
        "largest entry; weights: largest difference from training by log p(x) after the last step, of training by the "
        "ELBO, by log p(x) with the rows in another order, and by Gaussians of width σ instead of deltas."
    )
    return Group(shown, Text(notes))


def checks(rows: pd.DataFrame) -> list[Check]:
    """The theorem to rounding, flow by flow, and σ² for the limit."""
    facts, ends, found = rows[rows["part"] == "theorem"], endings(rows), []
    spread = facts["log_weight_spread"].max()
    found.append(Check(f"every log-weight of a point is the same (largest difference {spread:.0e})", spread == 0))
    for flow in facts["flow"].unique():
        worst, end = facts[facts["flow"] == flow], ends.loc[flow]
        value, gradient = worst["value_error"].max(), worst["gradient_error"].max()
        claim = f"{flow}: ELBO is log p(x) to {VALUE:.0e} ({value:.0e})"
        found.append(Check(claim, bool(value <= VALUE), f"below {VALUE:.0e}", f"{value:.0e}"))
        claim = f"{flow}: gradients are equal to {GRADIENT:.0e} ({gradient:.0e})"
        found.append(Check(claim, bool(gradient <= GRADIENT)))
        ratio = (end["elbo"] / end["reordered"]).max()
        claim = f"{flow}: trainings differ by no more than {ROUNDING:.0f} times what the order of rows does"
        found.append(Check(f"{claim} ({ratio:.1f})", bool(ratio <= ROUNDING)))
        contrast = (end["relaxed"] / end["elbo"]).min()
        claim = f"{flow}: with Gaussians instead of deltas trainings part ways"
        found.append(Finding(claim, bool(contrast >= 1e4), "10⁴ times as far", f"{contrast:.0e} times"))
        for what, column in (("ELBO", "relaxed_error"), ("its gradient", "relaxed_gradient_error")):
            rate = slopes(rows, column)[flow]
            off = (rate - 2).abs().max()
            claim = f"{flow}: {what} tends to its limit as σ² (powers {rate.min():.4f} to {rate.max():.4f})"
            passed, wanted = bool(off <= SLOPE_TOLERANCE), f"2 ± {SLOPE_TOLERANCE}"
            found.append(Finding(claim, passed, wanted, f"{rate.mean():.4f}"))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Left: how far weights of other trainings are from those by likelihood, against steps. Right: how far the ELBO of
    Gaussians of width σ is from log p(x), against σ.
    """
    with panels(2) as (drawn, (left, right)):
        _paths(left, rows)
        _limits(right, rows)
        facts, ends = rows[rows["part"] == "theorem"], endings(rows)
        rates = [slopes(rows, column) for column in ("relaxed_error", "relaxed_gradient_error")]
        words = (
            f"Yes. From its decoder alone the delta VAE's ELBO is log p(x) to {facts['value_error'].max():.0e} of its "
            f"size, and its gradient to {facts['gradient_error'].max():.0e}. Training by either moves weights by up to "
            f"{ends['moved'].max():.1f} and ends within {ends['elbo'].max():.0e}, as two orders of summing rows do "
            f"({ends['reordered'].max():.0e}). Gaussians of width σ instead of deltas cost σ to the power "
            f"{min(r.min() for r in rates):.3f} to {max(r.max() for r in rates):.3f}. {facts['flow'].nunique()} flows "
            f"of random parameters, {rows['seed'].nunique()} seeds, {int(facts['points'].iloc[0])} points. Left: "
            "medians and ranges over flows and seeds. Right: medians and ranges over seeds."
        )
        caption(drawn, words)
    return drawn


def _paths(axes: Axes, rows: pd.DataFrame) -> None:
    paths = rows[rows["part"] == "path"]
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
    axes.set_ylim(1e-18, 10)
    axes.set_title("Weights, against training by log p(x)", loc="left", fontweight="bold")
    legend_below(axes, 2)


def _limits(axes: Axes, rows: pd.DataFrame) -> None:
    limits = rows[rows["part"] == "limit"]
    for index, flow in enumerate(limits["flow"].unique()):
        ranges(axes, limits[limits["flow"] == flow], "sigma", "relaxed_error", index, LABELS[flow])
    sigmas = np.array(sorted(limits["sigma"].unique()))
    axes.plot(sigmas, sigmas**2, color="0.4", linestyle="--", label="σ²")
    axes.set(xscale="log", yscale="log", xlabel="σ, in the units of the data", ylabel="mean |ELBO(σ) − log p(x)|, nats")
    axes.set_title("Deltas as limits of Gaussians", loc="left", fontweight="bold")
    legend_below(axes, 3)
