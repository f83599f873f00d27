"""What the rows of `kl_term` say: table, checks and figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from significance import Decision, Verdict, decisions, over_seeds
from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import averaged, empty, least_points, with_error
from studies.kl_term.settings import Settings

ENOUGH_EPOCHS = 100
RECONSTRUCTED = "without the KL term test points are reconstructed better than with a tenth of it"
GAINED = "a warm-up gains ELBO"
BLUE, ORANGE, GREEN = PALETTE[:3]


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the sweep, the weights of these settings."""
    return rows[(rows["part"] != "sweep") | rows["at"].isin(map("{:g}".format, settings.betas))]


def of_part(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """The rows of a part by ``at``, mean over seeds."""
    found = averaged(rows[rows["part"] == part], "at")
    return found.sort_values("beta") if part == "sweep" else found


def table(rows: pd.DataFrame) -> Group:
    """One row for each weight, then warm-up."""
    names = ("β", "rate", "distortion", "squared error", "ELBO", "importance-weighted bound", "KL(q(z) ‖ p(z))")
    title = "By the weight β of the KL term; test points, nats"
    first = empty(title, (), (*names, "active", "told apart, %"), wrap=True)
    for at, row in of_part(rows, "sweep").iterrows():
        numbers = ("rate", "distortion", "squared_error", "elbo", "log_p", "marginal")
        digits = (2, 2, 3, 2, 2, 2)
        cells = [f"{row[n]:.{d}f} ± {row[f'{n}_error']:.{d}f}" for n, d in zip(numbers, digits, strict=True)]
        told = f"{100 * row['told_apart']:.1f} ± {100 * row['told_apart_error']:.1f}"
        first.add_row(str(at), *cells, f"{row['active']:g}", told)
    title = "A decoder that learns its width, many latents"
    second = empty(title, ["warm-up"], ("ELBO", "gained", "active", "rate"), wrap=True)
    for at, row in of_part(rows, "warm-up").iterrows():
        cells = [f"{row[n]:.2f} ± {row[f'{n}_error']:.2f}" for n in ("elbo", "gain")]
        second.add_row(str(at), *cells, f"{row['active']:g}", f"{row['rate']:.2f}")
    return Group(first, second, Text(words(rows)))


def words(rows: pd.DataFrame) -> str:
    """The answer from the rows."""
    sweep, warm, width = of_part(rows, "sweep"), of_part(rows, "warm-up"), rows[rows["part"] == "width"]
    best = sweep["elbo"].idxmax()
    return (
        f"The ELBO is best at β = {best} ({sweep['elbo'].max():.1f} nats), samples are told apart least at "
        f"β = {sweep['told_apart'].idxmin()}, squared error is least at β = {sweep['squared_error'].idxmin()}. β at "
        f"width σ and 1 at width σ√β: weights differ by {width['weights_apart'].max():.0e} after moving up to "
        f"{width['weights_moved'].max():.2f}. Warm-up: {warm['active']['warm-up']:g} active latents instead of "
        f"{warm['active']['none']:g}, ELBO gained {warm['gain']['warm-up']:.2f} ± "
        f"{warm['gain_error']['warm-up']:.2f}."
    )


def checks(rows: pd.DataFrame) -> list[Check]:
    """Monotone rate and distortion, the best bound at 1, and one fit by weight or by width."""
    sweep, width, warm = of_part(rows, "sweep"), rows[rows["part"] == "width"], of_part(rows, "warm-up")
    same = bool((width["weights_apart"] < 1e-3 * width["weights_moved"]).all())
    found = {
        "the rate falls as β grows": sweep["rate"].is_monotonic_decreasing,
        "warm-up keeps at least as many latents active": warm["active"]["warm-up"] >= warm["active"]["none"],
    }
    if "0" in sweep.index:
        found["without the KL term the aggregate posterior is furthest from the prior"] = (
            sweep["marginal"].idxmax() == "0"
        )
    decided = differences(rows)
    beaten = {at: one.verdict for at, one in decided.items() if at not in (RECONSTRUCTED, GAINED)}
    best = True if all(sign is Verdict.FIRST for sign in beaten.values()) else None
    best = False if Verdict.SECOND in beaten.values() else best
    against = ", ".join(f"β = {at}" for at, sign in beaten.items() if sign is Verdict.FIRST) or "none"
    highest = f"highest at β = {sweep['elbo'].idxmax()}; proven against {against}"
    epochs = int(rows["epochs"].min()) if "epochs" in rows else ENOUGH_EPOCHS  # rows of before it was kept are whole
    return [
        Check("β at width σ and 1 at width σ√β give weights equal to 0.001 of their way", same),
        Finding("β = 1 has a better ELBO than every other weight", best, measured=highest),
        *(Finding.at_the_end(claim, bool(holds), epochs, ENOUGH_EPOCHS, "epochs") for claim, holds in found.items()),
        *(
            Finding.of(claim, decision, with_error(decision.fitted.mean, decision.fitted.error))
            for claim, decision in decided.items()
            if claim in (RECONSTRUCTED, GAINED)
        ),
    ]


def differences(rows: pd.DataFrame) -> dict[str, Decision]:
    """By how much β = 1 has a better ELBO than each other weight, what the KL term costs of the reconstruction, and
    what a warm-up gains of the ELBO: decided together by Holm.

    Means of two fits are over the same points, and taken for independent, since no single points are kept: their
    differences then have the larger errors.
    """
    sweep, warm = (rows[rows["part"] == part] for part in ("sweep", "warm-up"))
    points, family = least_points(rows), {}
    none, some = (sweep[sweep["at"] == at].set_index("seed") for at in ("0", "0.1"))
    if len(none) and len(some):
        error = np.hypot(none["squared_error_error"], some["squared_error_error"])
        family[RECONSTRUCTED] = over_seeds(some["squared_error"] - none["squared_error"], error, points)
    one = sweep[sweep["at"] == "1"].set_index("seed")
    for at, of in sweep[sweep["at"] != "1"].groupby("at", sort=False):
        other = of.set_index("seed")
        seeds = one.index.intersection(other.index)
        if len(seeds):
            error = np.hypot(one.loc[seeds, "elbo_error"], other.loc[seeds, "elbo_error"])
            family[str(at)] = over_seeds(one.loc[seeds, "elbo"] - other.loc[seeds, "elbo"], error, points)
    gained = warm[warm["at"] == "warm-up"]
    if len(gained):
        family[GAINED] = over_seeds(gained["gain"], gained["gain_error"], points)
    return decisions(family)


def figure(rows: pd.DataFrame) -> Figure:
    """Rate and distortion; bounds and samples by β; pictures of samples where a point is a square image."""
    sweep = of_part(rows, "sweep")
    with panels(2, 2, width=13) as (drawn, (rate, bounds, told, pictures)):
        _rate(rate, sweep)
        _bounds(bounds, sweep)
        _told(told, sweep)
        _pictures(pictures, rows)
        caption(drawn, words(rows))
    return drawn


def _rate(axes: Axes, sweep: pd.DataFrame) -> None:
    axes.errorbar(
        sweep["rate"], sweep["distortion"], xerr=sweep["rate_error"], yerr=sweep["distortion_error"],
        color=BLUE, marker="o", capsize=3, linewidth=1.2,
    )  # fmt: skip
    last = 0.0
    for at, row in sweep[::-1].iterrows():  # from the left; a label whose left neighbour is close goes below its bar
        beside = row["rate"] > 1.5 * last
        point = row["distortion"] if beside else row["distortion"] - row["distortion_error"]
        place: dict[str, Any] = {"xytext": (7, 8)} if beside else {"xytext": (0, -16), "ha": "center"}
        last = row["rate"]
        axes.annotate(f"β = {at}", (row["rate"], point), textcoords="offset points", fontsize=10, **place)
    axes.set_xscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.12 * (high - low), high + 0.08 * (high - low))
    axes.set_xlim(right=sweep["rate"].max() * 2.5)
    axes.set(xlabel="rate KL(q(z|x) ‖ p(z)), nats per point", ylabel="distortion −E log p(x|z), nats per point")
    axes.set_title("Rate and distortion", loc="left", fontweight="bold")


