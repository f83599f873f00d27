"""What the rows of `naive_monte_carlo` say: table, checks and figure."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from studies.kit.figures import MARKERS, PALETTE, caption, legend_below, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import empty
from studies.naive_monte_carlo.settings import Method, Settings

LABELS = {
    "average": "average of log p(x|z), prior",
    "prior": "log-mean-exp of p(x|z), prior",
    "encoder": "log-mean-exp of weights, encoder",
}
ENOUGH = 0.5  # nats of shortfall at which draws count as enough
SIGMAS = 4.5  # standard errors: with some 40 comparisons a study, one in 3,000 studies is wrong by chance
RATE = 0.25  # by which the power of exp(KL) may differ from 1: fluctuations of log-weights grow as √q beside the KL
LEFT = (0.5, 2.5)  # nats: what "of the order of exp(KL) draws" is taken to mean
FAR = 0.1  # nats of shortfall that the encoder's draws may leave at 128 draws and more


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """The numbers of latents and of draws of these settings."""
    return rows[rows["latents"].isin(settings.latents) & rows["draws"].isin(settings.draws)]


def draws_needed(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """For each latent dimension log K at which the shortfall falls to :data:`ENOUGH`, by interpolation, and its error.

    NaN where no K was enough, or the least already was (``at_once``). The error is that of the shortfall over its slope
    in log K.
    """
    found = []
    columns = ["shortfall", "shortfall_se", "kl_posterior_prior", "kl_posterior_encoder"]
    for latents, of in rows[rows["method"] == method].groupby("latents"):
        means = of.groupby("draws")[columns].mean()
        log_draws, short = np.log(means.index.to_numpy(dtype=float)), means["shortfall"].to_numpy()
        below = np.flatnonzero(short <= ENOUGH)
        log_needed = error = math.nan
        if len(below) and below[0] > 0:
            j = below[0]
            share = (short[j - 1] - ENOUGH) / (short[j - 1] - short[j])
            log_needed = log_draws[j - 1] + share * (log_draws[j] - log_draws[j - 1])
            spread = max(means["shortfall_se"].iloc[j - 1 : j + 1]) / math.sqrt(rows["seed"].nunique())
            error = spread * (log_draws[j] - log_draws[j - 1]) / (short[j - 1] - short[j])
        found.append(
            {
                "latents": latents,
                "log_draws": log_needed,
                "error": error,
                "at_once": len(below) > 0 and below[0] == 0,
                "kl": means["kl_posterior_prior"].mean(),
                "kl_encoder": means["kl_posterior_encoder"].mean(),
            }
        )
    return pd.DataFrame(found).set_index("latents")


def shortfall_at_kl(rows: pd.DataFrame) -> pd.Series[float]:
    """Shortfall of the prior's draws at K = exp(KL), by interpolation in log K; NaN outside the range of K."""

    def at(of: pd.DataFrame) -> float:
        means = of.groupby("draws")[["shortfall", "kl_posterior_prior"]].mean()
        log_draws = np.log(means.index.to_numpy(dtype=float))
        target = means["kl_posterior_prior"].mean()
        return float(np.interp(target, log_draws, means["shortfall"].to_numpy(), left=math.nan, right=math.nan))

    return rows[rows["method"] == "prior"].groupby("latents")[["draws", "shortfall", "kl_posterior_prior"]].apply(at)


def power(needed: pd.DataFrame) -> tuple[float, float]:
    """c in K ∝ exp(c · KL) by weighted least squares, and its standard error; NaN with fewer than three points."""
    known = needed.dropna()
    if len(known) < 3:
        return math.nan, math.nan
    weight = 1 / known["error"] ** 2
    centred = known["kl"] - np.average(known["kl"], weights=weight)
    information = float((weight * centred**2).sum())
    return float((weight * centred * known["log_draws"]).sum() / information), 1 / math.sqrt(information)


