"""What the rows of `binary_tables` say: tables, checks and figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Group
from rich.table import Table
from rich.text import Text

from significance import Decision, Kind, Verdict
from studies.binary_tables.published import published
from studies.binary_tables.settings import Settings
from studies.binary_tables.standings import LABELS, Standing, judged, standings
from studies.kit.figures import PALETTE, caption, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, with_error

BAR = {"nltcs": -6.03}  # nats a row, that some model is to reach
SIGMAS = 4.0
BOUND, EXACT, OTHERS = PALETTE[1], PALETTE[0], PALETTE[2]


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the models of these settings."""
    return rows[rows["model"].isin(settings.models)]


def table(rows: pd.DataFrame) -> Group:
    """Mean test log p of every model on each table, of which kind, beside what others have published."""
    return Group(*(_of_table(rows, name, found) for name, found in standings(rows).items()), Text(words(rows)))


def _of_table(rows: pd.DataFrame, name: str, found: list[Standing]) -> Table:
    about = rows[rows["data"] == name].iloc[0]
    title = f"{name}: {int(about['features'])} columns, {int(about['test_rows']):,} test rows, nats a row"
    shown = empty(title, ["model", "log p is"], ["log p(x)", "less the mixture", "between"], wrap=True)
    for each in found:
        shown.add_row(
            each.label,
            "exact" if each.kind is Kind.EXACT else "bounded",
            ("" if each.kind is Kind.EXACT else "≥ ") + with_error(each.log_p.mean, each.log_p.error),
            "" if each.over_mixture is None else with_error(each.over_mixture.mean, each.over_mixture.error),
            "" if each.low != each.low else f"{each.low:.3f}, {each.high:.3f}",
        )
    if found and found[0].over_truth is not None:
        over, error, first = found[0].over_truth.mean, found[0].over_truth.error, found[0].log_p.mean
        ahead = with_error(-over, error) if found[0].model == "mixture" else ""
        shown.add_row("what made them up", "exact", f"{first - over:.3f}", ahead, "")
    for other, value in published(name):
        shown.add_row(f"{other.method}, {other.source}", other.seen.split()[0], f"{value:g}", "", "")
    return shown


def words(rows: pd.DataFrame) -> str:
    """The answer from the rows."""
    return f"{answer(rows)} {_explained(rows)}"


def answer(rows: pd.DataFrame) -> str:
    """What training through the mixture gains, which model is above the mixture, and how far others are."""
    lines, found = [], standings(rows)
    if gains := judged(rows, "over_twin"):
        listed = ", ".join(f"{name} {_said(each)}" for (name, _), each in gains.items())
        lines.append(f"Trained as a mixture, a decoder gains over its ELBO's twin, both compiled: {listed} nats.")
    best = {name: max(each, key=lambda one: one.at_least) for name, each in found.items()}
    listed = ", ".join(f"{name} {_value(one)} ({one.label})" for name, one in best.items())
    lines.append(f"Highest: {listed}.")
    below = [key for key, each in judged(rows, "over_mixture").items() if each.verdict is Verdict.SECOND]
    if below:
        lines.append(
            f"Below the Bernoulli mixture: {', '.join(f'{LABELS[model]} on {name}' for name, model in below)}."
        )
    return " ".join(lines)


def _said(each: Decision) -> str:
    return with_error(each.fitted.mean, each.fitted.error) + ("" if each.verdict is not Verdict.OPEN else " (open)")


def _value(each: Standing) -> str:
    return f"{'' if each.kind is Kind.EXACT else '≥ '}{each.at_least:.3f}"


def _explained(rows: pd.DataFrame) -> str:
    shares = [float(share) for share in rows["confidence"].dropna()] if "confidence" in rows else []
    between = f" Between: at {100 * shares[0]:g} %, over draws." if shares else ""
    return (
        "± over test rows, paired in differences. Bounds are by importance weights; what is less the exact mixture is "
        f"then a bound on the difference. Published numbers are read or recalled, with their own splits.{between}"
    )


