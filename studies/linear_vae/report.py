"""What the rows of `linear_vae` say: table, checks and figure."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from rich.console import Group
from rich.text import Text

from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, series
from studies.linear_vae.settings import PATHS

BLUE, ORANGE = PALETTE[:2]
NEAR = 0.05  # nats
ENOUGH_STEPS = 3000
AXIS = 5.0  # degrees
ROUNDING = 1e-3  # of log p(x) of some hundred nats in single precision


def of_part(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The rows of a part."""
    return rows[rows["part"] == part]


def table(rows: pd.DataFrame) -> Group:
    """The optimum beside PPCA, the ends of both paths, collapse and rotations."""
    best, path = of_part(rows, "optimum"), of_part(rows, "path")
    names = ("log p(x)", "ELBO", "below PPCA", "span, degrees", "worst column, degrees", "σ² / PPCA's")
    shown = empty("Linear VAE and PPCA, training data, nats per point", [""], names, wrap=True)
    ppca = f"{best['ppca'].mean():.4f}"
    shown.add_row("PPCA, closed form", ppca, ppca, "0", "0", "0", "1")
    ends = path[path["step"] == path["step"].max()]
    fits = {"L-BFGS": best, **{f"Adam, {label}": ends[ends["label"] == label] for label in PATHS.values()}}
    formats = {"log_p": ".4f", "elbo": ".4f", "elbo_shortfall": ".1e", "span_angle": ".3f", "axis_angle": ".3f"}
    for label, fit in fits.items():
        cells = (f"{fit[name].mean():{spec}}" for name, spec in (formats | {"noise_ratio": ".5f"}).items())
        shown.add_row(f"linear VAE, {label}", *cells)
    return Group(shown, Text(words(rows)))


def words(rows: pd.DataFrame) -> str:
    """The answer from the rows."""
    best, collapse, rotated = (of_part(rows, part) for part in ("optimum", "collapse", "rotation"))
    exact = int((collapse["active"] == collapse["expected_active"]).sum())
    path = of_part(rows, "path")
    end = path[(path["step"] == path["step"].max()) & (path["label"] == PATHS["closed form"])]
    return (
        f"By L-BFGS the linear VAE's ELBO ends {best['elbo_shortfall'].mean():.0e} nats below PPCA's log p(x), its "
        f"worst column {best['axis_angle'].mean():.1f} degrees off a principal axis; by {int(end['step'].max()):,} "
        f"steps of Adam (the paths that are drawn) {end['elbo_shortfall'].mean():.3f} nats below, the worst column "
        f"{end['axis_angle'].mean():.0f} degrees off. In {exact} of {len(collapse)} fits at fixed "
        f"σ² as many columns live as eigenvalues exceed it. A rotation changes log p(x) by "
        f"{rotated['log_p_change'].max():.0g} and costs up to {rotated['formula'].max():.2f} nats of ELBO."
    )


def checks(rows: pd.DataFrame) -> list[Check]:
    """The four sentences of the claim."""
    best, path, collapse, rotated = (of_part(rows, part) for part in ("optimum", "path", "collapse", "rotation"))
    ends = path[(path["step"] == path["step"].max()) & (path["label"] == PATHS["closed form"])]
    close = (rotated["gap"] - rotated["formula"]).abs() <= 4 * rotated["gap_error"] + ROUNDING
    claims = {
        "at the optimum the ELBO is within 0.001 nats of PPCA's log p(x)": best["elbo_shortfall"].abs() < 1e-3,
        "columns of W are within 5 degrees of principal axes, where eigenvalues differ by 5 %": ~(
            best["clear_axis_angle"] > 5
        ),
        "as many columns live as eigenvalues exceed σ²": collapse["active"] == collapse["expected_active"],
        "their squared norms are λ − σ², within 1 % of the largest λ": collapse["norm_error"] < 0.01,
        "the cost of a rotation is the formula's within 4 standard errors": close,
    }
    found = [Check(claim, bool(holds.all())) for claim, holds in claims.items()]
    arrived, steps = bool((ends["elbo_shortfall"] < NEAR).all()), int(ends["step"].max())
    claim = f"Adam's path ends within {NEAR:g} nats of it"
    found.insert(1, Check.at_the_end(claim, arrived, steps, ENOUGH_STEPS, "steps"))
    worst = float(ends["axis_angle"].max())
    claim = f"Adam's path ends with every column within {AXIS:g} degrees of its axis"
    end = Finding.at_the_end(claim, worst < AXIS, steps, ENOUGH_STEPS, "steps")
    return [*found, replace(end, expected=f"below {AXIS:g} degrees", measured=f"{worst:.0f} degrees")]