def table(rows: pd.DataFrame) -> Group:
    """One line a latent dimension: the divergences, what the average misses, how many draws are enough."""
    headers = ("latents", "KL(post‖prior)", "average misses", "KL(prior‖post)", "K, prior", "exp(KL)", "K, encoder")
    shown = empty("Means over points, nats; K: draws until log p(x) is within 0.5 nats", (), headers)
    prior, encoder = draws_needed(rows, "prior"), draws_needed(rows, "encoder")
    averages = rows[rows["method"] == "average"]
    for (latents, row), (_, near) in zip(prior.iterrows(), encoder.iterrows(), strict=True):
        of = averages[averages["latents"] == latents]
        last = of[of["draws"] == of["draws"].max()]
        shown.add_row(
            str(latents),
            f"{row['kl']:.2f}",
            f"{last['shortfall'].mean():.2f} ± {last['shortfall_se'].mean():.2f}",
            f"{last['kl_prior_posterior'].mean():.2f}",
            _draws(row, rows),
            f"{math.exp(row['kl']):,.0f}",
            _draws(near, rows),
        )
    rate, error = power(prior)
    at_kl = shortfall_at_kl(rows).dropna()
    words = (
        f"Draws needed from the prior grow as exp(KL) to the power {rate:.2f} ± {error:.2f}; "
        f"with exp(KL) of them, log p(x) is missed by {at_kl.min():.2f} to {at_kl.max():.2f} nats."
    )
    return Group(shown, Text(words))


def _draws(needed: pd.Series[float], rows: pd.DataFrame) -> str:
    if math.isnan(needed["log_draws"]):
        return f"≤ {rows['draws'].min()}" if needed["at_once"] else f"> {rows['draws'].max():,}"
    draws = math.exp(needed["log_draws"])
    return f"{draws:,.0f} ± {draws * needed['error']:,.0f}"


