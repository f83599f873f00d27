"""What the rows of `choice` say: tables, checks and figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group

from studies.choice.settings import Settings
from studies.choice.standings import CRITERIA, NAMES, Curve, Picks, curves, families, picks
from studies.kit.figures import MARKERS, PALETTE, caption, legend_below, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, with_error

SIGMAS = 2.0  # of a sign test
WIDTH = 0.2  # of a bar


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the families and sets of these settings."""
    sets = (rows["data"] != "simulated") | (rows["repeat"] < settings.repeats)
    return rows[rows["family"].isin(settings.families) & sets]


def table(rows: pd.DataFrame) -> Group:
    """How often each criterion picks the true number of simulated rows, and what it picks of real ones."""
    found = []
    if of_truth := picks(rows):
        sets = len(of_truth[0].picked)
        shown = empty(
            f"{sets} simulated sets of each family: the share in which the true number is picked, and the mean picked",
            ["", "truth"],
            list(CRITERIA.values()),
        )
        for family in dict.fromkeys(each.family for each in of_truth):
            own = {each.criterion: each for each in of_truth if each.family == family}
            truth = str(own["bic"].truth)
            shown.add_row(NAMES[family], truth, *(_share(own.get(criterion)) for criterion in CRITERIA))
        found.append(shown)
    real = [curve for curve in curves(rows) if curve.picked]
    if real:
        shown = empty("Real rows: what each picks", ["rows", ""], ["of", *CRITERIA.values()])
        for curve in real:
            words = [str(curve.picked[criterion]) if criterion in curve.picked else "" for criterion in CRITERIA]
            shown.add_row(curve.data, NAMES[curve.family], f"1 … {int(curve.sizes[-1])}", *words)
        found.append(shown)
        shown = empty("Held-out evidence behind the best, paired, nats a row", ["rows", ""], ["number", "behind"])
        for curve in real:
            for size, behind, error in zip(curve.sizes, curve.behind, curve.errors, strict=True):
                best = error == 0
                cells = ("best" if best else with_error(behind, error),)
                shown.add_row(curve.data, NAMES[curve.family], f"{int(size)}", *cells)
        found.append(shown)
    return Group(*found)


def _share(of: Picks | None) -> str:
    return "= evidence" if of is None else f"{with_error(of.share, of.error)}, {of.mean:.2f}"


def answer(rows: pd.DataFrame) -> str:
    """In words, with numbers."""
    lines = []
    for family in families(rows[rows["data"] == "simulated"]):
        own = [each for each in picks(rows) if each.family == family]
        best = max(own, key=lambda each: each.right)
        words = ", ".join(f"{CRITERIA[each.criterion]} {each.right}" for each in own)
        lines.append(f"The {best.truth} {NAMES[family]}, of {len(best.picked)} sets: {words}.")
    for curve in curves(rows):
        if curve.picked:
            words = ", ".join(f"{CRITERIA[name]} {size}" for name, size in curve.picked.items())
            lines.append(f"{curve.data}, {NAMES[curve.family]}: {words}.")
    return " ".join(lines)


def checks(rows: pd.DataFrame) -> list[Check]:
    """What an error on the evidence cannot do; and of VAEs, whether BIC is right where the evidence is wrong."""
    found: list[Check] = []
    every = {(each.family, each.criterion): each for each in picks(rows)}
    for family in dict.fromkeys(family for family, _ in every):
        by_evidence, by_error = every[family, "evidence"], every[family, "one_error"]
        claim = f"{NAMES[family]}: within an error of the best never more are picked than at the best"
        found.append(Check(claim, bool((by_error.picked <= by_evidence.picked).all())))
    if ("vae", "bic") in every:
        found.append(_bic_against(every["vae", "evidence"], every["vae", "bic"]))
    return found


def _bic_against(evidence: Picks, bic: Picks) -> Finding:
    gained = int(((bic.picked == bic.truth) & (evidence.picked != bic.truth)).sum())
    lost = int(((bic.picked != bic.truth) & (evidence.picked == bic.truth)).sum())
    sure = abs(gained - lost) > SIGMAS * (gained + lost) ** 0.5
    claim = f"{NAMES[bic.family]}: BIC picks the truth in more sets than the evidence"
    words = f"{gained} sets where it alone does, {lost} where the evidence alone does"
    return Finding(claim, gained > lost if sure else None, measured=words)


def figure(rows: pd.DataFrame) -> Figure:
    """Of simulated rows the share of sets in which each criterion picks the truth, with binomial errors, and how far
    held-out evidence is behind that of the truth; of real rows how far it is behind the best, and what is picked.
    """
    of_truth = picks(rows)
    simulated = [curve for curve in curves(rows) if not curve.picked]
    real = [curve for curve in curves(rows) if curve.picked]
    count = (2 if of_truth else 0) + len(real)
    with panels(count, width=4.6 * count, height=4.6) as (drawn, axes):
        if of_truth:
            _shares(axes[0], of_truth)
            _simulated(axes[1], simulated)
        for own, curve in zip(axes[2 if of_truth else 0 :], real, strict=True):
            _real(own, curve)
        caption(drawn, answer(rows))
    return drawn


def _shares(axes: Axes, of_truth: list[Picks]) -> None:
    names = list(dict.fromkeys(each.family for each in of_truth))
    for index, (criterion, label) in enumerate(CRITERIA.items()):
        own = [each for each in of_truth if each.criterion == criterion]
        places = [names.index(each.family) + WIDTH * (index - 1.5) for each in own]
        axes.bar(places, [each.share for each in own], WIDTH, color=PALETTE[index], label=label)
        axes.errorbar(places, [each.share for each in own], [each.error for each in own], fmt="none", color="0.3")
    axes.set_xticks(range(len(names)), [NAMES[name].replace(" of ", "\nof ") for name in names], fontsize=9)
    axes.set(ylabel="share of sets", ylim=(0, 1.08), yticks=(0, 0.25, 0.5, 0.75, 1))
    axes.set_title("How often the truth is picked", loc="left", fontweight="bold")
    legend_below(axes, 2)


def _simulated(axes: Axes, found: list[Curve]) -> None:
    axes.axhline(0, color="0.3", linewidth=1)
    for index, curve in enumerate(found):
        axes.errorbar(
            curve.sizes - curve.truth, -curve.behind, curve.errors, fmt=MARKERS[index], linestyle="-", capsize=3,
            color=PALETTE[index], markersize=5, label=NAMES[curve.family],
        )  # fmt: skip
    axes.set_yscale("symlog", linthresh=0.02)
    axes.set(xlabel="number, less the truth", ylabel="evidence, less the truth's, nats")
    axes.set_title("Means over sets", loc="left", fontweight="bold")
    legend_below(axes, 2)


def _real(axes: Axes, curve: Curve) -> None:
    axes.axhline(0, color="0.3", linewidth=1)
    axes.errorbar(curve.sizes, -curve.behind, curve.errors, fmt="o", linestyle="-", color="0.4", capsize=3)
    for index, (criterion, label) in enumerate(CRITERIA.items()):
        if criterion in curve.picked:
            size = curve.picked[criterion] + 0.06 * (index - 1.5)
            axes.axvline(size, color=PALETTE[index], linestyle=("-", "--", "-.", ":")[index], label=f"{label}")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_xticks(curve.sizes)
    axes.set(xlabel=NAMES[curve.family], ylabel="evidence, less the best, nats")
    axes.set_title(f"{curve.data}: what is picked", loc="left", fontweight="bold")
    legend_below(axes, 2)
