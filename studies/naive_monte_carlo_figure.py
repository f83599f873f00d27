"""The figure of `naive_monte_carlo`, from rows alone. Shortfalls against draws; in units of exp(KL); draws needed."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.kit.figures import MARKERS, PALETTE, caption, panels
from studies.naive_monte_carlo import ENOUGH, LABELS, Method, draws_needed, power


def naive_monte_carlo_figure(df: pd.DataFrame) -> Figure:
    """Shortfalls against draws; against draws in units of exp(KL); draws needed against latents."""
    with panels(3, width=16) as (drawn, (left, middle, right)):
        _methods(left, df)
        _collapse(middle, df)
        _needed(right, df)
        rate, error = power(draws_needed(df, "prior"))
        most = df["latents"].max()
        average = df[(df["method"] == "average") & (df["latents"] == most)]
        words = (
            f"The average of log p(x|z) stays KL(p(z) ‖ p(z|x)) below log p(x), here "
            f"{average['kl_prior_posterior'].mean():.1f} nats at {most} latents (dashed), however many draws. The "
            f"log-mean-exp converges once K passes exp(KL(p(z|x) ‖ p(z))): draws needed grow as exp(KL) to the power "
            f"{rate:.2f} ± {error:.2f}. The best diagonal encoder, not exact, is near with 2. Linear-Gaussian "
            f"models with exact log p(x); means ± standard errors over {int(df['points'].iloc[0])} points."
        )
        caption(drawn, words)
    return drawn


def _methods(axes: Axes, df: pd.DataFrame) -> None:
    most = df["latents"].max()
    rows = df[df["latents"] == most]
    for index, method in enumerate(get_args(Method)):
        of = rows[rows["method"] == method].groupby("draws")[["shortfall", "shortfall_se"]].mean()
        axes.errorbar(
            of.index, of["shortfall"], of["shortfall_se"], color=PALETTE[index], marker=MARKERS[index], capsize=3,
            label=LABELS[method],
        )  # fmt: skip
    axes.axhline(rows["kl_prior_posterior"].mean(), color="0.3", linestyle="--", linewidth=1.2)
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set(xscale="log", xlabel="draws K", ylabel="log p(x) − estimate, nats")
    axes.set_ylim(top=1.45 * rows["shortfall"].max())
    axes.set_title(f"{most} latents", loc="left", fontweight="bold")
    axes.legend(loc="upper right")


def _collapse(axes: Axes, df: pd.DataFrame) -> None:
    prior = df[df["method"] == "prior"]
    for index, (latents, rows) in enumerate(prior.groupby("latents")):
        of = rows.groupby("draws")[["shortfall", "shortfall_se", "kl_posterior_prior"]].mean()
        of = of[of["shortfall"] > 2 * of["shortfall_se"]]  # below it, a logarithm shows noise
        axes.errorbar(
            of.index / np.exp(of["kl_posterior_prior"]), of["shortfall"], of["shortfall_se"],
            color=PALETTE[index % len(PALETTE)], marker=MARKERS[index % len(MARKERS)], markersize=5, capsize=2,
            label=f"{latents}",
        )  # fmt: skip
    axes.axvline(1, color="0.3", linestyle="--", linewidth=1.2)
    axes.set(xscale="log", yscale="log", xlabel="K / exp(KL(p(z|x) ‖ p(z)))", ylabel="log p(x) − log-mean-exp, nats")
    axes.set_title("Draws from the prior, in units of exp(KL)", loc="left", fontweight="bold")
    axes.legend(title="latents", loc="upper right")


def _needed(axes: Axes, df: pd.DataFrame) -> None:
    needed, least = draws_needed(df, "prior"), df["draws"].min()
    axes.plot(needed.index, np.exp(needed["kl"]), color="0.3", linestyle="--", label="exp(KL(p(z|x) ‖ p(z)))")
    for index, method in ((1, "prior"), (2, "encoder")):
        needed = draws_needed(df, method)
        draws = np.exp(needed["log_draws"]).where(~needed["at_once"].astype(bool), least)
        error = (draws * needed["error"]).fillna(0)
        label = LABELS[method] + (f" ({least} are enough)" if needed["at_once"].all() else "")
        axes.errorbar(needed.index, draws, error, color=PALETTE[index], marker=MARKERS[index], capsize=3, label=label)
    axes.set(yscale="log", xlabel="latents", ylabel=f"draws until within {ENOUGH} nats of log p(x)")
    axes.set_ylim(1, 100 * np.exp(needed["kl"].max()))
    axes.set_title("Draws needed", loc="left", fontweight="bold")
    axes.legend(loc="upper left")