def checks(rows: pd.DataFrame) -> list[Check]:
    """What the claim says, each with the measured number."""
    average, prior, encoder = (rows[rows["method"] == method] for method in get_args(Method))
    off = (average["excess"] / average["excess_se"]).abs().max()
    claim = f"the average of log p(x|z) misses KL(prior‖posterior) at every K, within errors (largest: {off:.1f})"
    found = [Check(claim, bool(off < SIGMAS), f"below {SIGMAS} errors", f"{off:.1f}")]
    bounds = pd.concat([prior, encoder])
    bounds = bounds[bounds["shortfall_se"] > 1e-9]  # an exact encoder, of one latent, has no error but rounding
    least = (bounds["shortfall"] / bounds["shortfall_se"]).min()
    found.append(Check(f"no log-mean-exp is above log p(x) but by chance ({least:+.1f} errors)", least > -SIGMAS))
    rate, error = power(draws_needed(rows, "prior"))
    claim = f"draws needed from the prior grow as exp(KL)^c with c within {RATE} of 1 (c = {rate:.2f} ± {error:.2f})"
    found.append(Finding(claim, bool(abs(rate - 1) < RATE), f"1 ± {RATE}", f"{rate:.2f} ± {error:.2f}"))
    enough = encoder[encoder["draws"] >= 128]
    worst = enough["shortfall"].max()
    at_kl = shortfall_at_kl(rows).dropna()
    claim = f"at K = exp(KL) the prior's draws miss {LEFT[0]} to {LEFT[1]} nats at every number of latents"
    between, measured = bool(at_kl.between(*LEFT).all()), f"{at_kl.min():.2f} to {at_kl.max():.2f}"
    found.append(Finding(f"{claim} ({measured})", between, f"{LEFT[0]} to {LEFT[1]}", measured))
    claim = f"128 draws of the encoder are within {FAR} nats for every number of latents (worst {worst:.3f})"
    found.append(Finding(claim, bool(worst < FAR), f"below {FAR} nats", f"{worst:.3f}"))
    most = prior["latents"].max()
    short, near = (
        of.loc[(of["latents"] == most) & (of["draws"] == 512), "shortfall"].mean() for of in (prior, encoder)
    )
    claim = f"at {most} latents and 512 draws the prior's miss ten times what the encoder's do"
    found.append(Finding(claim, bool(short > 10 * abs(near)), "ten times", f"{short:.2f} and {abs(near):.3f} nats"))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Left: what estimates of log p(x) miss against the number of draws. Middle: the same in units of exp(KL). Right:
    draws needed against the number of latents.
    """
    with panels(3, width=14) as (drawn, (left, middle, right)):
        _methods(left, rows)
        _collapse(middle, rows)
        _needed(right, rows)
        rate, error = power(draws_needed(rows, "prior"))
        most = rows["latents"].max()
        average = rows[(rows["method"] == "average") & (rows["latents"] == most)]
        words = (
            f"The average of log p(x|z) stays KL(p(z) ‖ p(z|x)) below log p(x), here "
            f"{average['kl_prior_posterior'].mean():.1f} nats at {most} latents (dashed), however many draws. The "
            f"log-mean-exp converges once K passes exp(KL(p(z|x) ‖ p(z))): draws needed grow as exp(KL) to the power "
            f"{rate:.2f} ± {error:.2f}. The best diagonal encoder, not exact, is near with 2. Linear-Gaussian "
            f"models with exact log p(x); means ± standard errors over {int(rows['points'].iloc[0])} points."
        )
        caption(drawn, words)
    return drawn


def _methods(axes: Axes, rows: pd.DataFrame) -> None:
    most = rows["latents"].max()
    largest = rows[rows["latents"] == most]
    for index, method in enumerate(get_args(Method)):
        of = largest[largest["method"] == method].groupby("draws")[["shortfall", "shortfall_se"]].mean()
        axes.errorbar(
            of.index, of["shortfall"], of["shortfall_se"], color=PALETTE[index], marker=MARKERS[index], capsize=3,
            label=LABELS[method],
        )  # fmt: skip
    axes.axhline(largest["kl_prior_posterior"].mean(), color="0.3", linestyle="--", linewidth=1.2)
    axes.axhline(0, color="0.3", linewidth=1)
    axes.set(xscale="log", xlabel="draws K", ylabel="log p(x) − estimate, nats")
    axes.set_title(f"{most} latents", loc="left", fontweight="bold")
    legend_below(axes, 1)


def _collapse(axes: Axes, rows: pd.DataFrame) -> None:
    prior = rows[rows["method"] == "prior"]
    for index, (latents, each) in enumerate(prior.groupby("latents")):
        of = each.groupby("draws")[["shortfall", "shortfall_se", "kl_posterior_prior"]].mean()
        of = of[of["shortfall"] > 2 * of["shortfall_se"]]  # below it, a logarithm shows noise
        axes.errorbar(
            of.index / np.exp(of["kl_posterior_prior"]), of["shortfall"], of["shortfall_se"],
            color=PALETTE[index % len(PALETTE)], marker=MARKERS[index % len(MARKERS)], markersize=5, capsize=2,
            label=f"{latents}",
        )  # fmt: skip
    axes.axvline(1, color="0.3", linestyle="--", linewidth=1.2)
    axes.set(xscale="log", yscale="log", xlabel="K / exp(KL(p(z|x) ‖ p(z)))", ylabel="log p(x) − log-mean-exp, nats")
    axes.set_title("Prior draws in units of exp(KL)", loc="left", fontweight="bold")
    legend_below(axes, 4, title="latents")


def _needed(axes: Axes, rows: pd.DataFrame) -> None:
    needed, least = draws_needed(rows, "prior"), rows["draws"].min()
    axes.plot(needed.index, np.exp(needed["kl"]), color="0.3", linestyle="--", label="exp(KL(p(z|x) ‖ p(z)))")
    for index, method in ((1, "prior"), (2, "encoder")):
        needed = draws_needed(rows, method)
        draws = np.exp(needed["log_draws"]).where(~needed["at_once"].astype(bool), least)
        error = (draws * needed["error"]).fillna(0)
        label = LABELS[method] + (f" ({least} are enough)" if needed["at_once"].all() else "")
        axes.errorbar(needed.index, draws, error, color=PALETTE[index], marker=MARKERS[index], capsize=3, label=label)
    axes.set(yscale="log", xlabel="latents", ylabel=f"draws until within {ENOUGH} nats of log p(x)")
    axes.set_title("Draws needed", loc="left", fontweight="bold")
    legend_below(axes, 1)
