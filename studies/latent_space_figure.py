"""The figure of `latent_space`, from its rows and projected points alone: torch is never loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.kit.figures import MARKERS, PALETTE, caption, panels

MODELS = ("ppca", "vae", "flow")


def space_figure(df: pd.DataFrame, words: str) -> Figure:
    """Above, each model's two dimensions; below, classes, trustworthiness and continuity by number of dimensions."""
    from studies.latent_space import LABELS, averaged

    rows = averaged(df)
    with panels(3, 2, width=13) as (figure, axes):
        for each, model in zip(axes[:3], MODELS, strict=True):
            _points(each, df, model, LABELS[model])
        titles = {
            "classes": "Classes by neighbours, %",
            "trustworthiness": "Trustworthiness, %",
            "continuity": "Continuity, %",
        }
        for each, (name, title) in zip(axes[3:], titles.items(), strict=True):
            _kept(each, rows, name, title, LABELS)
        axes[4].legend()
        caption(figure, words)
    return figure


def _points(axes: Axes, df: pd.DataFrame, model: str, label: str) -> None:
    axes.set_title(label, loc="left", fontweight="bold")
    rows = df[(df["model"] == model) & (df["dimensions"] == 2)]
    if rows.empty or not Path(str(rows["points"].iloc[0])).exists():
        axes.set_axis_off()
        return
    with np.load(Path(str(rows["points"].iloc[0]))) as file:
        z, labels = file["z"], file["labels"]
    kinds = list(map(str, labels)) if len(labels) else None
    order = sorted(set(kinds)) if kinds else None
    colours = sns.color_palette("colorblind", len(order)) if order else None
    sns.scatterplot(
        x=z[:, 0], y=z[:, 1], hue=kinds, hue_order=order, palette=colours, s=16, linewidth=0, legend=False, ax=axes
    )
    if kinds and order and len(order) <= 12:  # each class is named where it lies, so that colour is not all
        for kind in order:
            at = np.median(z[np.array(kinds) == kind], axis=0)
            axes.text(at[0], at[1], kind, ha="center", va="center", fontsize=11, fontweight="bold",
                      bbox={"facecolor": "white", "alpha": 0.75, "pad": 1.0, "edgecolor": "none"})  # fmt: skip
    axes.set(xlabel="first dimension", ylabel="second dimension")
    axes.grid(visible=False)


def _kept(axes: Axes, rows: pd.DataFrame, name: str, title: str, labels: dict[str, str]) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    if rows[name].isna().all():
        axes.text(0.5, 0.5, "these data have no classes", ha="center", transform=axes.transAxes, color="0.4")
        return
    for number, model in enumerate(MODELS):
        few = rows[(rows["model"] == model)].sort_values("dimensions")
        axes.errorbar(
            few["dimensions"], 100 * few[name], yerr=100 * few[f"{name}_error"], color=PALETTE[number],
            marker=MARKERS[number], capsize=3, label=labels[model],
        )  # fmt: skip
    data = rows[rows["model"] == "data"]
    if len(data) and name == "classes":
        axes.axhline(100 * data[name].iloc[0], color="0.4", linestyle="--", linewidth=1.2, label=labels["data"])
    axes.set_xscale("log", base=2)
    every = sorted(rows["dimensions"].unique())
    axes.set_xticks(every, [f"{value:g}" for value in every])
    axes.set(xlabel="dimensions", ylabel="% of test points" if name == "classes" else "%")
