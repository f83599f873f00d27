"""What the rows of `latent_space` say: table, checks and figure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from significance import Decision, decisions, over_seeds
from studies.kit import tables
from studies.kit.figures import MARKERS, PALETTE, caption, legend_below, panels
from studies.kit.study import Check, Finding
from studies.latent_space.settings import Settings

LABELS = {"data": "all columns of the data", "ppca": "PPCA", "vae": "VAE", "flow": "flow"}
MODELS = ("ppca", "vae", "flow")
THINGS = {"classes": "classes", "trustworthiness": "neighbourhoods"}
ENOUGH_EPOCHS = 100
ROUND_TRIP = 1e-2  # single precision through some ten layers, at the worst of all test points


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the models and numbers of dimensions of these settings, and the data itself."""
    features = int(rows["features"].iloc[0])
    known = rows["dimensions"].isin(settings.dimensions_of(features)) | (rows["dimensions"] == features)
    return rows[rows["model"].isin(("data", *settings.models)) & known]


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a model and number of dimensions, mean over seeds."""
    return tables.averaged(rows, "model", "dimensions").reset_index()


def percent(row: pd.Series[float], name: str) -> str:
    """A share with its error."""
    return f"{100 * row[name]:.1f} ± {100 * row[f'{name}_error']:.1f}"


def table(rows: pd.DataFrame) -> Group:
    """Classes and neighbourhoods kept by every projection."""
    found = averaged(rows)
    names = ("dimensions", "classes by neighbours", "trustworthiness", "continuity")
    shown = tables.empty("What projections keep, test points, % ± standard error", [""], names, wrap=True)
    for model, label in LABELS.items():
        for _, row in found[found["model"] == model].iterrows():
            classes = "no labels" if math.isnan(row["classes"]) else percent(row, "classes")
            cells = (percent(row, name) for name in ("trustworthiness", "continuity"))
            shown.add_row(label, f"{row['dimensions']:g}", classes, *cells)
    return Group(shown, Text(words(rows)))


def words(rows: pd.DataFrame) -> str:
    """The answer from the rows."""
    found = averaged(rows)
    fewest = found["dimensions"].min()
    least = found[(found["dimensions"] == fewest) & (found["model"] != "data")]
    name = "classes" if found["classes"].notna().any() else "trustworthiness"
    parts = ", ".join(f"{LABELS[row['model']]} {percent(row, name)} %" for _, row in least.iterrows())
    answer = f"In {_dimensions(fewest)}, {name} kept: {parts}."
    whole = found[(found["model"] == "flow") & (found["dimensions"] == found["features"])]
    for _, row in whole.iterrows():
        answer += f" The flow in all {row['features']:g}: {percent(row, name)} %."
    return answer


def _dimensions(count: float) -> str:
    return f"{count:g} dimension{'' if count == 1 else 's'}"


def checks(rows: pd.DataFrame) -> list[Check]:
    """The VAE keeps more than PPCA in two dimensions, and few directions of a flow keep less."""
    found: list[Check] = []
    if (rows["epochs"].dropna() >= ENOUGH_EPOCHS).all():  # a small run is not trained to its optimum
        for (name, better, worse), decision in kept_more(rows).items():
            claim = f"in {_dimensions(rows['dimensions'].min())} {LABELS[better]} keeps more {THINGS[name]} than "
            size = f"{100 * decision.fitted.mean:+.1f} ± {100 * decision.fitted.error:.1f} %"
            found.append(Finding.of(f"{claim}{LABELS[worse]}", decision, size))
    if "round_trip" in rows and rows["round_trip"].notna().any():
        claim = f"the flow can be inverted: x comes back within {ROUND_TRIP:g} of a feature's spread"
        found.append(Check(claim, bool(rows["round_trip"].max() < ROUND_TRIP)))
    return found


def kept_more(rows: pd.DataFrame) -> dict[tuple[str, str, str], Decision]:
    """What the VAE keeps above PPCA in the fewest dimensions, and PPCA above the flow, all decided together by Holm.

    The means of two models are over the same rows, and taken for independent, since no single rows are kept: their
    difference then has the larger error, where rows are hard for both.
    """
    few = rows[rows["dimensions"] == rows["dimensions"].min()]
    family = {}
    for name in THINGS:
        for better, worse in (("vae", "ppca"), ("ppca", "flow")):
            one, other = (few[few["model"] == model].set_index("seed") for model in (better, worse))
            seeds = one.index.intersection(other.index)
            if len(seeds) and few[name].notna().all():
                difference = one.loc[seeds, name] - other.loc[seeds, name]
                error = np.hypot(one.loc[seeds, f"{name}_error"], other.loc[seeds, f"{name}_error"])
                family[name, better, worse] = over_seeds(difference, error, tables.least_points(one))
    return decisions(family)


def figure(rows: pd.DataFrame) -> Figure:
    """Above: test points in two dimensions (or one) of PPCA, VAE and flow, by class. Below: the classes and
    neighbourhoods (trustworthiness, continuity) that each keeps, against the number of dimensions.
    """
    found = averaged(rows)
    shown = 2 if ((rows["dimensions"] == 2) & (rows["features"] > 2)).any() else 1
    with panels(3, 2, width=13) as (drawn, axes):
        for each, model in zip(axes[:3], MODELS, strict=True):
            _points(each, rows[(rows["model"] == model) & (rows["dimensions"] == shown)], LABELS[model])
        for each, name in zip(axes[3:], ("classes", "trustworthiness", "continuity"), strict=True):
            _kept(each, found, name)
        legend_below(axes[3] if axes[3].lines else axes[4], 2)  # without classes the first is empty
        caption(drawn, words(rows))
    return drawn


def _points(axes: Axes, rows: pd.DataFrame, label: str) -> None:
    axes.set_title(label, loc="left", fontweight="bold")
    if rows.empty or not Path(str(rows["points"].iloc[0])).exists():
        axes.set_axis_off()
        return
    with np.load(Path(str(rows["points"].iloc[0]))) as file:
        z, labels = file["z"], file["labels"]
    kinds = list(map(str, labels)) if len(labels) else None
    order = sorted(set(kinds)) if kinds else None
    colours = sns.color_palette("colorblind", len(order)) if order else None
    if z.shape[1] == 1:
        sns.histplot(x=z[:, 0], hue=kinds, hue_order=order, palette=colours, multiple="stack", legend=True, ax=axes)
        axes.set(xlabel="the one dimension", ylabel="test points")
        return
    for kind, colour in zip(order or [""], colours or PALETTE[:1], strict=True):
        mine = z[np.array(kinds) == kind] if kinds else z
        axes.plot(mine[:, 0], mine[:, 1], "o", color=colour, markersize=4, markeredgewidth=0, rasterized=True)
    if kinds and order and len(order) <= 12:  # each class is named where it lies, so that colour is not all
        for kind in order:
            at = np.median(z[np.array(kinds) == kind], axis=0)
            axes.text(at[0], at[1], kind, ha="center", va="center", fontsize=11, fontweight="bold",
                      bbox={"facecolor": "white", "alpha": 0.75, "pad": 1.0, "edgecolor": "none"})  # fmt: skip
    axes.set(xlabel="first dimension", ylabel="second dimension")
    axes.grid(visible=False)


def _kept(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    title = "Classes by neighbours, %" if name == "classes" else f"{name.capitalize()}, %"
    axes.set_title(title, loc="left", fontweight="bold")
    if rows[name].isna().all():
        axes.text(0.5, 0.5, "these data have no classes", ha="center", transform=axes.transAxes, color="0.4")
        return
    for model, colour, marker in zip(MODELS, PALETTE, MARKERS, strict=False):
        few = rows[rows["model"] == model].sort_values("dimensions")
        axes.errorbar(
            few["dimensions"], 100 * few[name], yerr=100 * few[f"{name}_error"], color=colour, marker=marker,
            capsize=3, label=LABELS[model],
        )  # fmt: skip
    data = rows[rows["model"] == "data"]
    if len(data) and name == "classes":
        axes.axhline(100 * data[name].iloc[0], color="0.4", linestyle="--", linewidth=1.2, label=LABELS["data"])
    axes.set_xscale("log", base=2)
    every = sorted(rows["dimensions"].unique())
    axes.set_xticks(every, [f"{value:g}" for value in every])
    axes.set(xlabel="dimensions", ylabel="% of test points" if name == "classes" else "%")
