"""The figure of `comparison`: log-weights, and deltas as limits. From rows alone; torch is never loaded."""

from __future__ import annotations

import math
import textwrap

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.comparison_report import SMALL, averaged, caption, relaxed, slope

BLUE, ORANGE, GREY = (sns.color_palette("colorblind")[i] for i in (0, 1, 7))
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
SHOWN = (0.01, 0.995)  # share of the VAE's log-weights that the axis spans


def comparison_figure(df: pd.DataFrame) -> Figure:
    """Left: log-weight − log p(x) of both models. Right: the relaxed flow's gap against σ."""
    with mpl.rc_context({**dict(sns.axes_style("whitegrid")), **dict(sns.plotting_context("notebook"))}):  # type: ignore[dict-item]
        figure = Figure(figsize=(12, 5.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _log_weights(left, df)
        _limit(right, df)
        for axes in (left, right):
            sns.despine(ax=axes)
        words = "\n".join(textwrap.wrap(f"{_answer(df)} {caption(df, brief=True)}", 165))
        figure.supxlabel(words, fontsize=9, x=0.01, ha="left", color="0.3")
    return figure


def _log_weights(axes: Axes, df: pd.DataFrame) -> None:
    axes.set_title("Log-weights around log p(x)", loc="left", fontweight="bold")
    found = averaged(df)
    if "flow" in found:
        axes.axvline(0, color=BLUE, linewidth=3)
    if "vae" in found:
        deviations = _deviations(df, "vae")
        low, high = np.quantile(deviations, SHOWN)
        kept = deviations[(deviations >= low) & (deviations <= high)]
        weight = 1 / len(deviations)
        bins = np.linspace(low, high, 41)
        heights = np.full(len(kept), weight / (bins[1] - bins[0]))
        sns.histplot(
            x=kept,
            bins=list(bins),
            weights=heights,
            color=ORANGE,
            alpha=0.55,
            edgecolor="white",
            linewidth=0.4,
            ax=axes,
        )
        gap, top = found["vae"].gap, axes.get_ylim()[1]
        axes.set_ylim(0, 1.32 * top)
        axes.vlines(-gap, 0, 1.02 * top, color="0.25", linestyle="--", linewidth=1.4)
        words = f"VAE: sd {found['vae'].log_weight_spread:.2f};\nthe mean (dashed),\nits ELBO, is\n{gap:.3f} below 0"
        axes.text(low, 1.29 * top, words, color="0.2", fontsize=10.5, va="top", bbox=PAPER)
    if "flow" in found:
        top = axes.get_ylim()[1]
        axes.text(
            0, 0.62 * top, " flow: every log-weight\n is log p(x), a delta", color=BLUE, fontsize=10.5, va="center",
            bbox=PAPER,
        )  # fmt: skip
    axes.set_xlabel("log p(z) + log p(x|z) − log q(z|x) − log p(x), nats")  # seaborn has written labels of its own
    axes.set_ylabel("density over points and draws")


def _limit(axes: Axes, df: pd.DataFrame) -> None:
    axes.set_title("The flow with Gaussians for deltas", loc="left", fontweight="bold")
    axes.set_xscale("log")
    axes.set_yscale("log")
    full, diagonal = relaxed(df, "full"), relaxed(df, "diagonal")
    if len(diagonal):
        sns.lineplot(x=diagonal.index, y=diagonal["relaxed_error"], color=ORANGE, marker="s", ax=axes)
        left = diagonal.index[0]
        axes.text(
            left, 1.5 * diagonal["relaxed_error"].iloc[0], "diagonal encoder: its gap stays", color=ORANGE, va="bottom"
        )
    if len(full):
        sns.lineplot(x=full.index, y=full["relaxed_error"], color=BLUE, marker="o", ax=axes)
        small = full.index[full.index <= SMALL]
        if len(small) > 1:
            middle = small[len(small) // 2]
            axes.text(
                1.6 * middle,
                0.7 * full["relaxed_error"][middle],
                f"encoder N(f(x), σ²JJᵀ):\nslope {slope(full['relaxed_error']):.3f}",
                color=BLUE,
                va="top",
            )
    axes.set_xlabel("σ, in the units of the data")
    axes.set_ylabel("mean |ELBO(σ) − log p(x)|, nats")
    if len(full) and len(diagonal):
        axes.set_ylim(top=12 * max(diagonal["relaxed_error"].max(), full["relaxed_error"].max()))


def _deviations(df: pd.DataFrame, model: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Quantiles of log-weight − log p(x), those of all seeds together."""
    cells = df.loc[df["model"] == model, "log_weight_quantiles"]
    return np.array([float(number) for cell in cells for number in str(cell).split()])


def _answer(df: pd.DataFrame) -> str:
    """One or two sentences from the rows."""
    found, full, parts = averaged(df), relaxed(df, "full"), []
    if "vae" in found:
        vae = found["vae"]
        parts.append(
            f"The VAE minimises forward KL + gap = {vae.forward_kl:.3f} + {vae.gap:.3f}"
            + f" with {vae.shared_parameters:.0f} shared parameters."
        )
    if "flow" in found:
        flow = found["flow"]
        parts.append(
            f"The flow minimises forward KL alone, {flow.forward_kl:.3f}, with all {flow.parameters:,.0f} parameters "
            f"shared: its ELBO is log p(x) to {flow.theorem_error:.0e} nats."
        )
    if len(full) and not math.isnan(slope(full["relaxed_error"])):
        parts.append(
            f"Gaussians of width σ in place of its deltas cost σ to the power {slope(full['relaxed_error']):.2f}."
        )
    return " ".join(parts)