def figure(rows: pd.DataFrame) -> Figure:
    """Above: how far the ELBO is below PPCA's log p(x) along two trainings, and the angles of W's span and of its worst
    column to the principal axes. Below: living columns against the noise variance, and what a rotated latent costs.
    """
    with panels(2, 2) as (drawn, (path, axes, collapse, rotation)):
        _paths(path, of_part(rows, "path"))
        _directions(axes, of_part(rows, "path"))
        _collapse(collapse, of_part(rows, "collapse"))
        _rotations(rotation, of_part(rows, "rotation"))
        caption(drawn, words(rows))
    return drawn


def _paths(axes: Axes, rows: pd.DataFrame) -> None:
    sns.lineplot(
        rows, x="step", y="elbo_shortfall", hue="label", hue_order=PATHS.values(), style="label",
        style_order=PATHS.values(), palette="colorblind", markers=True, dashes=False, errorbar=("sd", 1), ax=axes,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="Adam steps", ylabel="PPCA's log p(x) − ELBO, nats per point")
    axes.set_title("The path to PPCA", loc="left", fontweight="bold")
    axes.legend(title=None)


def _directions(axes: Axes, rows: pd.DataFrame) -> None:
    shown = rows.melt(["step", "label", "seed"], ["span_angle", "axis_angle"], "angle", value_name="apart")
    shown["angle"] = shown["angle"].map({"span_angle": "span of W", "axis_angle": "worst single column"})
    sns.lineplot(
        shown[shown["label"] == PATHS["closed form"]], x="step", y="apart", hue="angle", style="angle",
        palette=PALETTE[2:4], markers=True, dashes=False, errorbar=("sd", 1), ax=axes,
    )  # fmt: skip
    axes.set(xscale="log", xlabel="Adam steps", ylabel="angle to the principal axes, degrees", ylim=(-2, 92))
    axes.set_title("The subspace comes first, the axes lag", loc="left", fontweight="bold")
    axes.legend(title=None)


def _collapse(axes: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby("noise_variance")[["active", "expected_active"]].mean()
    spectrum = sorted(series(rows["spectrum"].iloc[0]))
    xs = [means.index.min() * 0.8, *spectrum, max(means.index.max(), spectrum[-1]) * 1.25]
    ys = [sum(value > x for value in spectrum) for x in xs[:-1]]
    axes.step(xs, [*ys, 0], where="post", color=BLUE, linewidth=1.6, label="eigenvalues above σ²")
    axes.plot(means.index, means["active"], "o", color=ORANGE, markersize=7, label="columns of W that are not 0")
    axes.set(xscale="log", xlabel="fixed noise variance σ², mean variance of a feature = 1", ylabel="number")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("A column collapses where λ ≤ σ²", loc="left", fontweight="bold")
    axes.legend()


def _rotations(axes: Axes, rows: pd.DataFrame) -> None:
    names = ["½ (Σ log Mᵢᵢ − log det M)", "by sampling, ± standard error"]
    for _, one in rows.sort_values("degrees").groupby("seed"):
        axes.plot(one["degrees"], one["formula"], color=BLUE, linewidth=1.6)
        axes.errorbar(one["degrees"], one["gap"], yerr=one["gap_error"], fmt="o", color=ORANGE, capsize=3)
    axes.set(xlabel="rotation of the first and last latent, degrees", ylabel="log p(x) − ELBO, nats per point")
    axes.set_title("What a rotated latent costs", loc="left", fontweight="bold")
    axes.legend([*axes.lines[:1], *axes.containers[:1]], names)