def _bounds(axes: Axes, sweep: pd.DataFrame) -> None:
    places = range(len(sweep))
    for name, error, colour, label, marker in (
        ("log_p", "log_p_error", BLUE, "importance-weighted bound", ">"),
        ("elbo", "elbo_error", ORANGE, "ELBO", "s"),
    ):
        axes.errorbar(places, sweep[name], yerr=sweep[error], color=colour, marker=marker, capsize=3, label=label)
    axes.set_xticks(places, list(sweep.index))
    low = sweep.loc[sweep.index != "0", ["elbo", "log_p"]].min().min()
    high = sweep["log_p"].max()
    if sweep["elbo"].min() < low - (high - low):  # β = 0 would flatten all the others
        axes.set_ylim(low - 0.45 * (high - low), high + 0.25 * (high - low))
        below = f"β = 0:\nELBO {sweep['elbo']['0']:.0f},\nbound {sweep['log_p']['0']:.0f}"
        axes.text(-0.4, low - 0.4 * (high - low), below, fontsize=10, color="0.3")
    axes.set_xlim(-0.5, len(sweep) - 0.5)
    axes.set(xlabel="weight β of the KL term", ylabel="lower bounds on log p(x), nats per point")
    axes.set_title("Only β = 1 aims at log p(x)", loc="left", fontweight="bold")
    axes.legend(loc="lower center")


