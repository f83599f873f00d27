"""What the rows of `audit` say: tables, checks and figure."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group
from rich.text import Text

from studies.audit.settings import Settings
from studies.audit.standings import EXACT, LABELS, UNBIASED, Sum, Width, sums, widths
from studies.kit.figures import MARKERS, PALETTE, caption, legend_below, panels
from studies.kit.study import Check, Finding
from studies.kit.tables import empty, with_error

SIGMAS = 4.0  # some twenty comparisons a run
CONVICTED = 3.0  # errors
ROUNDING = 1e-5  # of a sum over states in float32
SMALL = 0.05  # nats of bias, below which that of second order in the weights is the whole of it
SEEN = 0.01  # nats of bias
SHIFT = 0.07  # between methods at equal draws, of a decade


def selected(settings: Settings, rows: pd.DataFrame) -> pd.DataFrame:
    """Of the methods and draws of these settings."""
    of_sums = rows["method"].isin(settings.methods) & rows["draws"].isin((0, *settings.draws))
    of_intervals = (rows["part"] == "interval") & rows["draws"].isin(settings.work)
    return rows[((rows["part"] == "sum") & of_sums) | of_intervals]


def table(rows: pd.DataFrame) -> Group:
    """Sums over all states of every method, with the bias of the mean log p̂; and intervals, with what they hold."""
    about = rows.iloc[0]
    added_up = empty(
        f"{about['data']}: Σ p̂(x) over all 2^{int(about['features'])} states, and mean log p̂ of "
        f"{int(about['test_rows']):,} test rows, nats",
        ["claim", "K"],
        ["Σ p̂", "off by", "error", "bias of log p̂", "as it states"],
    )
    for each in sums(rows):
        added_up.add_row(
            each.label,
            f"{each.draws:,}" if each.draws else "",
            f"{each.total:.6f}" if each.total_error == 0 else with_error(each.total, each.total_error),
            _departure(each) if each.total_error else "rounding",
            "" if each.total_error == 0 else "reliable" if each.reliable else "uncertain",
            _bias(each),
            "" if math.isnan(each.stated) else f"{each.stated:.4f}",
        )
    bounded = empty(
        f"{about['data']}: intervals at {100 * _confidence(rows):g} % for the mean log p(x) of the test rows",
        [],
        ["draws a row", "simulated", "low − truth", "high − truth", "width", "hold the truth", "CPU s"],
    )
    for interval in widths(rows):
        bounded.add_row(
            f"{interval.draws:,}",
            f"{interval.simulated:,}",
            f"{interval.low:.4f}",
            f"{interval.high:.4f}",
            f"{interval.width:.4f}",
            f"{interval.contained} of {interval.tried}",
            f"{interval.seconds:.1f}",
        )
    explained = (
        "K: draws, chains or nodes. Off by: from 1, in Monte Carlo errors; where few claims have most of an error it "
        f"is uncertain, and mostly too small. Bias: against {about['truth_method']}, {about['truth_kind']}, "
        f"{with_error(float(about['truth']), float(about['truth_error']))} nats."
    )
    return Group(added_up, *([bounded] if widths(rows) else []), Text(f"{answer(rows)} {explained}"))


def _departure(each: Sum) -> str:
    return f"{each.departure:+,.1f} errors" if abs(each.departure) < 1000 else f"{each.departure:+,.0f} errors"


def _bias(each: Sum) -> str:
    if math.isnan(each.bias):
        return ""
    return with_error(each.bias, each.bias_error) if each.total_error else f"{each.bias:.3g}"


def _confidence(rows: pd.DataFrame) -> float:
    known = [float(share) for share in rows["confidence"].dropna()] if "confidence" in rows else []
    return known[0] if known else math.nan


def answer(rows: pd.DataFrame) -> str:
    """What the sum convicts, what it does not see, and how wide intervals are."""
    every, lines = sums(rows), []
    if convicted := [each for each in every if each.method == "factor" and each.departure > CONVICTED]:
        lines.append(f"A factor K/(K − 1) is seen at {', '.join(f'K = {each.draws:,}' for each in convicted)}.")
    if hidden := _hidden(every):
        worst = min(hidden, key=lambda each: each.bias)
        lines.append(
            f"The sum does not see that log p̂ is biased: {worst.label}, K = {worst.draws:,}, {worst.bias:.4f} nats."
        )
    if wrong := _wrong_model(every):
        lines.append(
            f"Nor that it is of another model: a mixture of {wrong.draws} nodes sums to 1 and is {wrong.bias:.4f} off."
        )
    if intervals := widths(rows):
        last = intervals[-1]
        lines.append(
            f"Intervals hold the truth {sum(each.contained for each in intervals)} times of "
            f"{sum(each.tried for each in intervals)}; the narrowest is {last.width:.4f} nats wide, in "
            f"{last.seconds:.1f} s of CPU."
        )
    return " ".join(lines)


def _hidden(every: list[Sum]) -> list[Sum]:
    """Unbiased sums of a biased log p̂, as far as can be seen."""
    return [each for each in every if each.method in UNBIASED and abs(each.departure) < SIGMAS and each.biased]


def _wrong_model(every: list[Sum]) -> Sum | None:
    """The mixture that is farthest from the VAE that it was made of."""
    compiled = [each for each in every if each.method == "compiled" and abs(each.bias) > SEEN]
    return max(compiled, key=lambda each: abs(each.bias), default=None)


def checks(rows: pd.DataFrame) -> list[Check]:
    """What adds up, what does not, what the sum is blind to, and that intervals hold."""
    every = sums(rows)
    exact = [each for each in every if each.method in EXACT]
    unbiased = [each for each in every if each.method in UNBIASED]
    found = []
    if exact:
        off = max(abs(each.total - 1) for each in exact)
        found.append(Check(f"what is exact sums to 1 up to rounding (largest: {off:.1e})", off < ROUNDING))
    if unbiased:
        found.append(_adds_up(unbiased))
        if biases := _stated(unbiased):
            off = max(abs(each.bias - each.stated) / each.bias_error for each in biases)
            claim = f"log p̂ is biased as it states, where that is below {SMALL} nats (at most {off:.1f} errors off)"
            found.append(Finding(claim, True if off < SIGMAS else None))
        claim = "a bias of log p̂ does not show in the sum"
        found.append(Finding(claim, True if _hidden(every) else None))
    if average := [each for each in every if each.method == "average"]:
        least = max(each.departure for each in average)
        claim = f"a loose bound sums to less than 1 ({least:.1f} errors, at the least)"
        found.append(Finding(claim, True if least < -CONVICTED else None))
    if factor := [each for each in every if each.method == "factor"]:
        fewest = min(factor, key=lambda each: each.draws)
        claim = f"a factor K/(K − 1) is convicted at K = {fewest.draws} ({fewest.departure:+.1f} errors)"
        found.append(Finding(claim, True if fewest.departure > CONVICTED else None))
    return found + _of_intervals(rows, widths(rows))


def _adds_up(unbiased: list[Sum]) -> Check:
    worst = max(unbiased, key=lambda each: abs(each.departure))
    claim = f"unbiased estimators sum to 1 within errors (largest: {worst.departure:+.1f}, {worst.label})"
    if abs(worst.departure) < SIGMAS:
        return Check(claim, True)
    reliable = any(each.reliable and abs(each.departure) >= SIGMAS for each in unbiased)
    return Check(claim, False) if reliable else Check(f"{claim}: but that error is uncertain", None)


def _stated(unbiased: list[Sum]) -> list[Sum]:
    known = [each for each in unbiased if not math.isnan(each.stated) and each.bias_error > 0]
    return [each for each in known if abs(each.stated) < SMALL]


def _of_intervals(rows: pd.DataFrame, intervals: list[Width]) -> list[Check]:
    if not intervals:
        return []
    held, tried = sum(each.contained for each in intervals), sum(each.tried for each in intervals)
    allowed = tried * (1 - _confidence(rows))
    allowed += SIGMAS * math.sqrt(allowed * _confidence(rows))
    claim = f"intervals at {100 * _confidence(rows):g} % hold the truth ({held} of {tried})"
    found = [Check(claim, tried - held <= allowed)]
    if len(intervals) > 1:
        first, last = intervals[0], intervals[-1]
        claim = f"work makes them narrower ({first.width:.4f} to {last.width:.4f} nats)"
        found.append(Finding(claim, last.width < first.width))
    return found


def figure(rows: pd.DataFrame) -> Figure:
    """Left: by how much each method's sum is off, with its error, against draws. Right: intervals against work."""
    with panels(2, width=13.5, height=5.2) as (drawn, (left, right)):
        _sums(left, sums(rows))
        _intervals(right, rows)
        caption(drawn, answer(rows))
    return drawn