def checks(rows: pd.DataFrame) -> list[Check]:
    """Gain over the twin, the bar, the truth where it is known, and intervals that agree with the claims."""
    found = standings(rows)
    return [*_gains(rows), *_bars(found), *_truth(rows), *_intervals(found)]


def _gains(rows: pd.DataFrame) -> list[Check]:
    claim = "trained as a mixture, the decoder is a higher mixture than its ELBO's twin"
    return [
        Finding.of(f"{name}: {claim}", each, with_error(each.fitted.mean, each.fitted.error))
        for (name, _), each in judged(rows, "over_twin").items()
    ]


def _bars(found: dict[str, list[Standing]]) -> list[Check]:
    made = []
    for name, bar in BAR.items():
        if found.get(name):
            best = max(each.at_least for each in found[name])
            claim = f"{name}: some model at {bar:g} or more, exactly or by a lower bound"
            made.append(Check(claim, best >= bar, f"{bar:g}", f"{best:.4f}"))
    return made


def _truth(rows: pd.DataFrame) -> list[Check]:
    if "over_truth" not in rows or rows["over_truth"].isna().all():
        return []
    over = rows[rows["over_truth"].notna()]
    within = (over["over_truth"] <= SIGMAS * over["over_truth_error"]).all()
    worst = f"{over['over_truth'].max():.4f}"
    return [Check("no model is above what made up the table, by 4 errors", bool(within), "0", worst)]


def _intervals(found: dict[str, list[Standing]]) -> list[Check]:
    known = [(name, each) for name, models in found.items() for each in models if each.low == each.low]
    if not known:
        return []
    agree = [each.log_p.mean - SIGMAS * each.sampling <= each.high for _, each in known]
    claim = f"bounds by importance weights are below the upper ends of their intervals ({sum(agree)} of {len(agree)})"
    return [Check(claim, all(agree))]


def figure(rows: pd.DataFrame) -> Figure:
    """A panel for each table: mean test log p(x) of the mixture and of six models by VAEs, exact or at least so much,
    with errors paired to the mixture, and lines where other methods are or what made the table up.
    """
    found = standings(rows)
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    with panels(columns, lines, width=5.2 * columns + (3.2 if columns == 1 else 0), height=4.1) as (drawn, axes):
        for place, (each, (name, models)) in enumerate(zip(axes, found.items(), strict=False)):
            _panel(each, name, models, labelled=place % columns == 0)
        for each in axes[len(found) :]:
            each.set_axis_off()
        bars = "Bars: paired error of the difference from the mixture; shaded: between both ends of an interval."
        caption(drawn, f"{words(rows)} {bars}")
    return drawn


def _panel(axes: Axes, name: str, models: list[Standing], *, labelled: bool) -> None:
    order = list(LABELS)
    for each in models:
        height = -order.index(each.model)
        exact = each.kind is Kind.EXACT
        error = 0.0 if each.over_mixture is None else each.over_mixture.error
        axes.errorbar(
            each.log_p.mean, height, xerr=error, fmt="o" if exact else ">", color=EXACT if exact else BOUND,
            capsize=3, markersize=7,
        )  # fmt: skip
        if each.high == each.high:
            axes.plot([each.low, each.high], [height, height], color=BOUND, linewidth=5, alpha=0.4)
    lines = [(other.method, value) for other, value in published(name)]
    if models and (over := models[0].over_truth) is not None:
        lines.append(("what made them up", models[0].log_p.mean - over.mean))
    for place, (called, value) in enumerate(sorted(lines, key=lambda line: line[1])):
        axes.axvline(value, color=OTHERS, linewidth=1.2, linestyle="--", zorder=0)
        axes.annotate(
            called, (value, 0.4 + 0.5 * (place % 3)), fontsize=8, color=OTHERS, ha="center",
            va="bottom", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, annotation_clip=False,
        )  # fmt: skip
    axes.set_yticks([-place for place in range(len(order))], list(LABELS.values()) if labelled else [""] * len(order))
    axes.set_ylim(0.6 - len(order), 2)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.12)
    axes.set_xlabel("mean test log p(x), nats" + (": ● exact, ▶ at least" if labelled else ""))
    axes.set_title(name, loc="left", fontweight="bold")