def _told(axes: Axes, sweep: pd.DataFrame) -> None:
    places = np.arange(len(sweep))
    axes.errorbar(
        places, 100 * sweep["told_apart"], yerr=100 * sweep["told_apart_error"], color=GREEN, marker="o", capsize=3
    )
    axes.axhline(50, color="0.5", linestyle="--", linewidth=1.2)
    axes.text(len(sweep) - 0.6, 51, "as good as data", ha="right", va="bottom", fontsize=10, color="0.4")
    axes.set_xticks(places, [f"{at}\n{row['active']:g} active" for at, row in sweep.iterrows()])
    axes.set_xlim(-0.5, len(sweep) - 0.5)
    label = "weight β of the KL term; latents that are active"
    axes.set(xlabel=label, ylabel="samples told from data by 5 neighbours, %", ylim=(44, 100))
    axes.set_title("Samples from the prior", loc="left", fontweight="bold")


def _pictures(axes: Axes, rows: pd.DataFrame) -> None:
    """A line of samples for each β; nothing where points are no images."""
    axes.set_axis_off()
    first = rows[(rows["part"] == "sweep") & (rows["seed"] == rows["seed"].min())].sort_values("beta")
    lines, names = [], []
    for _, row in first.iterrows():
        path = Path(str(row["points"]))
        if not path.exists():
            return
        with np.load(path) as file:
            means = file["means"]
        side = math.isqrt(means.shape[1])
        if side * side != means.shape[1] or side < 6:
            return
        lines.append(np.concatenate([np.pad(m.reshape(side, side), 1, constant_values=np.nan) for m in means], 1))
        names.append(str(row["at"]))
    axes.imshow(np.concatenate(lines), cmap="Greys", aspect="equal", interpolation="none")
    for number, name in enumerate(names):
        axes.text(-3, (number + 0.5) * len(lines[0]), f"β = {name}", ha="right", va="center", fontsize=10.5)
    axes.set_title("Means of the decoder at draws from the prior", loc="left", fontweight="bold")