def _sums(axes: Axes, every: list[Sum]) -> None:
    axes.axhline(0, color="0.3", linewidth=1)
    methods = [method for method in LABELS if any(each.method == method and each.draws for each in every)]
    for place, method in enumerate(methods):
        of = [each for each in every if each.method == method]
        shift, index = 10 ** (SHIFT * (place - (len(methods) - 1) / 2)), list(LABELS).index(method)
        axes.errorbar(
            [each.draws * shift for each in of], [each.total - 1 for each in of], [each.total_error for each in of],
            fmt=MARKERS[index], color=PALETTE[index], capsize=3, markersize=6, label=LABELS[method],
        )  # fmt: skip
    axes.set(xscale="log", xlabel="draws K, chains or nodes", ylabel="Σ p̂(x) − 1, with its error")
    axes.set_yscale("symlog", linthresh=1e-3, linscale=0.6)
    axes.set_ylim(-3, 1)
    axes.set_title("What the claims about all states sum to", loc="left", fontweight="bold")
    legend_below(axes, 3)
    axes.set_yticks([-1, -0.1, -0.01, -0.001, 0, 0.001, 0.01, 0.1, 1])


def _intervals(axes: Axes, rows: pd.DataFrame) -> None:
    known = "" if (rows["truth_kind"] == "exact").all() else ", estimated"
    axes.axhline(0, color="0.3", linewidth=1.4, linestyle="--", label=f"log p(x){known}")
    found = widths(rows)
    if found:
        draws = [each.draws for each in found]
        low, high = [each.low for each in found], [each.high for each in found]
        axes.fill_between(draws, low, high, color=PALETTE[0], alpha=0.15)
        axes.plot(draws, high, MARKERS[3], color=PALETTE[3], linestyle="-", label="upper bound")
        axes.plot(draws, low, MARKERS[2], color=PALETTE[0], linestyle="-", label="lower bound")
        axes.set(xscale="log")
        axes.set_xticks(draws, [f"{each:,}" for each in draws], minor=False)
        axes.set_xticks([], minor=True)
        for each in found:
            axes.annotate(
                f"{each.simulated:,}", (each.draws, each.high), xytext=(0, 7), textcoords="offset points",
                ha="center", fontsize=8.5, color="0.4",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
    axes.margins(y=0.15)
    axes.set(xlabel="latent draws a row (above: rows simulated from the model)", ylabel="nats, less log p(x)")
    axes.set_title(f"Mean log p(x) at {100 * _confidence(rows):g} %", loc="left", fontweight="bold")
    axes.legend(loc="upper right")
